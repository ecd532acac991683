"""Read lists of CPUs as the kernel writes them."""

from __future__ import annotations

from vimectl.util.host import Host


def parse_cpu_list(text: str) -> list[int]:
    """Return the CPU numbers of a list in the format of cpuset(7).

    >>> parse_cpu_list("0-3,8")
    [0, 1, 2, 3, 8]
    """
    ranges = [part.partition("-") for part in text.split(",")]
    return [cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1)]


def allowed_cpus(host: Host) -> list[int] | None:
    """Return the CPUs that this process may run on (``Cpus_allowed_list``, proc(5)); None if unreadable."""
    found = host.search("/proc/self/status", r"^Cpus_allowed_list:\s*([\d,-]+)$")
    return parse_cpu_list(found[1]) if found else None
