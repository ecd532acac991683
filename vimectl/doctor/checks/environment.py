"""environment: the variables that matter, as each process of the job would get them."""

from __future__ import annotations

import os
import re

from vime_runtime.spec.device_layout import VISIBLE_DEVICES
from vime_runtime.spec.process_roles import ROLES, Role

from vimectl.doctor.check import CheckList, CheckResult, Status, result, warn_unless
from vimectl.doctor.checks.npu import needed_devices, visible_devices
from vimectl.doctor.facts import Facts, Unavailable, limits
from vimectl.doctor.facts.environment import read_variable, show_value
from vimectl.doctor.facts.processes import format_ports, parse_ports, read_ephemeral_ports, read_ports
from vimectl.recipes.environment import CANN_HOME, allowed_cores, variables
from vimectl.stacks.schema import Stack
from vimectl.util import npu_devices
from vimectl.util.cpu_list import parse_cpu_list

CHECKS = CheckList(running=True)

_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1")
_COLOCATE = "VIME_COLOCATE"
_THREADS, _CORES = "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"
_HOST_PORTS = "HCCL_HOST_SOCKET_PORT_RANGE"
_PORTS = {"host-ports": _HOST_PORTS, "npu-ports": "HCCL_NPU_SOCKET_PORT_RANGE"}
# Trainer and engine are two processes on each NPU.
_PROCESSES_PER_DEVICE = 2


