"""device: the accelerators that the recipe computes on: there, reachable, and allowed to this user."""

from __future__ import annotations

from collections.abc import Iterable

from vimectl.doctor import chips, npu
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.schema import Stack
from vimectl.util import npu_devices

_NO_NPU = "run this recipe on a machine with Ascend NPUs (in a container: mount /dev/davinci* into it)"


def checks(stack: Stack) -> list[Check]:
    return [
        Check("device.count", "every rank needs a device of its own ([cluster] devices_per_node)", _count),
        Check(
            "device.management",
            "without the driver's manager nodes no NPU can be opened",
            npu.on_npu(_management),
        ),
        Check(
            "device.permissions",
            "a process opens the devices for reading and writing; the driver gives them to one group",
            npu.on_npu(_permissions),
        ),
        Check("device.npu-smi", "the driver's own tool must reach the devices", npu.on_npu(_npu_smi)),
        Check(
            "device.listing",
            "health, memory and users are judged by what `npu-smi info` prints",
            npu.on_npu(_listing),
        ),
        *chips.checks(),
    ]  # fmt: skip


def _count(subject: Subject) -> Outcome:
    if subject.stack.stack.device == "cpu":
        return skipped("the stack computes on the CPU")
    if subject.stack.stack.device == "cuda":
        return skipped("CUDA devices are not examined")
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    found = len(npu.nodes(subject))
    needed = subject.recipe.cluster.devices_per_node if subject.recipe else 1
    text = f"{found} device nodes /dev/davinci*"
    return judged(found >= needed, text if found else f"no NPU: {text}", f"{needed}", _NO_NPU)


def _management(subject: Subject) -> Outcome:
    needed = npu_devices.manager_nodes()
    lacking = [path for path in needed if not subject.host.path(path).exists()]
    return judged(
        not lacking,
        f"absent: {', '.join(lacking)}" if lacking else "all there",
        ", ".join(needed),
        "install the Ascend driver (in a container: mount these devices into it)",
    )


def _permissions(subject: Subject) -> Outcome:
    there = [path for path in npu_devices.manager_nodes() if subject.host.path(path).exists()]
    answer = subject.host.run(["stat", "-L", "-c", "%a %u %g %G %n", *npu.nodes(subject), *there], 5)
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
    answer = subject.host.run(["npu-smi", "info"], npu.LISTING_SECONDS)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return judged(
        answer.code == 0,
        f"exit status {answer.code}" + (f": {lines[0]}" if lines and answer.code else ""),
        "npu-smi info answers",
        "install the Ascend driver (in a container: mount npu-smi and /usr/local/Ascend/driver into it)",
    )


def _listing(subject: Subject) -> Outcome:
    found = npu.listing(subject)
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
