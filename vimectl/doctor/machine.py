"""host: the machine itself: system, cores, memory, shared memory, disk, limits, clock."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from vimectl.doctor import limits
from vimectl.doctor.driver import container
from vimectl.doctor.estimate import estimate
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.doctor.subject_model import config
from vimectl.stack import Stack
from vimectl.stack.detection import find

# Ray warns below 4096 open files and recommends this (ray/_private/worker.py); the soft one it raises.
_OPEN_FILES = 8192
# pidfd_open(2): the supervisor of a run watches its processes through it.
_KERNEL = (5, 3)
_SWAPPED = 1024**3
_RESERVED_SHARE = 0.1
# podman allows a container 2048 tasks, which Ray's and PyTorch's threads exceed on a machine with many cores.
_TASKS = 4096
# Ray stops placing objects on a file system that is fuller (local_fs_capacity_threshold).
_FULL = 0.95
# Bytes of a state for each parameter: weights in bf16, and in fp32 those of the optimizer.
_STATE = {"bfloat16": 14, "float32": 12}
# Two clocks of one machine differ by less; also the time that an installation takes.
_CLOCK_SECONDS = 3600


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
        Check(
            "host.kernel",
            "a run's supervisor watches its processes with pidfd_open(2), in Linux since 5.3",
            _kernel,
        ),
        Check("host.glibc", "the stack's wheels are built against this glibc (their manylinux tags)", _glibc),
        Check("host.swap", "a paused trainer that was swapped out comes back at the disk's speed", _swap),
        Check("host.hugepages", "memory that is reserved as huge pages is nobody else's", _hugepages),
        Check(
            "host.overcommit",
            "with vm.overcommit_memory = 2 address space that is only reserved counts as used, proc(5)",
            _overcommit,
        ),
        Check(
            "host.locked-memory",
            "buffers that a device or RDMA reads must be locked in memory, setrlimit(2)",
            _locked,
        ),
        Check("host.tasks", f"Ray's and PyTorch's threads are thousands on many cores ({_TASKS})", _tasks),
        Check("host.disk-tmp", f"Ray places no more objects when its disk is {_FULL:.0%} full", _disk_tmp),
        Check(
            "host.disk-runs",
            "a state takes 14 bytes a parameter (12 in fp32); one more than [checkpoint] keep is there",
            _disk_runs,
        ),
        Check(
            "host.clock",
            "with a clock that is behind, certificates are not valid and runs sort wrongly",
            _clock,
        ),
    ]


def _system(subject: Subject) -> Outcome:
    answer = subject.host.run(["uname", "-sm"], 5)
    if answer.code != 0:
        return skipped(f"uname could not be asked: {answer.stderr.strip() or answer.code}")
    system, _, machine = answer.stdout.strip().partition(" ")
    wanted = subject.stack.stack.machines
    release = re.search(r'^PRETTY_NAME="?([^"\n]*)', subject.host.read("/etc/os-release") or "", re.MULTILINE)
    found = ", ".join(
        [f"{system} {machine}", *([release[1]] if release else []), _place(subject)],
    )
    return judged(
        system == "Linux" and machine in wanted,
        found,
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


def _place(subject: Subject) -> str:
    engine = container(subject)
    return f"in a {engine} container" if engine else "in no container"


def _kernel(subject: Subject) -> Outcome:
    answer = subject.host.run(["uname", "-r"], 5)
    found = re.match(r"(\d+)\.(\d+)", answer.stdout)
    if answer.code != 0 or found is None:
        return skipped(f"uname could not be asked: {answer.stderr.strip() or answer.code}")
    wanted = ".".join(map(str, _KERNEL))
    return judged(
        tuple(map(int, found.groups())) >= _KERNEL,
        answer.stdout.strip(),
        f"{wanted} or later",
        "use a host with a later kernel (a container has that of its host)",
    )


def _glibc(subject: Subject) -> Outcome:
    answer = subject.host.run(["getconf", "GNU_LIBC_VERSION"], 5)
    if answer.code == 126:
        return skipped(answer.stderr)
    found = re.match(r"glibc (\d+)\.(\d+)", answer.stdout)
    needed = _wheels(subject)
    if not needed:
        return skipped("no package of the stack is installed from a wheel with a manylinux tag")
    (major, minor), package = max((version, name) for name, version in needed.items())
    return judged(
        found is not None and tuple(map(int, found.groups())) >= (major, minor),
        answer.stdout.strip() if found else "no glibc",
        f"glibc {major}.{minor}, for {package}",
        "use a distribution with a later glibc: Ubuntu 22.04, openEuler 22.03, Debian 12",
    )


def _wheels(subject: Subject) -> dict[str, tuple[int, int]]:
    """The glibc that the installed wheels of the stack ask for, by package."""
    installed = subject.installed
    needed: dict[str, tuple[int, int]] = {}
    for package in subject.stack.packages:
        if have := find(subject.stack, package, installed):
            # Metadata folders keep the spelling of their project.
            for file in have.location.glob(f"*-{have.version}.dist-info/WHEEL"):
                if _same(file.parent.name, have.name):
                    tags = re.findall(r"manylinux_(\d+)_(\d+)", file.read_text(errors="replace"))
                    needed |= {package: max((int(a), int(b)) for a, b in tags)} if tags else {}
    return needed


def _same(folder: str, name: str) -> bool:
    return re.sub(r"[-_.]+", "-", folder.partition("-")[0]).lower() == name


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


def _disk_tmp(subject: Subject) -> Outcome:
    place = subject.host.environment.get("TMPDIR") or "/tmp"
    found = limits.space(subject.host, place)
    if found is None or not found.size:
        return skipped(f"df gives no size of {place}")
    return judged(
        found.free >= (1 - _FULL) * found.size,
        f"{size(found.free)} free of {size(found.size)} at {place}",
        f"{1 - _FULL:.0%} free",
        f"make room in {place}, or set TMPDIR to a larger disk",
        "warn",
    )


def _disk_runs(subject: Subject) -> Outcome:
    recipe, model = subject.recipe, config(subject)
    if recipe is None or isinstance(model, str):
        return skipped(model if isinstance(model, str) else "no recipe to compare with")
    try:
        parameters = estimate(recipe, model).parameters
    except KeyError as e:
        return skipped(f"the model's config.json has no {e} (recipe.model)")
    found = limits.space(subject.host, ".")
    if found is None:
        return skipped("df gives no size of .")
    # While a state is written, those that are kept and that of the best step are there as well.
    states = recipe.checkpoint.keep + 1 + (1 if recipe.evaluation.every else 0)
    state = _STATE[recipe.model.dtype] * parameters
    return judged(
        found.free >= states * state,
        f"{size(found.free)} free at .",
        f"{size(states * state)} free: {states} states of {size(state)}",
        "make room there, or put the run elsewhere with --run-dir",
        "warn",
    )


def _clock(subject: Subject) -> Outcome:
    answer = subject.host.run(["date", "-u", "+%s"], 5)
    if answer.code != 0 or not answer.stdout.strip().isdecimal():
        return skipped(f"date does not answer: {answer.stderr.strip() or answer.code}")
    now = int(answer.stdout)
    installed = subject.installed
    packages = [have for name in subject.stack.packages if (have := find(subject.stack, name, installed))]
    newest = max((have.location.stat().st_mtime for have in packages), default=0)
    return judged(
        now >= newest - _CLOCK_SECONDS,
        f"{_moment(now)}" + (f"; packages were installed {_moment(newest)}" if newest else ""),
        "after the installation of what is there",
        "set the clock: timedatectl set-ntp true, as root  (a container has the clock of its host)",
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
