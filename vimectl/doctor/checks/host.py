"""host and builder: the machine, what this process may use of it, and the programs that vimectl calls."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from vimectl.doctor.check import CheckList, CheckResult, Status, result, skip
from vimectl.doctor.facts import Facts, limits, system
from vimectl.doctor.facts.driver import read_container
from vimectl.doctor.facts.inputs import read_model_shape
from vimectl.doctor.facts.packages import read_metadata
from vimectl.doctor.memory_estimate import estimate
from vimectl.util.units import size

CHECKS = CheckList()

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
    kernel, _, machine = facts.read(system.read_uname, "-sm").partition(" ")
    engine = facts.read(read_container)
    texts = [
        f"{kernel} {machine}",
        facts.read(system.read_distribution_name),
        f"in a {engine} container" if engine else "in no container",
    ]
    wanted = facts.stack.stack.machines
    return result(
        kernel == "Linux" and machine in wanted,
        ", ".join(filter(None, texts)),
        f"Linux {' or '.join(wanted)}",
        "use a machine of that kind",
    )


@CHECKS.add("host.kernel")
def kernel(facts: Facts) -> CheckResult:
    """A run's supervisor watches its processes with pidfd_open(2), in Linux since 5.3."""
    release = facts.read(system.read_uname, "-r")
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        return skip(f"uname gives no kernel version: {release}")
    return result(
        (int(found[1]), int(found[2])) >= _KERNEL,
        release,
        f"{'.'.join(map(str, _KERNEL))} or later",
        "use a host with a later kernel (a container has that of its host)",
    )


@CHECKS.add("host.glibc")
def glibc(facts: Facts) -> CheckResult:
    """The stack's wheels are built against this glibc (their manylinux tags)."""
    found = facts.read(system.read_glibc)
    metadata = facts.read(read_metadata, facts.stack)
    needed = [
        (one.glibc, name) for name, one in metadata.items() if one.glibc and name in facts.stack.packages
    ]
    if not needed:
        return skip("no package of the stack is installed from a wheel with a manylinux tag")
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
        return skip(f"{facts.stack.name} names none")
    errors = facts.read(system.read_library_errors, tuple(needed))
    return result(
        not errors,
        "; ".join(errors.values()) or "all there",
        "; ".join(f"{name}, for {needed[name].needed_by}" for name in errors or needed),
        "; ".join(needed[name].install for name in errors),
    )


@CHECKS.add("host.clock")
def clock(facts: Facts) -> CheckResult:
    """If the clock is behind, certificates are not valid and runs are sorted wrongly."""
    now = facts.read(system.read_clock)
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
    found = facts.read(limits.read_memory)
    text = f"{size(found.available)} available, bounded by {found.bound}"
    if facts.optional_recipe is None:
        return skip(f"{text}; no recipe to compare with")
    needed = facts.recipe.memory.host_bytes
    return result(
        found.available >= needed, text, size(needed), "end what uses the memory, or use a larger machine"
    )


@CHECKS.add("host.swap")
def swap(facts: Facts) -> CheckResult:
    """An offloaded trainer that was swapped out is read back at the speed of the disk."""
    found = facts.read(limits.read_meminfo, "SwapTotal", "SwapFree")
    used = found["SwapTotal"] - found["SwapFree"]
    return result(
        used <= _SWAPPED,
        f"{size(used)} of {size(found['SwapTotal'])} in use" if found["SwapTotal"] else "no swap",
        f"at most {size(_SWAPPED)} in use",
        "end what fills the memory, then swapoff -a && swapon -a, as root",
        "warn",
    )


@CHECKS.add("host.hugepages")
def huge_pages(facts: Facts) -> CheckResult:
    """Memory reserved as huge pages cannot be used for anything else."""
    found = facts.read(limits.read_meminfo, "HugePages_Free", "Hugepagesize", "MemTotal")
    reserved = found["HugePages_Free"] * found["Hugepagesize"]
    return result(
        reserved <= _RESERVED_SHARE * found["MemTotal"],
        f"{size(reserved)} reserved and unused, of {size(found['MemTotal'])}",
        f"at most {_RESERVED_SHARE:.0%}",
        "sysctl vm.nr_hugepages=0, as root",
        "warn",
    )


@CHECKS.add("host.overcommit")
def overcommit(facts: Facts) -> CheckResult:
    """With vm.overcommit_memory = 2, address space that is only reserved counts as used, proc(5)."""
    mode = facts.read(system.read_text, "/proc/sys/vm/overcommit_memory")
    return result(
        mode != "2",
        f"vm.overcommit_memory = {mode}",
        "0 or 1",
        "sysctl vm.overcommit_memory=0, as root",
        "warn",
    )


