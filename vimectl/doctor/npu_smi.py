"""Read what ``npu-smi info`` prints: the chips with their health and memory, and who uses them.

The layout has been the same since driver 23: a table with two rows a chip, then a table of processes. Widths
differ between the generations (24.1, 25.x, 26.x), the second row has a Phy-ID where a card has two chips
(A3), and 26.x adds a column to the processes. So rows are told apart by what is in their cells, not by
where. Nothing here fails: what is not understood is kept in ``unreadable``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

# "| npu-smi 24.1.rc3.7               Version: 24.1.rc3.7  |"
_VERSION = re.compile(r"\bnpu-smi\s+v?(\d\S*)")
# "0     910B2" and "0     Ascend910"
_NAMED = re.compile(r"(\d+)\s+([A-Za-z0-9][\w.-]*)")
# "0" and "1     15"
_NUMBERED = re.compile(r"(\d+)(?:\s+(\d+))?")
_BUS = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
# "0    / 0          3397 / 65536": the last pair is the HBM where there is any
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_TITLE = re.compile(r"(NPU|Chip)\b|No running process")
# More than any machine has; a hostile text may have any number of lines.
_MOST_LINES = 10_000


@dataclass(frozen=True)
class Chip:
    """One chip. ``used`` and ``total`` are its memory in MiB; None is what was not there to read."""

    card: int
    name: str
    health: str
    chip: int | None = None
    physical: int | None = None
    bus: str | None = None
    used: int | None = None
    total: int | None = None

    @property
    def label(self) -> str:
        """How people call it: ``NPU 3``, and ``NPU 3 chip 1`` where a card has several."""
        return f"NPU {self.card}" + (f" chip {self.chip}" if self.physical is not None else "")


@dataclass(frozen=True)
class User:
    """One process on a chip, as the host counts process ids; ``memory`` is in MiB."""

    card: int
    chip: int
    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True)
class Listing:
    """All of it. ``unreadable`` names the rows and fields that were expected and not understood."""

    version: str | None
    chips: tuple[Chip, ...]
    users: tuple[User, ...]
    unreadable: tuple[str, ...]


def parse(text: str) -> Listing:
    """Read the output of ``npu-smi info``; whatever it is, the answer is what could be read."""
    version: str | None = None
    chips: list[Chip] = []
    users: list[User] = []
    unreadable: list[str] = []
    # A chip whose second row is still to come.
    half: Chip | None = None
    for line in text.splitlines()[:_MOST_LINES]:
        if not line.lstrip().startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if found := _VERSION.search(cells[0]):
            version = found[1]
        elif _TITLE.match(cells[0]):
            continue
        elif chip := _first_row(cells):
            unreadable += _lacking(half)
            half = chip
        elif half and (whole := _second_row(half, cells)):
            chips.append(whole)
            unreadable += _unread(whole)
            half = None
        elif user := _user(cells):
            users.append(user)
        else:
            unreadable.append(f"row {' '.join(line.split())[:80]!r}")
    unreadable += _lacking(half)
    unreadable += [] if version else ["version of npu-smi"]
    unreadable += [] if chips else ["any chip"]
    return Listing(version, tuple(chips), tuple(users), tuple(unreadable))


def _first_row(cells: list[str]) -> Chip | None:
    if len(cells) != 3 or not (named := _NAMED.fullmatch(cells[0])) or named[2].isdigit():
        return None
    return Chip(_number(named[1]), named[2], cells[1])


def _second_row(first: Chip, cells: list[str]) -> Chip | None:
    if len(cells) != 3 or not (numbered := _NUMBERED.fullmatch(cells[0])):
        return None
    pairs = _PAIR.findall(cells[2])
    used, total = map(_number, pairs[-1]) if pairs else (None, None)
    return replace(
        first,
        chip=_number(numbered[1]),
        physical=_number(numbered[2]) if numbered[2] else None,
        bus=cells[1] if _BUS.fullmatch(cells[1]) else None,
        used=used,
        total=total,
    )


def _user(cells: list[str]) -> User | None:
    if len(cells) not in (4, 5) or not (numbered := _NUMBERED.fullmatch(cells[0])) or not numbered[2]:
        return None
    if not cells[1].isdecimal():
        return None
    memory = _number(cells[3]) if cells[3].isdecimal() else None
    return User(_number(numbered[1]), _number(numbered[2]), _number(cells[1]), cells[2], memory)


def _lacking(half: Chip | None) -> list[str]:
    return [f"second row of {half.label}"] if half else []


def _unread(chip: Chip) -> list[str]:
    fields = {
        "health": chip.health or None,
        "bus": chip.bus,
        "memory": chip.total or None,
    }
    return [f"{name} of {chip.label}" for name, value in fields.items() if value is None]


def _number(digits: str) -> int:
    # Python refuses to convert thousands of digits; no field has more than these.
    return int(digits[:18])
