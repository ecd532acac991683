"""device: the chips by what npu-smi says of them: all there, of the right kind, well, and free."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vimectl.doctor import npu, npu_smi, visible
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped

# An idle chip of 64 GiB holds less, in MiB, in published listings of all three driver generations.
_IDLE_MIB = 4096

_Judge = Callable[[Subject, npu_smi.Listing], Outcome]


def checks() -> list[Check]:
    return [
        Check(
            "device.lost",
            "a chip that fell off the bus keeps its device node, and opening it fails",
            _listed(_lost),
        ),
        Check(
            "device.chip",
            "vllm-ascend and CANN's kernels are built for one kind of chip; the stacks are for A2 and A3",
            _listed(_chip),
        ),
        Check(
            "device.health",
            "a job ends with the first chip that fails; the driver says OK when well",
            _listed(_health),
        ),
        Check(
            "device.processes",
            "trainer and engine need the devices whole ([rollout] memory_utilisation is of all of it)",
            _listed(_processes),
        ),
        Check(
            "device.memory",
            "the engine takes [rollout] memory_utilisation of a device, and it must be free",
            _listed(_memory),
        ),
    ]


def _listed(judge: _Judge) -> npu.Examine:
    def examined(subject: Subject) -> Outcome:
        found = npu.listing(subject)
        if found is None:
            return skipped("npu-smi info does not answer (device.npu-smi)")
        if not found.chips:
            return skipped("npu-smi info names no chip (device.listing)")
        return judge(subject, found)

    return npu.on_npu(examined)


def _lost(subject: Subject, found: npu_smi.Listing) -> Outcome:
    there = len(npu.nodes(subject))
    return judged(
        len(found.chips) >= there,
        f"{there} device nodes, {len(found.chips)} chips in npu-smi info",
        "a chip for every device node",
        "look for it with `dmesg` and `npu-smi info -l` on the host; a reset or a reboot brings it back",
    )


def _chip(subject: Subject, found: npu_smi.Listing) -> Outcome:
    names = npu.kinds(found)
    kind = {kind or "another" for kind in names.values()}
    return judged(
        len(kind) == 1 and "another" not in kind,
        ", ".join(f"{name} ({kind or 'neither A2 nor A3'})" for name, kind in names.items()),
        "910B (A2) or 910C (A3), all alike",
        "use a machine with Atlas A2 or A3 devices",
    )


def _health(subject: Subject, found: npu_smi.Listing) -> Outcome:
    chips = npu.used(subject, found)
    ill = [chip for chip in chips if chip.health not in ("OK", "")]
    return judged(
        not ill,
        ", ".join(f"{chip.label} {chip.health}" for chip in ill) or f"{len(chips)} chips OK",
        "OK",
        _others(subject, found, [chip for chip in found.chips if chip.health != "OK"])
        + "see what it is: npu-smi info -t health -i ID -c CHIP",
    )


def _processes(subject: Subject, found: npu_smi.Listing) -> Outcome:
    chips = {(chip.card, chip.chip): chip for chip in npu.used(subject, found)}
    users = [user for user in found.users if (user.card, user.chip) in chips]
    held = [
        f"{chips[user.card, user.chip].label}: process {user.pid}"
        + (f" {user.name}" if user.name else "")
        + (f" with {user.memory} MiB" if user.memory is not None else "")
        for user in users
    ]
    more = f" and {len(held) - 4} more" if len(held) > 4 else ""
    elsewhere = len(found.users) - len(users)
    free = f"nobody uses the job's {len(chips)}" + (f"; {elsewhere} on the others" if elsewhere else "")
    everywhere = {(user.card, user.chip) for user in found.users}
    pids = ",".join(dict.fromkeys(str(user.pid) for user in users))
    return judged(
        not held,
        "; ".join(held[:4]) + more if held else free,
        "nobody else",
        _others(subject, found, [chip for chip in found.chips if (chip.card, chip.chip) in everywhere])
        + f"ask their owners to end them: ps -o user,etime,args -p {pids}  (on the host)",
    )


def _memory(subject: Subject, found: npu_smi.Listing) -> Outcome:
    share = subject.recipe.rollout.memory_utilisation if subject.recipe else None

    def is_full(chip: npu_smi.Chip) -> bool:
        if chip.used is None or not chip.total:
            return False
        # Without a recipe: more than an idle chip holds is somebody's.
        return chip.used > _IDLE_MIB if share is None else chip.total - chip.used < share * chip.total

    known = [chip for chip in npu.used(subject, found) if chip.used is not None and chip.total]
    if not known:
        return skipped("npu-smi info gives no memory (device.listing)")
    full = [f"{chip.label} {chip.used} of {chip.total} MiB used" for chip in known if is_full(chip)]
    most = max(known, key=lambda chip: chip.used or 0)
    return judged(
        not full,
        ", ".join(full) or f"at most {most.used} of {most.total} MiB used",
        f"at most {_IDLE_MIB} MiB used" if share is None else f"{share:g} of each free",
        _others(subject, found, filter(is_full, found.chips))
        + "end what holds it (device.processes); what nobody holds is freed by a reset of the chip",
    )


def _others(subject: Subject, found: npu_smi.Listing, bad: Iterable[npu_smi.Chip]) -> str:
    """How to leave these chips out, when enough are left."""
    out = set(bad)
    left = [n for n, chip in enumerate(found.chips) if chip not in out]
    needed = subject.recipe.cluster.devices_per_node if subject.recipe else 1
    if len(left) < needed:
        return ""
    return f"export {visible.NAME}={','.join(map(str, left[:needed]))}  to leave them out, or "