@CHECKS.add("host.shm")
def shared_memory(facts: Facts) -> CheckResult:
    """Weights and Ray's objects pass through /dev/shm ([memory] shm_bytes)."""
    found = facts.read(limits.read_disk_space, "/dev/shm")
    text = f"{size(found.free)} free of {size(found.size)}"
    if facts.optional_recipe is None:
        return skip(f"{text}; no recipe to compare with")
    needed = facts.recipe.memory.shm_bytes
    fix = "remove what fills /dev/shm"
    if found.size < needed:
        mib = -(-(found.size - found.free + needed) // 1024**2)  # rounded up
        fix = f"mount -o remount,size={mib}m /dev/shm  (a container: start it with --shm-size={mib}m)"
    return result(found.free >= needed, text, f"{size(needed)} free", fix)


@CHECKS.add("host.disk")
def disk(facts: Facts) -> CheckResult:
    """On the CPU the offloaded trainer's memory is a file ([memory] offload_dir)."""
    recipe = facts.recipe
    if recipe.cluster.device != "cpu":
        return skip(f"on {recipe.cluster.device} an offloaded trainer is in memory, not on disk")
    found = facts.read(limits.read_disk_space, recipe.memory.offload_dir or ".")
    # The file has part of the recipe's memory, so this is always enough.
    return result(
        found.free >= recipe.memory.host_bytes,
        f"{size(found.free)} free at {found.path}",
        f"{size(recipe.memory.host_bytes)} free",
        "free space there, or set memory.offload_dir to a larger disk",
        "warn",
    )


@CHECKS.add("host.disk-tmp")
def temporary_disk(facts: Facts) -> CheckResult:
    """Ray places no more objects when its disk is 95% full."""
    found = facts.read(limits.read_disk_space, facts.environment.get("TMPDIR") or "/tmp")
    if not found.size:
        return skip(f"df reports the size of {found.path} as 0")
    return result(
        found.free >= (1 - _DISK_FULL) * found.size,
        f"{size(found.free)} free of {size(found.size)} at {found.path}",
        f"{1 - _DISK_FULL:.0%} free",
        f"free space in {found.path}, or set TMPDIR to a larger disk",
        "warn",
    )


@CHECKS.add("host.disk-runs")
def run_disk(facts: Facts) -> CheckResult:
    """A checkpoint has 14 bytes a parameter (12 in fp32); there is one more than [checkpoint] keep."""
    recipe = facts.recipe
    state = estimate(recipe, facts.read(read_model_shape, recipe)).state
    found = facts.read(limits.read_disk_space, ".")
    # While a checkpoint is written, those that are kept and that of the best step exist too.
    states = recipe.checkpoint.keep + 1 + (1 if recipe.evaluation.every else 0)
    return result(
        found.free >= states * state,
        f"{size(found.free)} free at .",
        f"{size(states * state)} free: {states} checkpoints of {size(state)}",
        "free space there, or put the run elsewhere with --run-dir",
        "warn",
    )


@CHECKS.add("host.cores")
def cores(facts: Facts) -> CheckResult:
    """A rank that shares a core delays its peers at every step."""
    found = facts.read(limits.read_cores)
    if facts.optional_recipe is None:
        return skip(f"{found:g} cores; no recipe to compare with")
    needed = facts.recipe.cluster.devices_per_node
    return result(
        found >= needed,
        f"{found:g} cores",
        f"{needed}, one for each rank",
        "use more cores, or expect a slow run",
        "warn",
    )


@CHECKS.add("host.open-files")
def open_files(facts: Facts) -> CheckResult:
    """Ray recommends 8192 open files."""
    found = facts.read(limits.read_hard_limit, "Max open files")
    return result(
        found is None or found >= _OPEN_FILES,
        f"hard limit {'unlimited' if found is None else found}",
        f"{_OPEN_FILES}",
        f"ulimit -Hn {_OPEN_FILES}, as root",
        "warn",
    )


@CHECKS.add("host.locked-memory", device="npu")
def locked_memory(facts: Facts) -> CheckResult:
    """Memory that a device or RDMA reads must be locked, setrlimit(2)."""
    found = facts.read(limits.read_hard_limit, "Max locked memory")
    return result(
        found is None,
        "unlimited" if found is None else f"hard limit {size(found)}",
        "unlimited",
        "ulimit -l unlimited, as root  (a container: start it with --ulimit memlock=-1)",
        "warn",
    )


@CHECKS.add("host.tasks", running=True)
def tasks(facts: Facts) -> CheckResult:
    """Ray and PyTorch start thousands of threads on many cores (4096)."""
    found = facts.read(limits.read_tasks)
    return result(
        found.available is None or found.available >= _TASKS,
        "not limited" if found.available is None else f"{found.available} more, bounded by {found.bound}",
        f"{_TASKS}",
        "ulimit -u unlimited, as root  (a container: start it with --pids-limit=-1)",
        "warn",
    )


@CHECKS.add("builder.engine", running=True)
def engine(facts: Facts) -> CheckResult:
    """Docker, podman or buildah builds the images."""
    expected = "docker, podman or buildah"
    answers: dict[str, str] = {}
    for command in _ENGINES:
        program = facts.read(system.read_program, command)
        if program.works:
            version = re.search(r"\d+(\.\d+)+\S*", program.line)
            return CheckResult("pass", f"{command[0]} {version[0] if version else program.line}", expected)
        answers[command[0]] = program.line
    found = "; ".join(
        dict.fromkeys(line if name in line else f"{name}: {line}" for name, line in answers.items())
    )
    if facts.optional_recipe is not None:
        return skip(f"a run needs none: {found}")
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
    programs = [facts.read(system.read_program, (name, "--version")) for name in names]
    working = next((program.line for program in programs if program.works), None)
    found = "; ".join(program.line for program in programs) if working is None else working
    return result(working is not None, found, " or ".join(names), fix, bad)
