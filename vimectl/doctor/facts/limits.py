"""Read how much of the machine this process may use: memory, cores, tasks, open files, disk space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import PurePosixPath

from vimectl.doctor.facts import Unavailable
from vimectl.util.cpu_list import allowed_cpus
from vimectl.util.host import Host

_CGROUP = "/sys/fs/cgroup"


def read_meminfo(host: Host, name: str) -> int:
    """Return a value of /proc/meminfo: bytes where it has kB, otherwise a plain count. Raises Unavailable."""
    found = host.search("/proc/meminfo", rf"^{name}:\s*(\d{{1,20}})( kB)?$")
    if found is None:
        raise Unavailable(f"/proc/meminfo has no {name}")
    return int(found[1]) * (1024 if found[2] else 1)


def read_memory(host: Host) -> tuple[int, str]:
    """Return the bytes that are available without swapping, and what limits them.

    These are the kernel's MemAvailable, or less if a control group limits it.
    Sources: proc(5), the kernel's cgroup-v1 and cgroup-v2 documents. File pages that the group has cached
    without using them (``inactive_file``) are reclaimed under pressure and count as available.

    Raises:
        Unavailable: /proc/meminfo cannot be read.
    """
    bounds = [(read_meminfo(host, "MemAvailable"), "the machine")]
    for folders, limit_name, usage_name, cache in (
        (_groups(host), "memory.max", "memory.current", "inactive_file"),
        (_groups(host, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder, limit, usage in _limited(host, folders, limit_name, usage_name):
            reclaimable = _number(host, f"{folder}/memory.stat", f"{cache} ") or 0
            bounds.append(
                (max(limit - usage + reclaimable, 0), f"the control group {folder} ({limit} bytes)")
            )
    return min(bounds)


def read_cores(host: Host) -> float:
    """Return how many cores this process may use: its affinity, or less if a control group has a quota.

    Raises:
        Unavailable: /proc/self/status cannot be read.
    """
    allowed = allowed_cpus(host)
    if allowed is None:
        raise Unavailable("/proc/self/status has no Cpus_allowed_list")
    bounds = [float(len(allowed))]
    for folder in _groups(host):
        if found := host.search(f"{folder}/cpu.max", r"^(\d{1,20}) ([1-9]\d{0,19})$"):
            bounds.append(int(found[1]) / int(found[2]))
    legacy = _limited(host, _groups(host, "cpu"), "cpu.cfs_quota_us", "cpu.cfs_period_us")
    return min(bounds + [quota / period for _, quota, period in legacy if period])


def read_tasks(host: Host) -> tuple[int, str] | None:
    """Return how many processes and threads may still start, and what limits them; None if nothing does."""
    folders = (*_groups(host), *_groups(host, "pids"))
    bounds = [
        (max(limit - now, 0), f"the control group {folder} ({limit})")
        for folder, limit, now in _limited(host, folders, "pids.max", "pids.current")
    ]
    with suppress(Unavailable):
        if (user_limit := read_hard_limit(host, "Max processes")) is not None:
            bounds.append((user_limit, "the user's limit"))
    return min(bounds, default=None)


def read_hard_limit(host: Host, name: str) -> int | None:
    """Return a hard limit of this process by its name in proc(5); None if it is ``unlimited``.

    Raises:
        Unavailable: /proc/self/limits does not have it.
    """
    found = host.search("/proc/self/limits", rf"^{name} +\S+ +(\S{{1,20}})(?:\s|$)")
    if found is None:
        raise Unavailable(f"/proc/self/limits has no {name}")
    return int(found[1]) if found[1].isdecimal() else None


def read_disk_space(host: Host, path: str) -> tuple[int, int]:
    """Return size and free bytes of the file system of a path, from POSIX ``df -Pk``. Raises Unavailable."""
    lines = host.run(["df", "-Pk", path], 5).stdout.splitlines()
    fields = lines[1].split() if len(lines) > 1 else []
    # Filesystem 1024-blocks Used Available Capacity Mounted-on; the first may contain blanks.
    numbers = [int(field) * 1024 for field in fields if field.isdecimal()]
    if len(numbers) < 3:
        raise Unavailable(f"df does not report the size of {path}")
    return numbers[0], numbers[2]


def _groups(host: Host, controller: str = "") -> list[str]:
    """Return the directories of this process's control group and of all groups above it.

    Without ``controller`` it is the group of version 2. In a container some groups are not mounted and cannot
    be read. Source: proc(5), ``id:controllers:path``.
    """
    found = host.search("/proc/self/cgroup", rf"^\d+:(?:[^:\n]*,)?{controller}(?:,[^:\n]*)?:(.*)$")
    group = PurePosixPath(found[1] if found else "/")
    mount = f"{_CGROUP}/{controller}".rstrip("/")
    return [mount + str(folder).rstrip("/") for folder in (group, *group.parents)]


def _limited(host: Host, folders: Iterable[str], first: str, second: str) -> Iterator[tuple[str, int, int]]:
    """Yield each group in which both files have a number, with the numbers."""
    for folder in folders:
        numbers = _number(host, f"{folder}/{first}"), _number(host, f"{folder}/{second}")
        if numbers[0] is not None and numbers[1] is not None:
            yield folder, numbers[0], numbers[1]


def _number(host: Host, path: str, name: str = "") -> int | None:
    """Return the number in a line of a file, after a name."""
    found = host.search(path, rf"^{name}(\d{{1,20}})$")
    return int(found[1]) if found else None
