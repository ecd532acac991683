"""host: the machine itself, and what of it this process may use: memory, cores, limits."""

from __future__ import annotations

from vimectl.doctor import disks, limits, system
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.stacks.schema import Stack

# Ray warns below 4096 open files and recommends this (ray/_private/worker.py); the soft one it raises.
_OPEN_FILES = 8192
_SWAPPED = 1024**3
_RESERVED_SHARE = 0.1
# podman allows a container 2048 tasks, which Ray's and PyTorch's threads exceed on a machine with many cores.
_TASKS = 4096


def checks(stack: Stack) -> list[Check]:
    return [
        *system.checks(),
        Check(
            "host.memory",
            "trainer, engine and what is paused must fit ([memory] host_bytes)",
            _memory,
        ),
        Check("host.swap", "a paused trainer that was swapped out comes back at the disk's speed", _swap),
        Check("host.hugepages", "memory that is reserved as huge pages is nobody else's", _hugepages),
        Check(
            "host.overcommit",
            "with vm.overcommit_memory = 2 address space that is only reserved counts as used, proc(5)",
            _overcommit,
        ),
        Check("host.shm", "weights and Ray's objects pass through /dev/shm ([memory] shm_bytes)", _shm),
        *disks.checks(),
        Check("host.cores", "a rank without a core of its own waits for its partner at every step", _cores),
        Check("host.open-files", f"Ray recommends {_OPEN_FILES} open files", _open_files),
        Check(
            "host.locked-memory",
            "buffers that a device or RDMA reads must be locked in memory, setrlimit(2)",
            _locked,
        ),
        Check("host.tasks", f"Ray's and PyTorch's threads are thousands on many cores ({_TASKS})", _tasks),
    ]


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


def _swap(subject: Subject) -> Outcome:
    found = limits.meminfo(subject.host)
    if "SwapTotal" not in found or "SwapFree" not in found:
        return skipped("/proc/meminfo has no SwapTotal")
    used = found["SwapTotal"] - found["SwapFree"]
    return judged(
        used <= _SWAPPED,
        f"{size(used)} of {size(found['SwapTotal'])} in use" if found["SwapTotal"] else "no swap",
        f"at most {size(_SWAPPED)} in use",
        "end what fills the memory, then swapoff -a && swapon -a, as root",
        "warn",
    )


def _hugepages(subject: Subject) -> Outcome:
    found = limits.meminfo(subject.host)
    if "HugePages_Free" not in found or "Hugepagesize" not in found or not found.get("MemTotal"):
        return skipped("/proc/meminfo has no HugePages_Free")
    reserved = found["HugePages_Free"] * found["Hugepagesize"]
    return judged(
        reserved <= _RESERVED_SHARE * found["MemTotal"],
        f"{size(reserved)} reserved and unused, of {size(found['MemTotal'])}",
        f"at most {_RESERVED_SHARE:.0%}",
        "sysctl vm.nr_hugepages=0, as root",
        "warn",
    )


def _overcommit(subject: Subject) -> Outcome:
    mode = (subject.host.read("/proc/sys/vm/overcommit_memory") or "").strip()
    if not mode:
        return skipped("/proc/sys/vm/overcommit_memory cannot be read")
    return judged(
        mode != "2",
        f"vm.overcommit_memory = {mode}",
        "0 or 1",
        "sysctl vm.overcommit_memory=0, as root",
        "warn",
    )


def _locked(subject: Subject) -> Outcome:
    if subject.stack.stack.device == "cpu":
        return skipped("nothing is locked on the CPU")
    found = limits.limit(subject.host, "Max locked memory")
    if found is None:
        return skipped("/proc/self/limits has no Max locked memory")
    return judged(
        found == "unlimited",
        f"hard limit {size(int(found))}" if found.isdigit() else found,
        "unlimited",
        "ulimit -l unlimited, as root  (a container: start it with --ulimit memlock=-1)",
        "warn",
    )


def _tasks(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    found = limits.tasks(subject.host)
    text = f"{found[0]} more, bounded by {found[1]}" if found else "not limited"
    return judged(
        found is None or found[0] >= _TASKS,
        text,
        f"{_TASKS}",
        "ulimit -u unlimited, as root  (a container: start it with --pids-limit=-1)",
        "warn",
    )
