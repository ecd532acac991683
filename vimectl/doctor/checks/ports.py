"""environment: the TCP ports of HCCL."""

from __future__ import annotations

from collections.abc import Collection

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.environment import read_variable
from vimectl.doctor.facts.processes import format_ports, parse_ports, read_ephemeral_ports, read_ports
from vimectl.stacks.schema import Stack

CHECKS = CheckList(running=True)

_HOST_PORTS, _BASE_PORT = "HCCL_HOST_SOCKET_PORT_RANGE", "HCCL_IF_BASE_PORT"
_PORTS = {"host-ports": _HOST_PORTS, "npu-ports": "HCCL_NPU_SOCKET_PORT_RANGE"}
# Trainer and engine are two processes on each NPU.
_PROCESSES_PER_DEVICE = 2
# HCCL uses as many ports from HCCL_IF_BASE_PORT on.
_BASE_PORTS = 16
# Those of environment.toml end at 60050 on the host and at 61050 on the NPUs; others begin above.
_FIRST_OTHER, _OTHER_PORTS = 61100, 51
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"
_GUIDE = "CANN 9.0 HCCL guide"


def _port_rules(stack: Stack) -> dict[str, str]:
    rule = (
        "ports or ranges from 1024 to 65535 that do not overlap, or auto; CANN needs one "
        "for each process on an NPU, and a colocated job has two, trainer and engine"
    )
    return {check: f"{variable}: {rule}" for check, variable in _PORTS.items()}


def _other_ports(taken: Collection[int]) -> str:
    """Return a range of free ports."""
    first = _FIRST_OTHER
    while blocking := set(range(first, first + _OTHER_PORTS)) & set(taken):
        first = max(blocking) + 1
    return f"{first}-{first + _OTHER_PORTS - 1}"


@CHECKS.add_each(
    "environment.{}",
    _port_rules,
    device="npu",
    source=f"{_GUIDE}: {_HOST_PORTS}, HCCL_NPU_SOCKET_PORT_RANGE; vllm-ascend#405, LlamaFactory#9330",
    reads=(*(f"${name}" for name in _PORTS.values()), *_TABLES),
)
def hccl_ports(check: str, facts: Facts) -> CheckResult:
    """Check one of the two port ranges of HCCL."""
    name = _PORTS[check]
    together = _PROCESSES_PER_DEVICE * facts.recipe.cluster.devices_per_node
    values = facts.read(read_variable, facts.recipe, name)
    expected = (
        f"{_PROCESSES_PER_DEVICE} free ports or more, better {together}, one for each process of the node"
    )
    text = values.processes["train"] or ""
    if text == "auto":
        return CheckResult("pass", str(values), expected)
    ports = parse_ports(text)
    if ports is None or len(ports) != len(set(ports)) or ports[0] < 1024:
        return CheckResult("fail", str(values), "ports or ranges from 1024, none twice", values.fix)
    # The NPU ports belong to the NPU's own network interface: the tables of the host do not have them.
    listening = facts.read(read_ports, True)
    taken = sorted(listening & set(ports)) if name == _HOST_PORTS else []
    free = len(ports) - len(taken)
    found = f"{values}; {free} of {len(ports)} " + ("free" if name == _HOST_PORTS else "ports")
    if taken:
        found += f", taken: {listed(list(map(str, taken)), 5)}"
    # The launcher sets the variable for its processes, so a value in the shell has no effect.
    fix = f"--set env.{name}={_other_ports(listening)}, or end what listens there (ss -ltnp)"
    if values.in_recipe and len(ports) < together:
        fix = values.fix
    return result(free >= together, found, expected, fix, "fail" if free < _PROCESSES_PER_DEVICE else "warn")


@CHECKS.add(
    "environment.base-port",
    device="npu",
    source=f"{_GUIDE}: {_HOST_PORTS} has precedence over {_BASE_PORT}; vllm-ascend PR 16205 (EI0019)",
    reads=(f"${_BASE_PORT}", *_TABLES),
)
def base_port(facts: Facts) -> CheckResult | str:
    """Without HCCL_HOST_SOCKET_PORT_RANGE, which the launcher sets for its processes, HCCL listens on the 16
    ports from HCCL_IF_BASE_PORT on.
    """
    given = facts.environment.get(_BASE_PORT)
    if given is None:
        return "not set"
    expected = f"{_BASE_PORTS} free ports from 1024 on"
    if not given.isdecimal() or not 1024 <= int(given) <= 65536 - _BASE_PORTS:
        return CheckResult(
            "warn", f"{given or 'empty'}: not the first of 16 ports", expected, f"unset {_BASE_PORT}"
        )
    ports = range(int(given), int(given) + _BASE_PORTS)
    taken = sorted(facts.read(read_ports, True) & set(ports))
    found = f"{given}, taken: {format_ports(taken)}" if taken else f"{given}, all 16 free"
    return warn_unless(not taken, found, expected, f"unset {_BASE_PORT}  (a run does not use it)")


@CHECKS.add(
    "environment.reserved-ports",
    device="npu",
    source="CANN environment variables: HCCL_IF_BASE_PORT (reserve the ports); ip-sysctl of the kernel",
    reads=(f"${_HOST_PORTS}", _EPHEMERAL, _RESERVED),
)
def reserved_ports(facts: Facts) -> CheckResult:
    """The kernel gives ports of net.ipv4.ip_local_port_range to any program that connects; CANN asks to
    exclude HCCL's ports from it with net.ipv4.ip_local_reserved_ports.
    """
    values, kernel = facts.read(read_variable, facts.recipe, _HOST_PORTS), facts.read(read_ephemeral_ports)
    reserved = facts.search(_RESERVED, r"(\S+)")
    ports = parse_ports(values.processes["train"] or "")
    if not ports:
        raise Unavailable(f"{_HOST_PORTS} names no ports")
    unreserved = set(ports) & set(kernel) - set(parse_ports(reserved) or ())
    text = format_ports(unreserved)
    return warn_unless(
        not unreserved,
        f"the kernel assigns {kernel[0]} to {kernel[-1]}, reserved: {reserved or 'none'}"
        + (f"; open to any program: {text}" if text else ""),
        f"{format_ports(ports)} reserved, or outside of that range",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={','.join(filter(None, [reserved, text]))}",
    )
