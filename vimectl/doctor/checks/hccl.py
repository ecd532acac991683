"""environment: the variables of HCCL and gloo that name addresses, interfaces, ranks and buffers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address

from vimectl.doctor.check import CheckList, CheckResult, Status, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.cann import read_vllm_ascend_build
from vimectl.doctor.facts.environment import read_rank_table, read_variable
from vimectl.doctor.facts.inputs import read_model_shape
from vimectl.doctor.facts.networks import read_interfaces
from vimectl.doctor.stack_requirements import PACKAGE_READS

CHECKS = CheckList(running=True)

_GUIDE = "CANN 9.0 HCCL guide"
_ADDRESS, _TABLE, _BUFFER = "HCCL_IF_IP", "RANK_TABLE_FILE", "HCCL_BUFFSIZE"
_INTERFACES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_NETWORKS = ("/sys/class/net", "/proc/net/fib_trie", "/proc/net/route", "/proc/net/if_inet6")
_DEFAULT_BUFFER = 200
# vllm-ascend captures graphs for, and dispatches with its fused operator, at most so many tokens.
_DISPATCHED_TOKENS = 512
_EXPANSION = "HCCL_OP_EXPANSION_MODE"
# On Atlas A2 the fused operator is used from this many expert-parallel ranks on.
_FUSED_RANKS = {"A2": 16, "A3": 2}
_MIB = 1024**2


@CHECKS.add(
    "environment.host-address",
    device="npu",
    source=f"{_GUIDE}: {_ADDRESS}; vllm-ascend#2879",
    reads=(f"${_ADDRESS}", *_NETWORKS),
)
def host_address(facts: Facts) -> CheckResult | str:
    """HCCL_IF_IP: the one IPv4 or IPv6 address of this host at which HCCL sets up a communicator."""
    values = facts.read(read_variable, facts.optional_recipe, _ADDRESS)
    given = [value for value in values.given if value is not None]
    if not given:
        return "not set"
    interfaces = facts.read(read_interfaces)
    own = [address.partition("/")[0] for addresses in interfaces.values() for address in addresses]
    expected = f"an address of this machine: {listed(own)}" if own else "an address of this machine"
    for value in given:
        try:
            address = ip_address(value)
        except ValueError:
            return CheckResult("fail", f"{values}: not an IP address", expected, values.fix)
        if not address.is_loopback and own and str(address) not in own:
            return CheckResult("fail", f"{values}: not an address of this machine", expected, values.fix)
    if not own:
        raise Unavailable(f"{values}; the addresses of this machine cannot be read")
    return CheckResult("pass", str(values), expected)


def _selected(variable: str, value: str, names: Iterable[str]) -> list[str]:
    """Return the interfaces that a value selects.

    HCCL: prefixes, or with = names, or with ^ all others. gloo and TensorPipe: names.
    """
    if not variable.startswith("HCCL"):
        return [name for name in value.split(",") if name in names]
    excluded = value.startswith("^")
    exact = value.removeprefix("^").startswith("=")
    words = [word for word in value.removeprefix("^").removeprefix("=").split(",") if word]
    return [
        name
        for name in names
        if any(name == word if exact else name.startswith(word) for word in words) is not excluded
    ]


@CHECKS.add(
    "environment.interfaces",
    source=f"{_GUIDE}: HCCL_SOCKET_IFNAME; torch: ProcessGroupGloo.cpp; vllm-ascend#2879",
    reads=(*(f"${name}" for name in _INTERFACES), "/sys/class/net"),
)
def interfaces(facts: Facts) -> CheckResult:
    """HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME and TP_SOCKET_IFNAME select network interfaces: without one of
    that name no communicator is created. Only HCCL takes prefixes, = and ^.
    """
    names = facts.names("/sys/class/net")
    if not names:
        raise Unavailable("/sys/class/net lists no interfaces")
    found, wrong, unset, status = [], [], [], "warn"
    for variable in _INTERFACES:
        values = facts.read(read_variable, facts.optional_recipe, variable)
        # The driver communicates through Ray only.
        used = {value for role, value in values.processes.items() if role != "driver"}
        for value in dict.fromkeys([values.here or None, *values.given]):
            if value is None:
                continue
            selected = _selected(variable, value, names)
            found.append(f"{variable}={value}")
            # gloo needs each of its list, HCCL takes the first that fits.
            if selected and (variable.startswith("HCCL") or len(selected) == len(value.split(","))):
                continue
            wrong.append(f"{variable}={value}")
            unset.append(variable)
            # No process of a run uses TensorPipe.
            if (value in used or not values.processes) and not variable.startswith("TP"):
                status = "fail"
    bad: Status = "fail" if status == "fail" else "warn"
    return result(
        not wrong,
        f"{', '.join(wrong)}: no such interface" if wrong else ", ".join(found) or "not set",
        f"interfaces of this machine: {listed(names, 8)}",
        f"unset {' '.join(dict.fromkeys(unset))}  (or in the recipe's [env])",
        bad,
    )


@CHECKS.add(
    "environment.rank-table",
    device="npu",
    source="CANN environment variables: RANK_TABLE_FILE; gpustack/runtime#27",
    reads=(f"${_TABLE}", "*", *_NETWORKS),
)
def rank_table(facts: Facts) -> CheckResult | str:
    """RANK_TABLE_FILE: with a readable table HCCL takes ranks and addresses from it instead of negotiating
    them, and a table of another machine or job fails at the first collective.
    """
    values = facts.read(read_variable, facts.optional_recipe, _TABLE)
    given = [value for value in values.given if value is not None]
    if not given:
        return "not set"
    devices, problem = facts.read(read_rank_table, given[0])
    if not devices:
        # HCCL ignores a path without a file.
        bad: Status = "warn" if facts.missing(given[:1]) else "fail"
        return CheckResult(bad, f"{given[0]}: {problem}", "no table, or one of this job", values.fix)
    needed = facts.recipe_for(f"{given[0]}: {devices} devices").cluster
    return result(
        devices == needed.nodes * needed.devices_per_node,
        f"{given[0]}: {devices} devices",
        f"no table, or one with {needed.nodes * needed.devices_per_node} devices",
        values.fix,
    )


@CHECKS.add(
    "environment.expansion-mode",
    device="npu",
    recipe=True,
    source="CANN 9.0 environment variables: HCCL_OP_EXPANSION_MODE; vllm-ascend#14928 (A3, CANN 9.0.0)",
    reads=(f"${_EXPANSION}", "*/_build_info.py", "/usr*", *PACKAGE_READS),
)
def expansion_mode(facts: Facts) -> CheckResult:
    """HCCL_OP_EXPANSION_MODE=AIV: collectives run on the vector cores. CANN supports that for inference only,
    and on Atlas A3 the fused operators that distribute tokens among experts hang (107020).
    """
    rollout = facts.recipe.rollout
    values = facts.read(read_variable, facts.recipe, _EXPANSION)
    wrong = ["for inference only"] if values.processes["train"] == "AIV" else []
    fused = rollout.expert_parallel and rollout.tensor_parallel >= _FUSED_RANKS["A3"]
    if fused and values.processes["rollout"] == "AIV" and facts.read(read_vllm_ascend_build)[1] == "A3":
        wrong.append("operators of experts hang on A3")
    found = "; ".join([str(values), *wrong])
    return warn_unless(not wrong, found, "not AIV in the trainer, or with experts on A3", values.fix)


def _dispatch_bytes(tokens: int, experts: int, chosen: int, hidden: int) -> int:
    """Return the buffer of aclnnMoeDistributeDispatchV2 on Atlas A3 without shared experts, for ``tokens`` of
    a rank in bf16. ``experts`` are those of all ranks.
    """
    row, token = _align(_align(2 * hidden, 32) + 64, 512), _align(2 * hidden, 512)
    return 2 * tokens * (experts * row + chosen * token)


def _align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


@CHECKS.add(
    "environment.hccl-buffer",
    device="npu",
    recipe=True,
    source="CANN ops-transformer: aclnnMoeDistributeDispatchV2, HCCL_BUFFSIZE; vllm_ascend/"
    "ascend_forward_context.py:198 (0.22.1rc1); vllm-ascend#2674",
    reads=(f"${_BUFFER}", "*/_build_info.py", "*/config.json", "/usr*", *PACKAGE_READS),
    after=("recipe.model",),
)
def hccl_buffer(facts: Facts) -> CheckResult | str:
    """HCCL_BUFFSIZE: the MiB of a communicator's buffer, which must hold the tokens that a rank sends to the
    experts of the other ranks; CANN's default is 200. With less the operator reads outside of it.
    """
    rollout = facts.recipe.rollout
    values = facts.read(read_variable, facts.recipe, _BUFFER)
    text = values.processes["rollout"]
    if text is not None and not re.fullmatch(r"[1-9]\d*", text):
        return CheckResult("fail", str(values), "a number of MiB", values.fix)
    if not rollout.expert_parallel:
        return f"{values}; the engine does not distribute experts"
    generation = facts.read(read_vllm_ascend_build)[1]
    if rollout.tensor_parallel < _FUSED_RANKS.get(generation, 1):
        return f"{values}; no fused dispatch on {rollout.tensor_parallel} ranks of {generation}"
    shape = facts.read(read_model_shape, facts.recipe)
    tokens = -(-_DISPATCHED_TOKENS // rollout.tensor_parallel)
    needed = _dispatch_bytes(tokens, shape.num_experts, shape.num_experts_per_tok, shape.hidden_size)
    mib = -(-needed // _MIB)
    size = _DEFAULT_BUFFER if text is None else int(text)
    expected = f"{mib} MiB for {tokens} tokens a rank and {shape.num_experts} experts"
    fix = values.fix if mib <= _DEFAULT_BUFFER else f"--set env.{_BUFFER}={mib}"
    # That many tokens are the most; the default may suffice for fewer.
    return result(size >= mib, str(values), expected, fix, "warn" if text is None else "fail")