@CHECKS.add("environment.proxies")
def proxies(facts: Facts) -> CheckResult:
    """A proxy cannot forward traffic between the processes of one machine."""
    environment = facts.environment
    found = [name for name in _PROXIES if environment.get(name)]
    given = (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(",")
    exempt = {name.strip() for name in given}
    absent = [name for name in _LOOPBACK if name not in exempt and "*" not in exempt]
    text = ", ".join(found) or "no proxy"
    if found:
        text += f"; no_proxy lacks {', '.join(absent)}" if absent else "; loopback is exempt"
    # The launcher sets no_proxy for its processes, so this affects only what is started by hand.
    return warn_unless(
        not (found and absent),
        text,
        "no proxy for loopback",
        f"export no_proxy={','.join([*filter(None, exempt), *absent])}",
    )


@CHECKS.add("environment.pythonpath")
def pythonpath(facts: Facts) -> CheckResult:
    """A module on PYTHONPATH hides the package of the stack."""
    modules = {name.replace("-", "_") for name in facts.stack.packages} | {"megatron", "vime_runtime"}
    entries = list(filter(None, facts.environment.get("PYTHONPATH", "").split(os.pathsep)))
    candidates = [f"{entry}/{module}" for entry in entries for module in sorted(modules)]
    absent = facts.missing(candidates)
    hiding = [path for path in candidates if path not in absent]
    good = f"{len(entries)} entries, none with a package of the stack" if entries else "not set"
    return result(
        not hiding,
        ", ".join(hiding) or good,
        "no package of the stack on it",
        "unset PYTHONPATH, or remove these entries",
    )


@CHECKS.add("environment.colocate")
def colocate(facts: Facts) -> CheckResult:
    """VIME_COLOCATE=1 tells a patched engine that it shares the device with a trainer: it starts on memory
    that is not free, and sizes its KV cache by its own use only.
    """
    values = facts.read(read_variable, facts.optional_recipe, _COLOCATE)
    found = "not set here" if values.here is None else f"{_COLOCATE}={values.here} here"
    if not values.processes:
        # Every engine that is started from this shell would get it.
        return warn_unless(values.here is None, found, "set by the launcher only", values.fix)
    value = values.processes["rollout"]
    return warn_unless(
        value == "1",
        f"{found}; the launcher gives the engine {_COLOCATE}={show_value(value)}",
        "1 for the engine",
        values.fix,
    )


def _fixed_reasons(stack: Stack) -> dict[str, str]:
    """Return the checks that ``environment.toml`` names. The first variable of a check says why."""
    found: dict[str, str] = {}
    for variable in variables():
        if variable.check:
            found.setdefault(variable.check, f"{variable.name}: {variable.reason}")
    return found


@CHECKS.add_each("environment.{}", _fixed_reasons)
def fixed_variable(check: str, facts: Facts) -> CheckResult:
    """Check the value of a variable in each process."""
    recipe, entries = facts.optional_recipe, [one for one in variables() if one.check == check]
    name = entries[0].name
    if recipe is None:
        here = show_value(facts.environment.get(name))
        raise Unavailable(f"no recipe, so the processes are not known; here {name} is {here}")
    wanted = {role: v for role in ROLES for v in entries if v.applies(recipe, role, private_cluster=True)}
    if not wanted:
        raise Unavailable(f"no process of this recipe gets {name}")
    found = facts.read(read_variable, recipe, name)
    value = next(iter(wanted.values())).value
    expected = f"{value} in {', '.join(wanted)}"
    if not all(variable.accepted(found.processes[role]) for role, variable in wanted.items()):
        return CheckResult("fail", str(found), expected, found.fix)
    # The launcher sets it for its processes, so the value here affects only what is started by hand.
    return warn_unless(
        found.here is None or any(variable.accepted(found.here) for variable in wanted.values()),
        str(found),
        expected,
        f"export {name}={value}  (for what you start by hand: the launcher sets it itself)",
    )


@CHECKS.add("environment.preload")
def preload(facts: Facts) -> CheckResult:
    """LD_PRELOAD reaches every process. The memory saver of an NPU must not be preloaded, since only the
    trainer uses it, and for a missing file the loader prints an error in each process.
    """
    values = facts.read(read_variable, facts.optional_recipe, "LD_PRELOAD")
    texts = values.processes.values() or [values.here]
    entries = dict.fromkeys(entry for text in texts for entry in re.split(r"[ :]+", text or "") if entry)
    if facts.stack.stack.device == "npu" and any("torch_memory_saver" in entry for entry in entries):
        return CheckResult("fail", str(values), "no torch_memory_saver in it", values.fix)
    absent = facts.missing(entry for entry in entries if "/" in entry)
    found = str(values) + (f"; not there: {', '.join(absent)}" if absent else "")
    return warn_unless(not absent, found, "files that exist, none of the memory saver", values.fix)


@CHECKS.add("environment.cann-path", device="npu")
def cann_path(facts: Facts) -> CheckResult:
    """Ray's workers do not inherit a sourced set_env.sh and find CANN's own Python packages through
    PYTHONPATH only.
    """
    values = facts.read(read_variable, facts.recipe, "PYTHONPATH")
    home = facts.environment.get("ASCEND_TOOLKIT_HOME", CANN_HOME)
    if facts.missing([home]):
        raise Unavailable(f"no CANN at {home}")
    wanted = (f"{home}/python/site-packages", f"{home}/opp/built-in/op_impl/ai_core/tbe")
    paths = [set((values.processes[role] or "").split(os.pathsep)) for role in ROLES]
    if not all(set(wanted) <= own for own in paths):
        return CheckResult("fail", str(values), f"{', '.join(wanted)} on it", values.fix)
    absent = facts.missing(wanted)
    return result(
        not absent,
        f"absent: {', '.join(absent)}" if absent else str(values),
        f"CANN's packages below {home}",
        "source CANN's set_env.sh, which sets ASCEND_TOOLKIT_HOME, or install the toolkit again",
    )


@CHECKS.add("environment.python")
def python_variables(facts: Facts) -> CheckResult:
    """PYTHONHOME makes every interpreter use the library of another one; PYTHONOPTIMIZE removes the
    assertions with which vLLM and Megatron refuse unsupported settings.
    """
    wrong = {
        name: value for name in ("PYTHONHOME", "PYTHONOPTIMIZE") if (value := facts.environment.get(name))
    }
    found = ", ".join(f"{name}={value}" for name, value in wrong.items())
    bad: Status = "fail" if "PYTHONHOME" in wrong else "warn"
    return result(not wrong, found or "neither is set", "neither", f"unset {' '.join(wrong)}", bad)


@CHECKS.add("environment.visible-devices", device="npu")
def visible_device_list(facts: Facts) -> CheckResult:
    """CANN reads ASCEND_RT_VISIBLE_DEVICES up to the first device that does not exist or the first other
    character, blanks included, and supports ascending lists only; two ranks on one device wait for each other
    forever.
    """
    available, needed = len(facts.read(npu_devices.device_nodes)), needed_devices(facts)
    value = visible_devices(facts)
    expected = f"at least {needed} devices"
    if available:
        expected = f"at least {needed} of the {available} devices, ascending"
    if value is None:
        return result(available >= needed, f"not set: all {available} are seen", expected, "see device.count")
    wrong = _wrong_list(value, available, needed)
    numbers = {int(word) for word in re.findall(r"\d+", value)}
    fitting = sorted(number for number in numbers if not available or number < available)
    fix = f"unset {VISIBLE_DEVICES}"
    if len(fitting) >= needed:
        fix = f"export {VISIBLE_DEVICES}={','.join(map(str, fitting))}"
    return result(not wrong, (value or "empty") + (f": {wrong}" if wrong else ""), expected, fix)


def _wrong_list(value: str, available: int, needed: int) -> str:
    """Return what is wrong with a list of devices, or nothing."""
    if not re.fullmatch(r"\d+(,\d+)*", value):
        read = re.match(r"(\d+(,\d+)*)?", value)
        return f"not a list of numbers and commas; of it CANN reads {(read and read[0]) or 'nothing'}"
    numbers = [int(word) for word in value.split(",")]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        return f"{', '.join(map(str, twice))} more than once"
    if available and max(numbers) >= available:
        return f"{max(numbers)} is beyond the {available} devices 0 to {available - 1}"
    if numbers != sorted(numbers):
        return "not ascending"
    return f"{len(numbers)} devices" if len(numbers) < needed else ""


def _port_rules(stack: Stack) -> dict[str, str]:
    rule = (
        "ports or ranges from 1024 to 65535 that do not overlap, or auto; CANN needs one "
        "for each process on an NPU, and a colocated job has two, trainer and engine"
    )
    return {check: f"{variable}: {rule}" for check, variable in _PORTS.items()}


@CHECKS.add_each("environment.{}", _port_rules, device="npu")
def hccl_ports(check: str, facts: Facts) -> CheckResult:
    """Check one of the two port ranges of HCCL."""
    name = _PORTS[check]
    together = _PROCESSES_PER_DEVICE * facts.recipe.cluster.devices_per_node
    values = facts.read(read_variable, facts.recipe, name)
    expected = (
        f"{_PROCESSES_PER_DEVICE} free ports or more, better {together}, one for each process of the node"
    )
    text = values.processes["train"]
    default = f"export {name}=60000-60050"
    if text is None:
        return CheckResult("warn", str(values), expected, default)
    if text == "auto":
        return CheckResult("pass", str(values), expected)
    ports = parse_ports(text)
    fix = values.fix if values.in_recipe else default
    if ports is None or len(ports) != len(set(ports)) or ports[0] < 1024:
        return CheckResult("fail", str(values), "ports or ranges from 1024, none twice", fix)
    # The NPU ports belong to the NPU's own network interface: the tables of the host do not have them.
    taken = sorted(facts.read(read_ports, True) & set(ports)) if name == _HOST_PORTS else []
    free = len(ports) - len(taken)
    found = f"{values}; {free} of {len(ports)} " + ("free" if name == _HOST_PORTS else "ports")
    if taken:
        found += f", taken: {', '.join(map(str, taken[:5]))}" + (" ..." if len(taken) > 5 else "")
    if len(ports) >= together:
        fix = "end what listens there (ss -ltnp), or use other ports"
    return result(free >= together, found, expected, fix, "fail" if free < _PROCESSES_PER_DEVICE else "warn")


@CHECKS.add("environment.reserved-ports", device="npu")
def reserved_ports(facts: Facts) -> CheckResult:
    """The kernel gives ports of net.ipv4.ip_local_port_range to any program that connects; CANN asks to
    exclude HCCL's ports from it with net.ipv4.ip_local_reserved_ports.
    """
    values, kernel = facts.read(read_variable, facts.recipe, _HOST_PORTS), facts.read(read_ephemeral_ports)
    reserved = facts.search("/proc/sys/net/ipv4/ip_local_reserved_ports", r"(\S+)")
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


@CHECKS.add("environment.threads")
def threads(facts: Facts) -> CheckResult:
    """OMP_NUM_THREADS: more threads than cores slow all of them down."""
    values, cores = facts.read(read_variable, facts.recipe, _THREADS), facts.read(limits.read_cores)
    devices = facts.recipe.cluster.devices_per_node
    # Trainer and engine take turns, so each of them may use all cores.
    roles: tuple[Role, ...] = ("train", "rollout")
    counts = [values.processes[role] or "1" for role in roles]
    found = f"{values}; {devices} ranks of trainer or engine on {cores:g} cores"
    if not all(count.isdigit() and int(count) for count in counts):
        return CheckResult("fail", found, "a positive number", values.fix)
    most = max(map(int, counts))
    # With fewer cores than ranks, which host.cores reports, one thread each is the best possible.
    good = most == 1 or most * devices <= cores
    return warn_unless(good, found, f"{devices} ranks on {cores:g} cores at most", values.fix)


@CHECKS.add("environment.cores", device="cpu")
def core_binding(facts: Facts) -> CheckResult:
    """VLLM_CPU_OMP_THREADS_BIND: vLLM needs one list of cores for each tensor-parallel rank; with auto it
    needs a NUMA node for each and does not start without.
    """
    ranks, values = facts.recipe.rollout.tensor_parallel, facts.read(read_variable, facts.recipe, _CORES)
    value = values.processes["rollout"] or ""
    expected = f"{ranks} lists of allowed cores, separated by |, or nobind"
    if value == "nobind":
        return CheckResult("pass", str(values), expected)
    if value == "auto":
        names = facts.names("/sys/devices/system/node")
        nodes = sum(re.fullmatch(r"node\d+", name) is not None for name in names)
        return result(max(nodes, 1) >= ranks, f"{values}; NUMA nodes: {nodes}", expected, values.fix)
    try:
        named = [set(parse_cpu_list(group)) for group in value.split("|")]
    except ValueError:
        return CheckResult("fail", str(values), expected, values.fix)
    beyond = sorted(set[int]().union(*named) - set(facts.read(allowed_cores)))
    found = str(values) + (f"; not allowed here: {', '.join(map(str, beyond))}" if beyond else "")
    return result(len(named) == ranks and not beyond, found, expected, values.fix)
