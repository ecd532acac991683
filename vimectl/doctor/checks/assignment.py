"""environment: the devices and cores that the processes of the job are given."""

from __future__ import annotations

import re

from vime_runtime.spec.device_layout import VISIBLE_DEVICES
from vime_runtime.spec.process_roles import Role

from vimectl.doctor.check import CheckList, CheckResult, result, warn_unless
from vimectl.doctor.checks.npu import needed_devices, visible_devices
from vimectl.doctor.facts import Facts, limits
from vimectl.doctor.facts.environment import read_variable
from vimectl.recipes.environment import allowed_cores
from vimectl.util import npu_devices
from vimectl.util.cpu_list import parse_cpu_list

CHECKS = CheckList(running=True)

# The Ascend Docker Runtime reads the first when it creates a container; nothing for NPUs reads the second.
_WITHOUT_EFFECT = ("ASCEND_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_THREADS, _CORES = "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"


@CHECKS.add(
    "environment.visible-devices",
    device="npu",
    source="CANN 9.0 environment variables: ASCEND_RT_VISIBLE_DEVICES; ray-project/ray#59063; "
    "vllm-ascend#6063; Ascend Docker Runtime: ASCEND_VISIBLE_DEVICES",
    reads=(f"${VISIBLE_DEVICES}", *(f"${name}" for name in _WITHOUT_EFFECT), "/dev"),
)
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
        found = f"not set: all {available} are seen"
        if available >= needed and (ignored := _ignored(facts, available)):
            name, devices = ignored
            fix = (
                f"export {VISIBLE_DEVICES}={devices}" if devices.count(",") + 1 >= needed else f"unset {name}"
            )
            return CheckResult("warn", f"{found}; {name}={devices} has no effect", expected, fix)
        return result(available >= needed, found, expected, "see device.count")
    wrong = _wrong_list(value, available, needed)
    numbers = {int(word) for word in re.findall(r"\d+", value)}
    fitting = sorted(number for number in numbers if not available or number < available)
    fix = f"unset {VISIBLE_DEVICES}"
    if len(fitting) >= needed:
        fix = f"export {VISIBLE_DEVICES}={','.join(map(str, fitting))}"
    return result(not wrong, (value or "empty") + (f": {wrong}" if wrong else ""), expected, fix)


def _ignored(facts: Facts, available: int) -> tuple[str, str] | None:
    """Return a variable that is meant to select fewer devices than there are, and its value."""
    given = ((name, facts.environment.get(name, "")) for name in _WITHOUT_EFFECT)
    lists = ((name, text) for name, text in given if re.fullmatch(r"\d+(,\d+)*", text))
    return next((one for one in lists if one[1].count(",") + 1 < available), None)


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


@CHECKS.add(
    "environment.threads",
    source="vimectl/recipes/environment.toml: OMP_NUM_THREADS",
    reads=(f"${_THREADS}", "/proc/self/status", "/proc/self/cgroup", "/sys/fs/cgroup/*"),
)
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


@CHECKS.add(
    "environment.cores",
    device="cpu",
    source="vLLM 0.32.0: vllm/v1/worker/cpu_worker.py, VLLM_CPU_OMP_THREADS_BIND",
    reads=(f"${_CORES}", "/proc/self/status", "/sys/devices/system/node"),
)
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
