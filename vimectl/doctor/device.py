"""device: the accelerators that the recipe computes on: there, allowed, well, and free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from vimectl.doctor import npu_smi, visible
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stack import Stack

_NODE = re.compile(r"davinci(\d+)$")
_MANAGERS = ("davinci_manager", "devmm_svm", "hisi_hdc")
_NO_NPU = "run this recipe on a machine with Ascend NPUs (in a container: mount /dev/davinci* into it)"
_LISTING_SECONDS = 10
# An idle chip of 64 GiB holds less, in MiB, in published listings of all three driver generations.
_IDLE_MIB = 4096

_Examine = Callable[[Subject], Outcome]
_Judge = Callable[[Subject, npu_smi.Listing], Outcome]


def checks(stack: Stack) -> list[Check]:
    return [
        Check("device.count", "every rank needs a device of its own ([cluster] devices_per_node)", _count),
        Check(
            "device.management",
            "without the driver's manager nodes no NPU can be opened",
            _on_npu(_management),
        ),
        Check(
            "device.permissions",
            "a process opens the devices for reading and writing; the driver gives them to one group",
            _on_npu(_permissions),
        ),
        Check("device.npu-smi", "the driver's own tool must reach the devices", _on_npu(_npu_smi)),
        Check(
            "device.listing",
            "health, memory and users are judged by what `npu-smi info` prints",
            _on_npu(_listing),
        ),
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
    ]  # fmt: skip


def absent(subject: Subject) -> str | None:
    """Why nothing else is worth examining: the stack computes on NPUs, and this machine has none."""
    if subject.stack.stack.device != "npu" or not subject.host.is_running or nodes(subject):
        return None
    return "this machine has no NPU (device.count)"


def nodes(subject: Subject) -> list[str]:
    """Return the device nodes of the NPUs, in the order of their numbers."""
    found = [path.name for path in subject.host.path("/dev").glob("davinci*") if _NODE.match(path.name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name.removeprefix("davinci")))]


def kinds(listing: npu_smi.Listing) -> dict[str, str | None]:
    """Return the kind (``A2``, ``A3``, None for others) of each chip name in a listing."""
    return {chip.name: _kind(chip.name) for chip in listing.chips}


def listing(subject: Subject) -> npu_smi.Listing | None:
    """Return what ``npu-smi info`` says, or None when it does not answer."""
    answer = subject.host.run(["npu-smi", "info"], _LISTING_SECONDS)
    return _parsed(answer.stdout) if answer.code == 0 else None


def used(subject: Subject, found: npu_smi.Listing) -> list[npu_smi.Chip]:
    """Return the chips that the job computes on: the first that it sees, one for each rank.

    Without a recipe, all that are seen. The numbers of ASCEND_RT_VISIBLE_DEVICES are places in the listing.
    """
    chips = list(found.chips)
    value = subject.host.environment.get(visible.NAME)
    if subject.recipe is not None:
        value = subject.recipe.env.get(visible.NAME, value)
    # One that is malformed is environment.visible-devices' to tell.
    if value and re.fullmatch(r"\d+(,\d+)*", value):
        chips = [chips[int(number)] for number in value.split(",") if int(number) < len(chips)]
    return chips[: subject.recipe.cluster.devices_per_node] if subject.recipe else chips


def _others(subject: Subject, found: npu_smi.Listing, bad: Iterable[npu_smi.Chip]) -> str:
    """How to leave these chips out, when enough are left."""
    out = set(bad)
    left = [n for n, chip in enumerate(found.chips) if chip not in out]
    needed = subject.recipe.cluster.devices_per_node if subject.recipe else 1
    if len(left) < needed:
        return ""
    return f"export {visible.NAME}={','.join(map(str, left[:needed]))}  to leave them out, or "


_parsed = lru_cache(maxsize=4)(npu_smi.parse)


def _kind(name: str) -> str | None:
    # 910B1 to 910B4 and their variants; A3 names a card Ascend910, or Ascend910_9382 and the like.
    if re.match(r"(Ascend)?910B[1-9]", name):
        return "A2"
    if re.fullmatch(r"Ascend910(_93\d+)?|910C|910_93\d+", name):
        return "A3"
    return None


def _on_npu(examine: _Examine) -> _Examine:
    def examined(subject: Subject) -> Outcome:
        if subject.stack.stack.device != "npu":
            return skipped(f"the stack computes on {subject.stack.stack.device}")
        if not subject.host.is_running:
            return skipped("a file system without /proc is no running machine")
        return examine(subject)

    return examined


def _listed(judge: _Judge) -> _Examine:
    def examined(subject: Subject) -> Outcome:
        found = listing(subject)
        if found is None:
            return skipped("npu-smi info does not answer (device.npu-smi)")
        if not found.chips:
            return skipped("npu-smi info names no chip (device.listing)")
        return judge(subject, found)

    return _on_npu(examined)


def _count(subject: Subject) -> Outcome:
    if subject.stack.stack.device == "cpu":
        return skipped("the stack computes on the CPU")
    if subject.stack.stack.device == "cuda":
        return skipped("CUDA devices are not examined")
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    found = len(nodes(subject))
    needed = subject.recipe.cluster.devices_per_node if subject.recipe else 1
    text = f"{found} device nodes /dev/davinci*"
    return judged(found >= needed, text if found else f"no NPU: {text}", f"{needed}", _NO_NPU)


def _management(subject: Subject) -> Outcome:
    lacking = [f"/dev/{name}" for name in _MANAGERS if not subject.host.path(f"/dev/{name}").exists()]
    return judged(
        not lacking,
        f"absent: {', '.join(lacking)}" if lacking else "all there",
        ", ".join(f"/dev/{name}" for name in _MANAGERS),
        "install the Ascend driver (in a container: mount these devices into it)",
    )


def _permissions(subject: Subject) -> Outcome:
    there = [f"/dev/{name}" for name in _MANAGERS if subject.host.path(f"/dev/{name}").exists()]
    answer = subject.host.run(["stat", "-L", "-c", "%a %u %g %G %n", *nodes(subject), *there], 5)
    user, groups = _identity(subject)
    if answer.code != 0 or user is None:
        return skipped("stat does not answer" if user is not None else "/proc/self/status has no Uid")
    closed = [
        fields
        for fields in (line.split() for line in answer.stdout.splitlines())
        if len(fields) == 5
        and user != 0
        and not _may_use(int(fields[0], 8), fields[1], fields[2], user, groups)
    ]
    names = ", ".join(f"{path} (mode {mode}, group {group})" for mode, _, _, group, path in closed[:3])
    more = f" and {len(closed) - 3} more" if len(closed) > 3 else ""
    owners = sorted({fields[3] for fields in closed})
    return judged(
        not closed,
        f"user {user} may not use {names}{more}" if closed else f"user {user} may use all of them",
        "read and write for this user",
        f"sudo usermod --append --groups {','.join(owners)} $USER, then log in again  "
        f"(a container: start it with --group-add of that group's number)",
    )


def _identity(subject: Subject) -> tuple[int | None, set[str]]:
    """The effective user of this process, and its groups, proc(5)."""
    status = subject.host.read("/proc/self/status") or ""
    fields = {
        name: values.split() for name, _, values in (line.partition(":") for line in status.splitlines())
    }
    users, groups = fields.get("Uid", []), fields.get("Gid", [])
    if len(users) < 2 or len(groups) < 2:
        return None, set()
    return int(users[1]), {groups[1], *fields.get("Groups", [])}


def _may_use(mode: int, owner: str, group: str, user: int, groups: Iterable[str]) -> bool:
    # The first class that holds decides, path_resolution(7).
    shift = 6 if int(owner) == user else 3 if group in groups else 0
    return (mode >> shift) & 0o6 == 0o6


def _npu_smi(subject: Subject) -> Outcome:
    answer = subject.host.run(["npu-smi", "info"], _LISTING_SECONDS)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return judged(
        answer.code == 0,
        f"exit status {answer.code}" + (f": {lines[0]}" if lines and answer.code else ""),
        "npu-smi info answers",
        "install the Ascend driver (in a container: mount npu-smi and /usr/local/Ascend/driver into it)",
    )


def _listing(subject: Subject) -> Outcome:
    found = listing(subject)
    if found is None:
        return skipped("npu-smi info does not answer (device.npu-smi)")
    text = f"npu-smi {found.version or 'of unknown version'}, {len(found.chips)} chips"
    more = f" and {len(found.unreadable) - 3} more" if len(found.unreadable) > 3 else ""
    return judged(
        not found.unreadable,
        text + (f"; not understood: {', '.join(found.unreadable[:3])}{more}" if found.unreadable else ""),
        "a chip's health and memory for each device",
        "look at `npu-smi info` yourself, and report its output: this vimectl does not read it",
        "warn",
    )


def _lost(subject: Subject, found: npu_smi.Listing) -> Outcome:
    there = len(nodes(subject))
    return judged(
        len(found.chips) >= there,
        f"{there} device nodes, {len(found.chips)} chips in npu-smi info",
        "a chip for every device node",
        "look for it with `dmesg` and `npu-smi info -l` on the host; a reset or a reboot brings it back",
    )


def _chip(subject: Subject, found: npu_smi.Listing) -> Outcome:
    names = kinds(found)
    kind = {kind or "another" for kind in names.values()}
    return judged(
        len(kind) == 1 and "another" not in kind,
        ", ".join(f"{name} ({kind or 'neither A2 nor A3'})" for name, kind in names.items()),
        "910B (A2) or 910C (A3), all alike",
        "use a machine with Atlas A2 or A3 devices",
    )


def _health(subject: Subject, found: npu_smi.Listing) -> Outcome:
    chips = used(subject, found)
    ill = [chip for chip in chips if chip.health not in ("OK", "")]
    return judged(
        not ill,
        ", ".join(f"{chip.label} {chip.health}" for chip in ill) or f"{len(chips)} chips OK",
        "OK",
        _others(subject, found, [chip for chip in found.chips if chip.health != "OK"])
        + "see what it is: npu-smi info -t health -i ID -c CHIP",
    )


def _processes(subject: Subject, found: npu_smi.Listing) -> Outcome:
    chips = {(chip.card, chip.chip): chip for chip in used(subject, found)}
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

    known = [chip for chip in used(subject, found) if chip.used is not None and chip.total]
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
