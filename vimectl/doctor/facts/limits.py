"""Read how much of the machine this process may use: memory, cores, tasks, open files, disk space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from vimectl.doctor.facts import Unavailable
from vimectl.util.cpu_list import allowed_cpus
from vimectl.util.host import Host

_CGROUP = "/sys/fs/cgroup"


@dataclass(frozen=True)
class AvailableMemory:
    """Bytes available without swapping, and what limits them."""

    available: int
    bound: str


@dataclass(frozen=True)
class TaskLimit:
    """The number of processes and threads that may still start (None: no limit), and what limits it."""

    available: int | None
    bound: str


@dataclass(frozen=True)
class DiskSpace:
    """Size and free bytes of the file system that holds a path."""

    path: str
    size: int
    free: int


def read_meminfo(host: Host, *needed: str) -> dict[str, int]:
    """Return /proc/meminfo by name: bytes where it has kB, otherwise plain counts.

    Raises:
        Unavailable: it lacks one of the ``needed`` names.
    """
    found = {}
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if number.isdigit():
            found[name] = int(number) * (1024 if unit == "kB" else 1)
    if absent := [name for name in needed if name not in found]:
        raise Unavailable(f"/proc/meminfo has no {absent[0]}")
    return found


def read_memory(host: Host) -> AvailableMemory:
    """Return the available memory: the kernel's MemAvailable, or less if a control group limits it.

    Sources: proc(5), the kernel's cgroup-v1 and cgroup-v2 documents. File pages that the group has cached
    without using them (``inactive_file``) are reclaimed under pressure and count as available.

    Raises:
        Unavailable: /proc/meminfo cannot be read.
    """
    bounds = [AvailableMemory(read_meminfo(host, "MemAvailable")["MemAvailable"], "the machine")]
    for folders, limit_name, usage_name, cache in (
        (_unified(host), "memory.max", "memory.current", "inactive_file"),
        (_legacy(host, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in folders:
            limit, usage = _number(host, f"{folder}/{limit_name}"), _number(host, f"{folder}/{usage_name}")
            if limit is not None and usage is not None:
                free = limit - usage + _field(host, f"{folder}/memory.stat", cache)
                bounds.append(AvailableMemory(max(free, 0), f"the control group {folder} ({limit} bytes)"))
    return min(bounds, key=lambda bound: bound.available)


def read_cores(host: Host) -> float:
    """Return how many cores this process may use: its affinity, or less if a control group has a quota.

    Raises:
        Unavailable: /proc/self/status cannot be read.
    """
    allowed = allowed_cpus(host)
    if allowed is None:
        raise Unavailable("/proc/self/status has no Cpus_allowed_list")
    bounds = [float(len(allowed))]
    for folder in _unified(host):
        quota, _, period = (host.read(f"{folder}/cpu.max") or "").partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            bounds.append(int(quota) / int(period))
    for folder in _legacy(host, "cpu"):
        cfs_quota = _number(host, f"{folder}/cpu.cfs_quota_us")
        cfs_period = _number(host, f"{folder}/cpu.cfs_period_us")
        if cfs_quota is not None and cfs_quota > 0 and cfs_period:
            bounds.append(cfs_quota / cfs_period)
    return min(bounds)


def read_tasks(host: Host) -> TaskLimit:
    """Return the number of processes and threads that may still start."""
    bounds = []
    for folder in (*_unified(host), *_legacy(host, "pids")):
        limit, now = _number(host, f"{folder}/pids.max"), _number(host, f"{folder}/pids.current")
        if limit is not None and now is not None:
            bounds.append((max(limit - now, 0), f"the control group {folder} ({limit})"))
    user_limit = _hard_limit(host, "Max processes")
    if user_limit and user_limit.isdigit():
        bounds.append((int(user_limit), "the user's limit"))
    return TaskLimit(*min(bounds)) if bounds else TaskLimit(None, "")


def read_hard_limit(host: Host, name: str) -> int | None:
    """Return a hard limit of this process by its name in proc(5); None if it is ``unlimited``.

    Raises:
        Unavailable: /proc/self/limits does not have it.
    """
    found = _hard_limit(host, name)
    if found is None:
        raise Unavailable(f"/proc/self/limits has no {name}")
    return int(found) if found.isdigit() else None


def read_disk_space(host: Host, path: str) -> DiskSpace:
    """Return the space of the file system at ``path``, from POSIX ``df -Pk``. Raises Unavailable."""
    lines = host.run(["df", "-Pk", path], 5).stdout.splitlines()
    fields = lines[1].split() if len(lines) > 1 else []
    # Filesystem 1024-blocks Used Available Capacity Mounted-on; the first may contain blanks.
    numbers = [int(field) * 1024 for field in fields if field.isdigit()]
    if len(numbers) < 3:
        raise Unavailable(f"df does not report the size of {path}")
    return DiskSpace(path, numbers[0], numbers[2])


def read_numa_nodes(host: Host) -> int:
    """Return the number of NUMA nodes."""
    return len(list(host.path("/sys/devices/system/node").glob("node[0-9]*")))


def _hard_limit(host: Host, name: str) -> str | None:
    lines = (host.read("/proc/self/limits") or "").splitlines()
    fields = next((line.removeprefix(name).split() for line in lines if line.startswith(name)), [])
    return fields[1] if len(fields) > 1 else None


def _unified(host: Host) -> list[str]:
    return _ancestors(_CGROUP, _group_path(host, ""))


def _legacy(host: Host, controller: str) -> list[str]:
    return _ancestors(f"{_CGROUP}/{controller}", _group_path(host, controller))


def _group_path(host: Host, controller: str) -> str:
    """Return the path of this process's group (proc(5): ``id:controllers:path``); ``""`` for version 2."""
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _ancestors(mount: str, path: str) -> list[str]:
    """Return a group and all groups above it. In a container some are not mounted and cannot be read."""
    group = PurePosixPath(path)
    return [mount + str(folder).rstrip("/") for folder in (group, *group.parents)]


def _number(host: Host, path: str) -> int | None:
    text = (host.read(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _field(host: Host, path: str, name: str) -> int:
    for line in (host.read(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0
