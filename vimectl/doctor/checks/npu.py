"""device and driver: the NPUs are there, healthy and free, and their driver fits CANN and the firmware."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vime_runtime.spec.device_layout import VISIBLE_DEVICES

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable, cann, driver, npu_smi
from vimectl.doctor.facts.npu_smi import Chip, ChipListing
from vimectl.util import npu_devices

CHECKS = CheckList(device="npu", running=True)

# Idle chips of 64 GiB use less, in MiB, in published listings of all three driver generations.
IDLE_MIB = 4096


def needed_devices(facts: Facts) -> int:
    """Return how many devices of this machine the job uses."""
    return facts.optional_recipe.cluster.devices_per_node if facts.optional_recipe else 1


def visible_devices(facts: Facts) -> str | None:
    """Return the value of ASCEND_RT_VISIBLE_DEVICES that the job gets; None: not set."""
    value = facts.environment.get(VISIBLE_DEVICES)
    return facts.optional_recipe.env.get(VISIBLE_DEVICES, value) if facts.optional_recipe else value


@CHECKS.add("device.count")
def count(facts: Facts) -> CheckResult:
    """Every rank needs its own device ([cluster] devices_per_node)."""
    found, needed = len(facts.read(npu_devices.device_nodes)), needed_devices(facts)
    return result(
        found >= needed,
        f"{'' if found else 'no NPU: '}{found} device nodes /dev/davinci*",
        f"{needed}",
        "run this recipe on a machine with Ascend NPUs (in a container: mount /dev/davinci* into it)",
    )


@CHECKS.add("device.management")
def management(facts: Facts) -> CheckResult:
    """Without the manager nodes of the driver no NPU can be opened."""
    absent = facts.missing(npu_devices.MANAGER_NODES)
    return result(
        not absent,
        f"absent: {', '.join(absent)}" if absent else "all there",
        ", ".join(npu_devices.MANAGER_NODES),
        "install the Ascend driver (in a container: mount these devices into it)",
    )


@CHECKS.add("device.permissions")
def permissions(facts: Facts) -> CheckResult:
    """A process opens the devices for reading and writing; the driver gives them to one group."""
    nodes, (user, groups) = facts.read(driver.read_device_nodes), facts.read(driver.read_identity)
    closed = [node for node in nodes if not node.allows(user, groups)]
    names = listed([f"{node.path} (mode {node.mode:o}, group {node.group_name})" for node in closed], 3)
    needed = ",".join(sorted({node.group_name for node in closed}))
    return result(
        not closed,
        f"user {user} may not use {names}" if closed else f"user {user} may use all",
        "read and write for this user",
        f"sudo usermod --append --groups {needed} $USER, then log in again  "
        "(a container: start it with --group-add of that group's number)",
    )


@CHECKS.add("device.npu-smi")
def npu_smi_answers(facts: Facts) -> CheckResult:
    """The driver's own tool must reach the devices."""
    answer = facts.read(npu_smi.read_npu_smi)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return result(
        answer.code == 0,
        f"exit status {answer.code}" + (f": {lines[0]}" if answer.code and lines else ""),
        "npu-smi info answers",
        "install the Ascend driver (in a container: mount npu-smi and /usr/local/Ascend/driver into it)",
    )


@CHECKS.add("device.listing")
def listing(facts: Facts) -> CheckResult:
    """Health, memory and processes of the chips are read from `npu-smi info`."""
    found = facts.read(npu_smi.read_listing)
    return warn_unless(
        not found.unreadable,
        f"npu-smi {found.version or 'of unknown version'}, {len(found.chips)} chips"
        + (f"; not understood: {listed(found.unreadable, 3)}" if found.unreadable else ""),
        "health and memory of each chip",
        "look at the output of npu-smi info, and report it: this vimectl cannot read it",
    )


def _chips(facts: Facts) -> ChipListing:
    found = facts.read(npu_smi.read_listing)
    if not found.chips:
        raise Unavailable("npu-smi info lists no chip (device.listing)")
    return found


