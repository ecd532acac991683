"""device: the NPUs are there, and this process may use them."""

from __future__ import annotations

from collections.abc import Sequence

from vime_runtime.spec.device_layout import VISIBLE_DEVICES

from vimectl.doctor.check import CheckList, CheckResult, listed, result
from vimectl.doctor.facts import Facts, driver, error_codes, npu_smi
from vimectl.util import npu_devices
from vimectl.util.host import UNKNOWN_PROGRAM, CommandResult

CHECKS = CheckList(device="npu", running=True)

# Idle chips of 64 GiB use less, in MiB, in published listings of all three driver generations.
IDLE_MIB = 4096
# More than npu-smi prints when it fails.
_MAX_LINES = 12
_OCCUPIED = -8020
_SMI_MOUNTS = ("/usr/local/bin/npu-smi", "/usr/local/dcmi")


def needed_devices(facts: Facts) -> int:
    """Return how many devices of this machine the job uses."""
    return facts.optional_recipe.cluster.devices_per_node if facts.optional_recipe else 1


def visible_devices(facts: Facts) -> str | None:
    """Return the value of ASCEND_RT_VISIBLE_DEVICES that the job gets; None: not set."""
    value = facts.environment.get(VISIBLE_DEVICES)
    return facts.optional_recipe.env.get(VISIBLE_DEVICES, value) if facts.optional_recipe else value


def _give(facts: Facts, paths: Sequence[str]) -> str:
    """Return how to give a container device nodes, and the permission to open them."""
    if facts.read(driver.read_container) == "kubernetes":
        return f"let the Ascend device plugin give the pod {', '.join(paths)}: request NPUs as its resources"
    return f"start the container with {' '.join(f'--device {path}' for path in paths)}"


def _every_node(facts: Facts) -> list[str]:
    """Return the nodes for the job: those of the NPUs here, or of as many as it needs, and the driver's."""
    expected = [f"/dev/davinci{number}" for number in range(needed_devices(facts))]
    return [*(facts.read(npu_devices.device_nodes) or expected), *npu_devices.MANAGER_NODES]


@CHECKS.add(
    "device.count",
    source="vllm-ascend 0.22.1rc1, installation guide, `docker run`; gpustack#1432",
    reads=("/dev", *driver.CONTAINER_READS),
)
def count(facts: Facts) -> CheckResult:
    """Every rank needs its own device ([cluster] devices_per_node)."""
    found, needed = len(facts.read(npu_devices.device_nodes)), needed_devices(facts)
    fix = f"run it on a machine with {needed} NPUs, or with a recipe for {found} (cluster.devices_per_node)"
    if not found:
        fix = "run it on a machine with Ascend NPUs and their driver"
    if facts.read(driver.read_container) is not None:
        expected = [f"/dev/davinci{number}" for number in range(needed)]
        host = "" if found else "on a host with Ascend NPUs, "
        give = _give(facts, [*expected, *npu_devices.MANAGER_NODES])
        fix = f"{host}{give}, or use the Ascend Docker Runtime"
    return result(
        found >= needed,
        f"{'' if found else 'no NPU: '}{found} device nodes /dev/davinci*",
        f"{needed}",
        fix,
    )


@CHECKS.add(
    "device.management",
    source="vllm-ascend 0.22.1rc1, installation guide, `docker run`; vllm-ascend#1440",
    reads=(*npu_devices.MANAGER_NODES, *driver.CONTAINER_READS),
)
def management(facts: Facts) -> CheckResult:
    """Without the manager nodes of the driver no NPU can be opened."""
    absent = facts.missing(npu_devices.MANAGER_NODES)
    fix = "install the Ascend driver on this host"
    if facts.read(driver.read_container) is not None:
        fix = _give(facts, absent)
    return result(
        not absent,
        f"absent: {', '.join(absent)}" if absent else "all there",
        ", ".join(npu_devices.MANAGER_NODES),
        fix,
    )


@CHECKS.add(
    "device.permissions",
    source="path_resolution(7), capabilities(7); Linux: cgroup-v1/devices.rst; ascend-device-plugin#139",
    reads=("/dev", "/dev/*", "stat *", "/proc/self/status", driver.DEVICE_RULES, *driver.CONTAINER_READS),
)
def permissions(facts: Facts) -> CheckResult:
    """A process opens the devices for reading and writing; the driver gives them to one group. In a container
    the device cgroup must allow it too, which --device does and a mount of /dev does not.
    """
    if forbidden := facts.read(driver.read_forbidden_devices):
        return CheckResult(
            "fail",
            f"the device cgroup of this container forbids {listed(forbidden)}",
            "rules that allow to read and write the devices",
            _give(facts, _every_node(facts)),
        )
    nodes, (user, groups) = facts.read(driver.read_device_nodes), facts.read(driver.read_identity)
    closed = [node for node in nodes if not node.allows(user, groups)]
    if facts.read(driver.ignores_modes):
        closed = []
    names = listed([f"{node.path} (mode {node.mode:o}, group {node.group_name})" for node in closed], 3)
    needed = ",".join(sorted({node.group_name for node in closed}))
    numbers = " ".join(f"--group-add {number}" for number in sorted({node.group for node in closed}))
    fix = f"sudo usermod --append --groups {needed} $USER, then log in again"
    if facts.read(driver.read_container) is not None:
        fix = f"start the container with {numbers}"
        if user == 0:
            fix += ", or with --cap-add DAC_OVERRIDE: root has no capability to use files of others"
    return result(
        not closed,
        f"user {user} may not use {names}" if closed else f"user {user} may use all",
        "read and write for this user",
        fix,
    )


@CHECKS.add(
    "device.npu-smi",
    source="error_codes.toml, each code with its source; ascend-device-plugin#23, vllm-ascend#2698",
    reads=("npu-smi info", "/dev", *driver.CONTAINER_READS),
    after=("driver.mounts", "device.management", "device.permissions", "driver.libraries", "driver.version"),
)
def npu_smi_answers(facts: Facts) -> CheckResult:
    """The driver's own tool must reach the devices."""
    answer = facts.read(npu_smi.read_npu_smi)
    if answer.code == 0:
        return CheckResult("pass", "exit status 0", "npu-smi info answers")
    lines = [line.strip() for line in (answer.stdout + "\n" + answer.stderr).splitlines() if line.strip()]
    found = f"exit status {answer.code}: {listed(lines, _MAX_LINES, '; ') or 'no output'}"
    meaning = ". ".join(error_codes.explain(answer))
    return CheckResult(
        "fail",
        f"{found}. {meaning}" if meaning else found,
        "npu-smi info answers",
        _npu_smi_fix(facts, answer),
    )


def _npu_smi_fix(facts: Facts, answer: CommandResult) -> str:
    container = facts.read(driver.read_container)
    if answer.code == UNKNOWN_PROGRAM and container is not None:
        return f"start the container with {' '.join(f'--volume {path}:{path}' for path in _SMI_MOUNTS)}"
    if container is None:
        return "read `dmesg` on this host; install the Ascend driver and firmware again, or reboot"
    if error_codes.dcmi_code(answer) == _OCCUPIED:
        return "use devices that no other container has: `docker ps` on the host lists the containers"
    # The nodes are there. Without a device cgroup rule opening them fails with EPERM, for root too.
    return (
        f"{_give(facts, _every_node(facts))} (nodes from a mount of /dev or of mknod cannot "
        "be opened). If it was started so, another container has one of the devices: use others. "
        "--privileged would open every device of the host, not only the NPUs"
    )
