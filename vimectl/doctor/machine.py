"""host: the machine itself: system, cores, memory, shared memory, disk, limits."""

from __future__ import annotations

from vimectl.doctor import limits
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.stack import Stack

# Ray warns below 4096 open files and recommends this (ray/_private/worker.py); the soft one it raises.
_OPEN_FILES = 8192


def checks(stack: Stack) -> list[Check]:
    return [
        Check("host.system", "the stack's packages are built for these systems", _system),
        Check(
            "host.memory",
            "trainer, engine and what is paused must fit ([memory] host_bytes)",
            _memory,
        ),
        Check("host.shm", "weights and Ray's objects pass through /dev/shm ([memory] shm_bytes)", _shm),
        Check(
            "host.disk", "on the CPU the paused trainer's bytes wait in a file ([memory] arena_dir)", _disk
        ),
        Check("host.cores", "a rank without a core of its own waits for its partner at every step", _cores),
        Check("host.open-files", f"Ray recommends {_OPEN_FILES} open files", _open_files),
    ]


def _system(subject: Subject) -> Outcome:
    answer = subject.host.run(["uname", "-sm"], 5)
    if answer.code != 0:
        return skipped(f"uname could not be asked: {answer.stderr.strip() or answer.code}")
    system, _, machine = answer.stdout.strip().partition(" ")
    wanted = subject.stack.stack.machines
    return judged(
        system == "Linux" and machine in wanted,
        f"{system} {machine}",
        f"Linux {' or '.join(wanted)}",
        "use a machine of that kind",
    )


def _memory(subject: Subject) -> Outcome:
    found = limits.memory(subject.host)
    if found is None:
        return skipped("/proc/meminfo has no MemAvailable")
    text = f"{size(found.available)} available, bounded by {found.bound}"
    if subject.recipe is None:
        return skipped(f"{text}; no recipe to compare with")
    needed = subject.recipe.memory.host_bytes
    return judged(
        found.available >= needed, text, size(needed), "end what uses the memory, or use a larger machine"
    )


def _shm(subject: Subject) -> Outcome:
    found = limits.space(subject.host, "/dev/shm")
    if found is None:
        return skipped("df gives no size of /dev/shm")
    text = f"{size(found.free)} free of {size(found.size)}"
    if subject.recipe is None:
        return skipped(f"{text}; no recipe to compare with")
    needed = subject.recipe.memory.shm_bytes
    fix = "remove what fills /dev/shm"
    if found.size < needed:
        enlarged = -(-(found.size - found.free + needed) // 1024**2)  # rounded up
        fix = (
            f"mount -o remount,size={enlarged}m /dev/shm  (a container: start it with --shm-size={enlarged}m)"
        )
    return judged(found.free >= needed, text, f"{size(needed)} free", fix)


def _disk(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe to compare with")
    if recipe.cluster.device != "cpu":
        return skipped(f"a paused trainer on {recipe.cluster.device} waits in memory, not on disk")
    place = recipe.memory.arena_dir or "."
    found = limits.space(subject.host, place)
    if found is None:
        return skipped(f"df gives no size of {place}")
    # The arena holds part of what the recipe takes of memory, so this is enough in any case.
    return judged(
        found.free >= recipe.memory.host_bytes,
        f"{size(found.free)} free at {place}",
        f"{size(recipe.memory.host_bytes)} free",
        "make room there, or set memory.arena_dir to a larger disk",
        bad="warn",
    )


def _cores(subject: Subject) -> Outcome:
    found = limits.cores(subject.host)
    if found is None:
        return skipped("/proc/self/status has no Cpus_allowed_list")
    if subject.recipe is None:
        return skipped(f"{found:g} cores; no recipe to compare with")
    needed = subject.recipe.cluster.devices_per_node
    return judged(
        found >= needed,
        f"{found:g} cores",
        f"{needed}, one for each rank",
        "use more cores, or expect it slow",
        "warn",
    )


def _open_files(subject: Subject) -> Outcome:
    found = limits.open_files(subject.host)
    if found is None:
        return skipped("/proc/self/limits has no finite hard limit")
    return judged(
        found >= _OPEN_FILES,
        f"hard limit {found}",
        f"{_OPEN_FILES}",
        f"ulimit -Hn {_OPEN_FILES}, as root",
        "warn",
    )