def _used_chips(facts: Facts) -> list[Chip]:
    """Return the chips of the job: the first visible ones, one a rank; without a recipe, all visible ones.

    The numbers in ASCEND_RT_VISIBLE_DEVICES are positions in the listing.
    """
    chips = list(_chips(facts).chips)
    value = visible_devices(facts)
    # environment.visible-devices reports a malformed list.
    if value and re.fullmatch(r"\d+(,\d+)*", value):
        chips = [chips[int(number)] for number in value.split(",") if int(number) < len(chips)]
    return chips[: needed_devices(facts)] if facts.optional_recipe else chips


def _avoid(facts: Facts, bad: Iterable[Chip]) -> str:
    """Return a fix that makes other chips visible, or nothing if too few are left."""
    avoided = set(bad)
    left = [n for n, chip in enumerate(_chips(facts).chips) if chip not in avoided]
    needed = needed_devices(facts)
    if len(left) < needed:
        return ""
    return f"export {VISIBLE_DEVICES}={','.join(map(str, left[:needed]))}  to use other chips, or "


@CHECKS.add("device.lost")
def lost(facts: Facts) -> CheckResult:
    """A chip that fell off the bus keeps its device node, and opening it fails."""
    nodes, chips = len(facts.read(npu_devices.device_nodes)), len(_chips(facts).chips)
    return result(
        chips >= nodes,
        f"{nodes} device nodes, {chips} chips in npu-smi info",
        "a chip for every device node",
        "find it with `dmesg` and `npu-smi info -l` on the host; a reset of the chip or a reboot restores it",
    )


@CHECKS.add("device.chip")
def chip_kind(facts: Facts) -> CheckResult:
    """vllm-ascend and CANN's kernels are built for one kind of chip; the stacks are for A2 and A3."""
    names = {chip.name: chip.kind for chip in _chips(facts).chips}
    return result(
        len(set(names.values())) == 1 and None not in names.values(),
        ", ".join(f"{name} ({kind or 'neither A2 nor A3'})" for name, kind in names.items()),
        "910B (A2) or 910C (A3), all of one kind",
        "use a machine with Atlas A2 or A3 devices",
    )


@CHECKS.add("device.health")
def health(facts: Facts) -> CheckResult:
    """A job ends with the first chip that fails; the driver reports OK for a healthy chip."""
    chips = _used_chips(facts)
    unhealthy = [chip for chip in chips if chip.health not in ("OK", "")]
    return result(
        not unhealthy,
        ", ".join(f"{chip.label} {chip.health}" for chip in unhealthy) or f"{len(chips)} chips OK",
        "OK",
        _avoid(facts, [chip for chip in _chips(facts).chips if chip.health != "OK"])
        + "read the cause: npu-smi info -t health -i ID -c CHIP",
    )


@CHECKS.add("device.processes")
def processes(facts: Facts) -> CheckResult:
    """Trainer and engine need whole devices ([rollout] gpu_memory_utilization is relative to all memory)."""
    found, chips = _chips(facts), {(chip.card, chip.chip): chip for chip in _used_chips(facts)}
    users = [user for user in found.processes if (user.card, user.chip) in chips]
    texts = [
        f"{chips[user.card, user.chip].label}: process {user.pid}"
        + (f" {user.name}" if user.name else "")
        + (f" with {user.memory} MiB" if user.memory is not None else "")
        for user in users
    ]
    other = len(found.processes) - len(users)
    free = f"no process on the job's {len(chips)}" + (f"; {other} on other chips" if other else "")
    busy = {(user.card, user.chip) for user in found.processes}
    pids = ",".join(dict.fromkeys(str(user.pid) for user in users))
    return result(
        not texts,
        listed(texts, separator="; ") if texts else free,
        "no other process",
        _avoid(facts, [chip for chip in found.chips if (chip.card, chip.chip) in busy])
        + f"ask their owners to end them: ps -o user,etime,args -p {pids}  (on the host)",
    )


