"""environment: the ports that HCCL listens on: well named, enough, free, and kept from other programs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.doctor.variables import Values, of_recipe, values
from vimectl.util.host import Host

_HOST, _NPU = "HCCL_HOST_SOCKET_PORT_RANGE", "HCCL_NPU_SOCKET_PORT_RANGE"
_RULE = (
    "{}: ports or ranges from 1024 to 65535 that do not overlap, or auto; CANN wants one for each process on "
    "an NPU, and colocated there are two, trainer and engine"
)
# proc(5), /proc/net/tcp: the number, local address and port, those of the other side, the state.
_SOCKET = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ", re.MULTILINE)
_LISTEN = "0A"


def checks() -> list[Check]:
    return [
        Check("environment.host-ports", _RULE.format(_HOST), partial(_range, _HOST)),
        Check("environment.npu-ports", _RULE.format(_NPU), partial(_range, _NPU)),
        Check(
            "environment.reserved-ports",
            "the kernel gives ports of net.ipv4.ip_local_port_range to any program that connects somewhere; "
            "CANN asks for HCCL's to be kept out of it with net.ipv4.ip_local_reserved_ports",
            _reserved,
        ),
    ]


def listening(host: Host) -> set[int]:
    """The TCP ports on which something listens."""
    return {port for port, state in _sockets(host) if state == _LISTEN}


def in_use(host: Host) -> set[int]:
    """The local TCP ports of all sockets, whatever their state."""
    return {port for port, _ in _sockets(host)}


def _sockets(host: Host) -> list[tuple[int, str]]:
    tables = (host.read(f"/proc/net/{name}") or "" for name in ("tcp", "tcp6"))
    return [(int(port, 16), state) for table in tables for port, state in _SOCKET.findall(table)]


def parse(text: str) -> list[int] | None:
    """The ports of a list like ``60000,60010-60020``, as often as they are named; None when it is none."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if not match:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            return None
        found += range(first, last + 1)
    return found


def _range(name: str, subject: Subject) -> Outcome:
    recipe = of_recipe(subject, "npu")
    if isinstance(recipe, Outcome):
        return recipe
    cluster = recipe.cluster
    each = 2 if cluster.colocate else 1
    together = each * cluster.devices_per_node
    found = values(subject, name)
    expected = f"{each} free ports or more, better {together}, one for each process of the node"
    text = found.processes["train"]
    if text is None:
        return Outcome("warn", str(found), expected, f"export {name}=60000-60050")
    if text == "auto":
        return Outcome("pass", str(found), expected)
    ports = parse(text)
    if ports is None or len(ports) != len(set(ports)) or ports[0] < 1024:
        return Outcome("fail", str(found), "ports or ranges from 1024, none twice", _mend(found))
    # NPU ports are of the NPU's own network interface: the host's tables do not have them.
    taken = sorted(listening(subject.host) & set(ports)) if name == _HOST else []
    free = len(ports) - len(taken)
    said = f"{found}; {free} of {len(ports)} " + ("free" if name == _HOST else "ports")
    if taken:
        said += f", taken: {', '.join(map(str, taken[:5]))}" + (" ..." if len(taken) > 5 else "")
    mend = _mend(found) if len(ports) < together else "end what listens there (ss -ltnp), or take other ports"
    return judged(free >= together, said, expected, mend, "fail" if free < each else "warn")


def _mend(found: Values) -> str:
    return found.mend if found.in_recipe else f"export {found.name}=60000-60050"


def _reserved(subject: Subject) -> Outcome:
    recipe = of_recipe(subject, "npu")
    if isinstance(recipe, Outcome):
        return recipe
    handed = re.fullmatch(r"(\d+)\s+(\d+)", (subject.host.read(_sysctl("ip_local_port_range")) or "").strip())
    if not handed:
        return skipped(f"{_sysctl('ip_local_port_range')} cannot be read")
    ports = parse(values(subject, _HOST).processes["train"] or "")
    if not ports:
        return skipped(f"{_HOST} names no ports")
    kept = (subject.host.read(_sysctl("ip_local_reserved_ports")) or "").strip()
    open_to_all = (set(ports) & set(range(int(handed[1]), int(handed[2]) + 1))) - set(parse(kept) or ())
    handed_out = f"the kernel hands out {handed[1]} to {handed[2]}"
    wanted = ",".join(filter(None, [kept, ranges(open_to_all)]))
    return judged(
        not open_to_all,
        f"{handed_out}, reserved: {kept or 'none'}"
        + (f"; open to any program: {ranges(open_to_all)}" if open_to_all else ""),
        f"{ranges(ports)} reserved, or outside of what is handed out",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted}",
        "warn",
    )


def _sysctl(name: str) -> str:
    return f"/proc/sys/net/ipv4/{name}"


def ranges(ports: Iterable[int]) -> str:
    """Ports as people write them.

    >>> ranges([60000, 60001, 60002, 60010])
    '60000-60002,60010'
    """
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
