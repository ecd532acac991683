"""host and builder: the machine, what this process may use of it, and the programs that vimectl calls."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from vime_runtime.spec.device_memory import REGION, ParameterCount

from vimectl.doctor.check import CheckList, CheckResult, Status, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable, limits
from vimectl.doctor.facts.driver import read_container
from vimectl.doctor.facts.imports import read_library_errors
from vimectl.doctor.facts.inputs import read_model_shape
from vimectl.doctor.facts.packages import read_glibc, read_metadata
from vimectl.util.units import size

CHECKS = CheckList()

# It runs last and tells what the other checks could not read.
READABLE = "host.readable"

# The supervisor of a run watches its processes with pidfd_open(2).
_KERNEL = (5, 3)
# Two clocks of one machine differ by less; an installation also takes less.
_CLOCK_SECONDS = 3600
# Ray warns below 4096 open files and recommends this (ray/_private/worker.py). It raises the soft one.
_OPEN_FILES = 8192
_SWAPPED = 1024**3
_RESERVED_SHARE = 0.1
# podman allows a container 2048 tasks, which Ray's and PyTorch's threads exceed on a machine with many cores.
_TASKS = 4096
# Ray stops placing objects on a file system that is fuller (local_fs_capacity_threshold).
_DISK_FULL = 0.95
# The docker client answers without its daemon, and the daemon builds.
_ENGINES = (
    ("docker", "version", "--format", "{{.Server.Version}}"),
    ("podman", "--version"),
    ("buildah", "--version"),
)


@CHECKS.add("host.system")
def operating_system(facts: Facts) -> CheckResult:
    """The stack's packages are built for these systems."""
    kernel, _, machine = facts.output("uname", "-sm").partition(" ")
    engine = facts.read(read_container)
    texts = [
        f"{kernel} {machine}",
        facts.search("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        f"in a {engine} container" if engine else "in no container",
    ]
    wanted = facts.stack.stack.machines
    return result(
        kernel == "Linux" and machine in wanted,
        ", ".join(filter(None, texts)),
        f"Linux {' or '.join(wanted)}",
        "use a machine of that kind",
    )


@CHECKS.add(READABLE, source="the files that the other checks of this report needed", reads=("*",))
def readable(facts: Facts) -> CheckResult:
    """What cannot be read is not checked: regular files of a limited size, which this user may read."""
    unreadable = facts.unreadable
    return warn_unless(
        not unreadable,
        listed([f"{path}: {problem}" for path, problem in unreadable.items()], 8, "; ") or "all files",
        "every file that a check needs is readable",
        "run the doctor as a user who may read them; replace what is not a file",
    )


@CHECKS.add("host.kernel")
def kernel(facts: Facts) -> CheckResult:
    """A run's supervisor watches its processes with pidfd_open(2), in Linux since 5.3."""
    release = facts.output("uname", "-r")
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        raise Unavailable(f"uname gives no kernel version: {release}")
    return result(
        (int(found[1]), int(found[2])) >= _KERNEL,
        release,
        f"{'.'.join(map(str, _KERNEL))} or later",
        "use a host with a later kernel (a container has that of its host)",
    )


@CHECKS.add("host.glibc")
def glibc(facts: Facts) -> CheckResult:
    """The stack's wheels are built against this glibc (their manylinux tags)."""
    found = facts.read(read_glibc)
    metadata = facts.read(read_metadata, facts.stack)
    needed = [
        (one.glibc, name) for name, one in metadata.items() if one.glibc and name in facts.stack.packages
    ]
    if not needed:
        raise Unavailable("no package of the stack is installed from a wheel with a manylinux tag")
    version, package = max(needed)
    return result(
        found is not None and found >= version,
        f"glibc {found[0]}.{found[1]}" if found else "no glibc",
        f"glibc {version[0]}.{version[1]}, for {package}",
        "use a distribution with a later glibc: Ubuntu 22.04, openEuler 22.03, Debian 12",
    )


@CHECKS.add("host.libraries")
def libraries(facts: Facts) -> CheckResult:
    """Compiled parts of packages load system libraries that no package contains, some only in a run."""
    needed = facts.stack.libraries
    if not needed:
        raise Unavailable(f"{facts.stack.name} names none")
    errors = facts.read(read_library_errors, tuple(needed))
    return result(
        not errors,
        "; ".join(errors.values()) or "all there",
        "; ".join(f"{name}, for {needed[name].needed_by}" for name in errors or needed),
        "; ".join(needed[name].install for name in errors),
    )


@CHECKS.add("host.clock")
def clock(facts: Facts) -> CheckResult:
    """If the clock is behind, certificates are not valid and runs are sorted wrongly."""
    now = int(facts.output("date", "-u", "+%s"))
    newest = max((one.installed_at for one in facts.read(read_metadata, facts.stack).values()), default=0)
    return result(
        now >= newest - _CLOCK_SECONDS,
        _format_time(now) + (f"; packages were installed {_format_time(newest)}" if newest else ""),
        "later than the installation of the packages",
        "set the clock: timedatectl set-ntp true, as root  (a container has the clock of its host)",
    )


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


@CHECKS.add("host.memory")
def memory(facts: Facts) -> CheckResult:
    """Trainer, engine and offloaded memory must fit ([memory] host_bytes)."""
    available, bound = facts.read(limits.read_memory)
    text = f"{size(available)} available, bounded by {bound}"
    needed = facts.recipe_for(text).memory.host_bytes
    return result(
        available >= needed, text, size(needed), "end what uses the memory, or use a larger machine"
    )


@CHECKS.add("host.swap")
def swap(facts: Facts) -> CheckResult:
    """An offloaded trainer that was swapped out is read back at the speed of the disk."""
    total = facts.read(limits.read_meminfo, "SwapTotal")
    used = total - facts.read(limits.read_meminfo, "SwapFree")
    return warn_unless(
        used <= _SWAPPED,
        f"{size(used)} of {size(total)} in use" if total else "no swap",
        f"at most {size(_SWAPPED)} in use",
        "end what fills the memory, then swapoff -a && swapon -a, as root",
    )


@CHECKS.add("host.hugepages")
def huge_pages(facts: Facts) -> CheckResult:
    """Memory reserved as huge pages cannot be used for anything else."""
    reserved = facts.read(limits.read_meminfo, "HugePages_Free")
    reserved *= facts.read(limits.read_meminfo, "Hugepagesize")
    total = facts.read(limits.read_meminfo, "MemTotal")
    return warn_unless(
        reserved <= _RESERVED_SHARE * total,
        f"{size(reserved)} reserved and unused, of {size(total)}",
        f"at most {_RESERVED_SHARE:.0%}",
        "sysctl vm.nr_hugepages=0, as root",
    )


@CHECKS.add("host.overcommit")
def overcommit(facts: Facts) -> CheckResult:
    """With vm.overcommit_memory = 2, address space that is only reserved counts as used, proc(5)."""
    mode = facts.text("/proc/sys/vm/overcommit_memory")
    return warn_unless(
        mode != "2",
        f"vm.overcommit_memory = {mode}",
        "0 or 1",
        "sysctl vm.overcommit_memory=0, as root",
    )


@CHECKS.add("host.shm")
def shared_memory(facts: Facts) -> CheckResult:
    """Weights and Ray's objects pass through /dev/shm ([memory] shm_bytes)."""
    total, free = facts.read(limits.read_disk_space, "/dev/shm")
    text = f"{size(free)} free of {size(total)}"
    needed = facts.recipe_for(text).memory.shm_bytes
    fix = "remove what fills /dev/shm"
    if total < needed:
        mib = -(-(total - free + needed) // 1024**2)  # rounded up
        fix = f"mount -o remount,size={mib}m /dev/shm  (a container: start it with --shm-size={mib}m)"
    return result(free >= needed, text, f"{size(needed)} free", fix)


@CHECKS.add("host.disk")
def disk(facts: Facts) -> CheckResult:
    """On the CPU the offloaded trainer's memory is a file ([memory] offload_dir)."""
    recipe = facts.recipe
    if recipe.cluster.device != "cpu":
        raise Unavailable(f"on {recipe.cluster.device} an offloaded trainer is in memory, not on disk")
    path = recipe.memory.offload_dir or "."
    _, free = facts.read(limits.read_disk_space, path)
    # The file has part of the recipe's memory, so this is always enough.
    return warn_unless(
        free >= recipe.memory.host_bytes,
        f"{size(free)} free at {path}",
        f"{size(recipe.memory.host_bytes)} free",
        "free space there, or set memory.offload_dir to a larger disk",
    )


@CHECKS.add("host.disk-tmp")
def temporary_disk(facts: Facts) -> CheckResult:
    """Ray places no more objects when its disk is 95% full."""
    path = facts.environment.get("TMPDIR") or "/tmp"
    total, free = facts.read(limits.read_disk_space, path)
    if not total:
        raise Unavailable(f"df reports the size of {path} as 0")
    return warn_unless(
        free >= (1 - _DISK_FULL) * total,
        f"{size(free)} free of {size(total)} at {path}",
        f"{1 - _DISK_FULL:.0%} free",
        f"free space in {path}, or set TMPDIR to a larger disk",
    )


@CHECKS.add("host.disk-runs")
def run_disk(facts: Facts) -> CheckResult:
    """A checkpoint has 14 bytes a parameter (12 in fp32); there is one more than [checkpoint] keep."""
    recipe = facts.recipe
    parameters = ParameterCount.of(recipe, facts.read(read_model_shape, recipe)).total
    state = REGION[recipe.model.dtype] * parameters
    _, free = facts.read(limits.read_disk_space, ".")
    # While a checkpoint is written, those that are kept and that of the best step exist too.
    states = recipe.checkpoint.keep + 1 + (1 if recipe.evaluation.every else 0)
    return warn_unless(
        free >= states * state,
        f"{size(free)} free at .",
        f"{size(states * state)} free: {states} checkpoints of {size(state)}",
        "free space there, or put the run elsewhere with --run-dir",
    )


@CHECKS.add("host.cores")
def cores(facts: Facts) -> CheckResult:
    """A rank that shares a core delays its peers at every step."""
    found = facts.read(limits.read_cores)
    needed = facts.recipe_for(f"{found:g} cores").cluster.devices_per_node
    return warn_unless(
        found >= needed,
        f"{found:g} cores",
        f"{needed}, one for each rank",
        "use more cores, or expect a slow run",
    )


@CHECKS.add("host.open-files")
def open_files(facts: Facts) -> CheckResult:
    """Ray recommends 8192 open files."""
    found = facts.read(limits.read_hard_limit, "Max open files")
    return warn_unless(
        found is None or found >= _OPEN_FILES,
        f"hard limit {'unlimited' if found is None else found}",
        f"{_OPEN_FILES}",
        f"ulimit -Hn {_OPEN_FILES}, as root",
    )


@CHECKS.add("host.locked-memory", device="npu")
def locked_memory(facts: Facts) -> CheckResult:
    """Memory that a device or RDMA reads must be locked, setrlimit(2)."""
    found = facts.read(limits.read_hard_limit, "Max locked memory")
    return warn_unless(
        found is None,
        "unlimited" if found is None else f"hard limit {size(found)}",
        "unlimited",
        "ulimit -l unlimited, as root  (a container: start it with --ulimit memlock=-1)",
    )


@CHECKS.add("host.tasks", running=True)
def tasks(facts: Facts) -> CheckResult:
    """Ray and PyTorch start thousands of threads on many cores (4096)."""
    found = facts.read(limits.read_tasks)
    return warn_unless(
        found is None or found[0] >= _TASKS,
        f"{found[0]} more, bounded by {found[1]}" if found else "not limited",
        f"{_TASKS}",
        "ulimit -u unlimited, as root  (a container: start it with --pids-limit=-1)",
    )


@CHECKS.add("builder.engine", running=True)
def engine(facts: Facts) -> CheckResult:
    """Docker, podman or buildah builds the images."""
    expected = "docker, podman or buildah"
    answers: dict[str, str] = {}
    for command in _ENGINES:
        works, line = facts.program(*command)
        if works:
            version = re.search(r"\d+(\.\d+)+\S*", line)
            return CheckResult("pass", f"{command[0]} {version[0] if version else line}", expected)
        answers[command[0]] = line
    found = "; ".join(
        dict.fromkeys(line if name in line else f"{name}: {line}" for name, line in answers.items())
    )
    if facts.optional_recipe is not None:
        raise Unavailable(f"a run needs none: {found}")
    return CheckResult("warn", found, expected, "apt-get install buildah, or start docker's daemon")


@CHECKS.add("builder.git", running=True)
def git(facts: Facts) -> CheckResult:
    """`vimectl patch` compares a package that is installed from a checkout with git."""
    return _program(facts, ["git"], "apt-get install git", "warn")


@CHECKS.add("builder.compiler", device="npu", running=True)
def compiler(facts: Facts) -> CheckResult:
    """triton-ascend compiles a launcher for each kernel with $CC, clang++ or g++, at its first use."""
    given = facts.environment.get("CC")
    names = [given] if given else ["clang++", "g++"]
    return _program(facts, names, "unset CC" if given else "apt-get install g++", "fail")


def _program(facts: Facts, names: list[str], fix: str, bad: Status) -> CheckResult:
    """Return a pass if one of the programs works."""
    programs = [facts.program(name, "--version") for name in names]
    working = [line for works, line in programs if works]
    found = working[0] if working else "; ".join(line for _, line in programs)
    return result(bool(working), found, " or ".join(names), fix, bad)