@CHECKS.add("device.memory")
def memory(facts: Facts) -> CheckResult:
    """The engine takes [rollout] gpu_memory_utilization of a device, and that much must be free."""
    recipe = facts.optional_recipe
    share = recipe.rollout.gpu_memory_utilization if recipe else None

    def is_full(chip: Chip) -> bool:
        if chip.used is None or not chip.total:
            return False
        # Without a recipe, more than an idle chip uses belongs to another process.
        return chip.used > IDLE_MIB if share is None else chip.total - chip.used < share * chip.total

    known = [chip for chip in _used_chips(facts) if chip.used is not None and chip.total]
    if not known:
        raise Unavailable("npu-smi info has no memory (device.listing)")
    full = [f"{chip.label} {chip.used} of {chip.total} MiB used" for chip in known if is_full(chip)]
    most = max(known, key=lambda chip: chip.used or 0)
    return result(
        not full,
        ", ".join(full) or f"at most {most.used} of {most.total} MiB used",
        f"at most {IDLE_MIB} MiB used" if share is None else f"{share:g} of each free",
        _avoid(facts, filter(is_full, _chips(facts).chips))
        + "end the process that uses it (device.processes); if there is none, reset the chip",
    )


@CHECKS.add("driver.version")
def driver_version(facts: Facts) -> CheckResult:
    """Every process on an NPU loads libraries of the driver."""
    version = facts.read(driver.read_version)
    return result(
        bool(version),
        f"{driver.INFO}: {version}" if version else f"no version in {driver.INFO}",
        "a release of the Ascend driver",
        "install the Ascend driver (in a container: mount its version.info and lib64 into it)",
    )


@CHECKS.add("driver.loaded")
def driver_loaded(facts: Facts) -> CheckResult:
    """After an upgrade without a reboot, the libraries talk to a driver of another release."""
    installed, loaded = facts.read(driver.read_version), facts.read(npu_smi.read_listing).version
    if not installed or loaded is None:
        raise Unavailable("npu-smi info or the driver's version.info has no version")
    return warn_unless(
        loaded.casefold() == installed.casefold(),
        f"npu-smi {loaded}, installed {installed}",
        "the same release",
        "reboot the host (in a container: mount npu-smi and the driver of the same host)",
    )


@CHECKS.add("driver.firmware")
def firmware(facts: Facts) -> CheckResult:
    """Driver and firmware each list which releases of the other they support (compatible_version_*)."""
    version = facts.read(driver.read_fields, driver.FIRMWARE_INFO)["Version"]
    if not version:
        raise Unavailable(f"no {driver.FIRMWARE_INFO} here; the host has it")
    supported = facts.read(driver.read_fields, driver.INFO)["compatible_version_fw"]
    if not supported:
        raise Unavailable(f"{driver.INFO} does not list the firmware that it supports")
    return result(
        driver.accepts(supported, driver.parse_release(version)[:3], driver.parse_release),
        f"firmware {version}",
        f"one of {supported}",
        "install driver and firmware of one release together, on the host, and reboot it",
    )


@CHECKS.add("driver.cann")
def driver_cann(facts: Facts) -> CheckResult:
    """Toolkit and driver each list which branches of the other they support (compatible_version)."""
    driver_info = facts.read(driver.read_fields, driver.INFO)
    cann_info = facts.read(cann.read_install_info, facts.read(cann.read_home))
    branch, cann_branch = driver_info["Innerversion"], cann_info["innerversion"]
    cann_supported, driver_supported = driver_info["compatible_version"], cann_info["compatible_version"]
    own, other = driver.parse_branch(branch), driver.parse_branch(cann_branch)
    if not (own and other and cann_supported and driver_supported):
        raise Unavailable("driver or toolkit does not say which branch it is and which branches it supports")
    version = cann_info["version"]
    return result(
        own == other
        or driver.accepts(cann_supported, other, driver.parse_branch)
        or driver.accepts(driver_supported, own, driver.parse_branch),
        f"driver {facts.read(driver.read_version)} ({branch}), CANN {version} ({cann_branch})",
        f"a driver of {driver_supported}, or CANN of {cann_supported}",
        f"upgrade the driver on the host to the release that CANN {version} asks for",
    )


@CHECKS.add("driver.mounts")
def mounts(facts: Facts) -> CheckResult:
    """A container has no driver: what it needs of the host's driver is mounted into it."""
    engine = facts.read(driver.read_container)
    if engine is None:
        raise Unavailable("this is not a container")
    needed = [mount.path for mount in npu_devices.MOUNTS if mount.needed]
    absent = facts.missing(needed)
    return result(
        not absent,
        f"{engine} container without {', '.join(absent)}" if absent else f"{engine} container, all mounted",
        ", ".join(needed),
        f"start the container with {' '.join(f'--volume {path}:{path}' for path in absent)}",
    )
