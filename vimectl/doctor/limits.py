"""What of a machine this process may use: its memory, its cores and its file systems, in bytes and counts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from vimectl.util.host import Host

_CGROUP = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Memory:
    """Bytes that can be had without swapping, and what sets the bound."""

    available: int
    bound: str


@dataclass(frozen=True)
class Space:
    """Size and free bytes of the file system that holds a path."""

    size: int
    free: int


def memory(host: Host) -> Memory | None:
    """Return the available memory: the kernel's MemAvailable, or less where a control group limits it.

    Sources: proc(5), the kernel's cgroup-v1 and cgroup-v2 documents. Pages of files that the group has
    cached without using them (``inactive_file``) are given back under pressure and count as available.
    """
    found = meminfo(host).get("MemAvailable")
    if found is None:
        return None
    bounds = [Memory(found, "the machine")]
    for group, limit_name, usage_name, cache in (
        (_unified(host), "memory.max", "memory.current", "inactive_file"),
        (_legacy(host, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in group:
            limit, usage = _number(host, f"{folder}/{limit_name}"), _number(host, f"{folder}/{usage_name}")
            if limit is not None and usage is not None:
                free = limit - usage + _field(host, f"{folder}/memory.stat", cache)
                bounds.append(Memory(max(free, 0), f"the control group {folder} ({limit} bytes)"))
    return min(bounds, key=lambda bound: bound.available)


def cores(host: Host) -> float | None:
    """Return how many cores this process may use: its affinity, or less where a control group has a quota."""
    lines = (host.read("/proc/self/status") or "").splitlines()
    allowed = next((line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:")), None)
    if allowed is None:
        return None
    bounds = [float(_count(allowed))]
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


def space(host: Host, path: str) -> Space | None:
    """Return size and free bytes of the file system at ``path``, as POSIX ``df -Pk`` gives them."""
    lines = host.run(["df", "-Pk", path], 5).stdout.splitlines()
    fields = lines[1].split() if len(lines) > 1 else []
    # Filesystem 1024-blocks Used Available Capacity Mounted-on; the first may contain blanks.
    numbers = [int(field) * 1024 for field in fields if field.isdigit()]
    return Space(numbers[0], numbers[2]) if len(numbers) >= 3 else None


def open_files(host: Host) -> int | None:
    """Return the hard limit of open files, or None when it cannot be read."""
    hard = limit(host, "Max open files")
    return int(hard) if hard and hard.isdigit() else None


def limit(host: Host, name: str) -> str | None:
    """Return a hard limit of this process by its name in proc(5): a number or ``unlimited``."""
    lines = (host.read("/proc/self/limits") or "").splitlines()
    fields = next((line.removeprefix(name).split() for line in lines if line.startswith(name)), [])
    return fields[1] if len(fields) > 1 else None


def tasks(host: Host) -> tuple[int, str] | None:
    """Return how many more processes and threads may be started, and what sets the bound, if anything."""
    bounds = []
    for folder in (*_unified(host), *_legacy(host, "pids")):
        most, now = _number(host, f"{folder}/pids.max"), _number(host, f"{folder}/pids.current")
        if most is not None and now is not None:
            bounds.append((max(most - now, 0), f"the control group {folder} ({most})"))
    own = limit(host, "Max processes")
    if own and own.isdigit():
        bounds.append((int(own), "the user's limit"))
    return min(bounds) if bounds else None


def meminfo(host: Host) -> dict[str, int]:
    """Return /proc/meminfo by name: bytes where it has kB, else plain counts."""
    found = {}
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if number.isdigit():
            found[name] = int(number) * (1024 if unit == "kB" else 1)
    return found


def _unified(host: Host) -> list[str]:
    return _ancestors(_CGROUP, _group_path(host, ""))


def _legacy(host: Host, controller: str) -> list[str]:
    return _ancestors(f"{_CGROUP}/{controller}", _group_path(host, controller))


def _group_path(host: Host, controller: str) -> str:
    """The path of this process's group (proc(5): ``id:controllers:path``); empty name for version 2."""
    for line in (host.read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _ancestors(mount: str, path: str) -> list[str]:
    """A group and all above it; in a container some lie outside what is mounted and cannot be read."""
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


def _count(ranges: str) -> int:
    """How many numbers a list like ``0-3,8`` names."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total
