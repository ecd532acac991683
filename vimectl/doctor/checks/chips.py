"""device: the chips that npu-smi lists are of one kind, healthy and free."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vime_runtime.spec.device_layout import VISIBLE_DEVICES

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.checks.npu import IDLE_MIB, needed_devices, visible_devices
from vimectl.doctor.facts import Facts, Unavailable, npu_smi
from vimectl.doctor.facts.npu_smi import Chip, ChipListing
from vimectl.util import npu_devices

CHECKS = CheckList(device="npu", running=True)

# The levels of the npu-smi reference; the others are Alarm, Critical and UNKNOWN.
_HEALTHY, _MINOR = ("OK", ""), ("OK", "", "Warning")
_LISTING = ("npu-smi info", "$ASCEND_RT_VISIBLE_DEVICES")
_REFERENCE = "npu-smi reference (hiascend.com, Atlas%20200I%20A2/2520/re/npu/npusmi_028.html)"


@CHECKS.add(
    "device.listing",
    source="published listings of drivers 23.0 to 26.0; no document has the layout",
    reads=("npu-smi info",),
)
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
    chips = _chips(facts).chips
    return [chips[position] for position in used_positions(facts, len(chips))]


def used_positions(facts: Facts, available: int) -> list[int]:
    """Return the positions of the job's devices among all devices of this machine."""
    positions, value = list(range(available)), visible_devices(facts)
    # environment.visible-devices reports a malformed list.
    if value and re.fullmatch(r"\d{1,6}(,\d{1,6})*", value):
        positions = [int(number) for number in value.split(",") if int(number) < available]
    return positions[: needed_devices(facts)] if facts.optional_recipe else positions


def _avoid(facts: Facts, bad: Iterable[Chip]) -> str:
    """Return a fix that makes other chips visible, or nothing if too few are left."""
    avoided = set(bad)
    left = [n for n, chip in enumerate(_chips(facts).chips) if chip not in avoided]
    needed = needed_devices(facts)
    if len(left) < needed:
        return ""
    return f"export {VISIBLE_DEVICES}={','.join(map(str, left[:needed]))}  to use other chips, or "


@CHECKS.add(
    "device.lost",
    source="a rule of vimectl: each device node has a chip in the listing",
    reads=("npu-smi info", "/dev"),
)
def lost(facts: Facts) -> CheckResult:
    """A chip that fell off the bus keeps its device node, and opening it fails."""
    nodes, chips = len(facts.read(npu_devices.device_nodes)), len(_chips(facts).chips)
    return result(
        chips >= nodes,
        f"{nodes} device nodes, {chips} chips in npu-smi info",
        "a chip for every device node",
        "find it with `dmesg` and `npu-smi info -l` on the host; a reset of the chip or a reboot restores it",
    )


@CHECKS.add(
    "device.chip",
    source="vllm-ascend 0.22.1rc1, vllm_ascend/utils.py:789-809; vllm-ascend#2725",
    reads=("npu-smi info",),
)
def chip_kind(facts: Facts) -> CheckResult:
    """vllm-ascend and CANN's kernels are built for one kind of chip; the stacks are for A2 and A3."""
    names = {chip.name: chip.kind for chip in _chips(facts).chips}
    return result(
        len(set(names.values())) == 1 and None not in names.values(),
        ", ".join(f"{name} ({kind or 'neither A2 nor A3'})" for name, kind in names.items()),
        "910B (A2) or 910C (A3), all of one kind",
        "use a machine with Atlas A2 or A3 devices",
    )


@CHECKS.add(
    "device.health",
    source=_REFERENCE,
    reads=(*_LISTING, "npu-smi info -t health -i *"),
    after=("device.npu-smi",),
)
def health(facts: Facts) -> CheckResult:
    """A job ends with the first chip that fails; the driver reports OK for a healthy chip. Warning is a minor
    alarm, with which a chip still works.
    """
    used, every = _used_chips(facts), _chips(facts).chips
    unhealthy = [chip for chip in used if chip.health not in _HEALTHY]
    others = [_health(chip) for chip in every if chip.health not in _HEALTHY and chip not in used]
    texts = [_health(chip) + _health_details(facts, chip) for chip in unhealthy]
    found = listed(texts) or f"{len(used)} chips OK"
    if others:
        found += f"; not used by the job: {listed(others)}"
    first = next(iter(unhealthy), None)
    card, number = (first.card, first.chip or 0) if first else (0, 0)
    return result(
        not unhealthy,
        found,
        "OK",
        _avoid(facts, [chip for chip in every if chip.health not in _HEALTHY])
        + f"read the cause: npu-smi info -t health -i {card} -c {number}",
        "warn" if all(chip.health in _MINOR for chip in unhealthy) else "fail",
    )


def _health(chip: Chip) -> str:
    return f"{chip.label} {chip.health}"


def _health_details(facts: Facts, chip: Chip) -> str:
    """Return the error codes of a chip, as npu-smi explains them."""
    details = facts.read(npu_smi.read_health, chip.card, chip.chip or 0)
    texts = [f"{name} {text}" for name, text in details.items() if name.startswith("Error")]
    return f" ({', '.join(texts)})" if texts else ""


@CHECKS.add(
    "device.processes",
    source="vllm-ascend#14628",
    reads=_LISTING,
)
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


@CHECKS.add(
    "device.memory",
    source="vllm-ascend 0.22.1rc1, vllm_ascend/worker/worker.py:407; vllm-ascend#14628",
    reads=_LISTING,
    after=("device.health", "device.processes"),
)
def memory(facts: Facts) -> CheckResult:
    """The engine takes [rollout] gpu_memory_utilization of a device, and that much must be free."""
    recipe = facts.optional_recipe
    share = recipe.rollout.gpu_memory_utilization if recipe else None

    def is_full(chip: Chip) -> bool:
        if chip.used is None or not chip.total:
            return False
        # Without a recipe, more than an idle chip uses belongs to another process.
        return chip.used > IDLE_MIB if share is None else chip.total - chip.used < share * chip.total

    used = _used_chips(facts)
    if without := [chip for chip in used if chip.total == 0]:
        return CheckResult(
            "fail",
            f"{listed([chip.label for chip in without])} without memory: npu-smi shows 0 / 0",
            "memory on each chip",
            _avoid(facts, [chip for chip in _chips(facts).chips if chip.total == 0])
            + f"read the cause: npu-smi info -t health -i {without[0].card} -c {without[0].chip or 0}",
        )
    known = [chip for chip in used if chip.used is not None and chip.total]
    if not known:
        raise Unavailable("npu-smi info has no memory (device.listing)")
    full = [f"{chip.label} {chip.used} of {chip.total} MiB used" for chip in known if is_full(chip)]
    most = max(known, key=lambda chip: chip.used or 0)
    return result(
        not full,
        ", ".join(full) or f"at most {most.used} of {most.total} MiB used",
        f"at most {IDLE_MIB} MiB used" if share is None else f"{share:g} of each free",
        _avoid(facts, filter(is_full, _chips(facts).chips))
        + "find the process that uses it (device.processes, or npu-smi info on the host of a container)",
    )
