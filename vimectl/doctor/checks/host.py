"""host: the system, and the limits of this process."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable, limits
from vimectl.doctor.facts.driver import CONTAINER_READS, read_container
from vimectl.doctor.facts.imports import read_library_errors
from vimectl.doctor.facts.packages import read_metadata
from vimectl.doctor.stack_requirements import PACKAGE_READS
from vimectl.util.units import size

CHECKS = CheckList()

# It runs last and tells what the other checks could not read.
READABLE = "host.readable"

# The supervisor of a run watches its processes with pidfd_open(2).
_KERNEL = (5, 3)
# Two clocks of one machine differ by less; an installation also takes less.
_CLOCK_SECONDS = 3600
# Ray warns below 4096 open files and recommends this. It raises the soft limit itself.
_OPEN_FILES = 8192
# podman allows a container 2048 tasks, which Ray's and PyTorch's threads exceed on a machine with many cores.
_TASKS = 4096
_GROUPS = ("/proc/self/status", "/proc/self/cgroup")


@CHECKS.add(
    "host.system",
    source="machines of the stack, and their notes in vimectl/stacks/data; /etc/os-release: os-release(5)",
    reads=(
        *("uname -sm", "/etc/os-release", "/.dockerenv", "/run/.containerenv", "/proc/1/environ"),
        "$KUBERNETES_SERVICE_HOST",
    ),
)
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


@CHECKS.add(
    READABLE,
    source="the files that the other checks of this report needed",
    reads=("*",),
)
def readable(facts: Facts) -> CheckResult:
    """Nothing is known of a file that cannot be read: only regular files of a limited size are."""
    unreadable = facts.unreadable
    return warn_unless(
        not unreadable,
        listed([f"{path}: {problem}" for path, problem in unreadable.items()], 8, "; ") or "all files",
        "every file that a check needs is readable",
        "run the doctor as a user who may read them; replace what is not a file",
    )


@CHECKS.add(
    "host.kernel",
    source="pidfd_open(2), Linux 5.3; vimectl/runs/process_watch.py",
    reads=("uname -r",),
    after=("host.system",),
)
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


@CHECKS.add(
    "host.libraries",
    source="libraries of the stack, in vimectl/stacks/data; vLLM 0.32.0: csrc/cpu/utils.cpp includes numa.h",
    reads=("*ctypes.CDLL*",),
)
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


@CHECKS.add(
    "host.clock",
    source="RFC 5280, 4.1.2.5 (validity of certificates); time of installation: mtime of site-packages",
    reads=("date -u +%s", *PACKAGE_READS),
)
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


@CHECKS.add(
    "host.open-files",
    source="Ray 2.60: _private/worker.py:1775-1780",
    reads=("/proc/self/limits",),
)
def open_files(facts: Facts) -> CheckResult:
    """Ray recommends 8192 open files."""
    found = facts.read(limits.read_hard_limit, "Max open files")
    return warn_unless(
        found is None or found >= _OPEN_FILES,
        f"hard limit {'unlimited' if found is None else found}",
        f"{_OPEN_FILES}",
        f"ulimit -Hn {_OPEN_FILES}, as root  (a container: start it with --ulimit nofile={_OPEN_FILES})",
    )


@CHECKS.add(
    "host.locked-memory",
    source="setrlimit(2), RLIMIT_MEMLOCK; LMCache-Ascend#5",
    reads=("/proc/self/limits", *CONTAINER_READS),
    device="npu",
)
def locked_memory(facts: Facts) -> CheckResult:
    """Memory that a device or RDMA reads must be locked, setrlimit(2)."""
    found = facts.read(limits.read_hard_limit, "Max locked memory")
    fix = "ulimit -l unlimited, as root  (a container: start it with --ulimit memlock=-1)"
    if facts.read(read_container) == "kubernetes":
        fix = "on the host, LimitMEMLOCK=infinity in the [Service] of containerd.service, and restart it"
    return warn_unless(
        found is None, "unlimited" if found is None else f"hard limit {size(found)}", "unlimited", fix
    )


@CHECKS.add(
    "host.tasks",
    source="containers.conf(5), pids_limit 2048; setrlimit(2), RLIMIT_NPROC; Linux: cgroup-v1/pids.rst",
    reads=("/proc/self/limits", *_GROUPS, "/sys/fs/cgroup/*pids*"),
    running=True,
)
def tasks(facts: Facts) -> CheckResult:
    """Ray and PyTorch start thousands of threads on many cores (4096)."""
    found = facts.read(limits.read_tasks)
    return warn_unless(
        found is None or found[0] >= _TASKS,
        f"{found[0]} more, bounded by {found[1]}" if found else "not limited",
        f"{_TASKS}",
        "ulimit -u unlimited, as root  (a container: start it with --pids-limit=-1)",
    )
