"""Read ``npu-smi info``: the chips with their health and memory, and the processes on them.

The layout has been the same since driver 23: a table with two rows a chip, then a table of processes. Column
widths differ between the generations (24.1, 25.x, 26.x), the second row has a Phy-ID where a card has two
chips (A3), and 26.x adds a column to the processes. So rows are recognized by the content of their cells, not
by position. The parser never fails: rows and fields that it cannot parse are in ``unreadable``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import CommandResult, Host

# "| npu-smi 24.1.rc3.7               Version: 24.1.rc3.7  |"
_VERSION = re.compile(r"\bnpu-smi\s+v?(\d\S*)")
# "0     910B2" and "0     Ascend910"
_NAMED = re.compile(r"(\d+)\s+([A-Za-z0-9][\w.-]*)")
# "0" and "1     15"
_NUMBERED = re.compile(r"(\d+)(?:\s+(\d+))?")
# "0    / 0          3397 / 65536": the last pair is the HBM if there is any
_PAIR = re.compile(r"(\d+)\s*/\s*(\d+)")
_TITLE = re.compile(r"(NPU|Chip)\b|No running process")
# More than any machine has; malformed output may have any number of lines.
_MAX_LINES = 10_000


@dataclass(frozen=True)
class Chip:
    """One chip. ``used`` and ``total`` are its memory in MiB. None: not in the listing."""

    card: int
    name: str
    health: str
    chip: int | None = None
    physical: int | None = None
    used: int | None = None
    total: int | None = None

    @property
    def label(self) -> str:
        """``NPU 3``, or ``NPU 3 chip 1`` if a card has several chips."""
        return f"NPU {self.card}" + (f" chip {self.chip}" if self.physical is not None else "")

    @property
    def kind(self) -> Literal["A2", "A3"] | None:
        """The generation of Atlas; None if it is neither A2 nor A3."""
        # 910B1 to 910B4 and their variants; an A3 card is named Ascend910 or Ascend910_9382, for example.
        if re.match(r"(Ascend)?910B[1-9]", self.name):
            return "A2"
        if re.fullmatch(r"Ascend910(_93\d+)?|910C|910_93\d+", self.name):
            return "A3"
        return None


@dataclass(frozen=True)
class ChipProcess:
    """A process on a chip, with the host's process id. ``memory`` is in MiB."""

    card: int
    chip: int
    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True)
class ChipListing:
    """The parsed output. ``unreadable`` names the rows and fields that were not understood."""

    version: str | None
    chips: tuple[Chip, ...]
    processes: tuple[ChipProcess, ...]
    unreadable: tuple[str, ...]


def read_npu_smi(host: Host) -> CommandResult:
    """Run ``npu-smi info``."""
    return host.run(["npu-smi", "info"], 10)


def read_health(host: Host, card: int, chip: int) -> dict[str, str]:
    """Return ``Health Status``, ``Error Code`` and ``Error Information`` of a chip; NA is left out.

    The form is that of the npu-smi reference.
    """
    answer = host.run(["npu-smi", "info", "-t", "health", "-i", str(card), "-c", str(chip)], 10)
    lines = answer.stdout.splitlines() if answer.code == 0 else []
    pairs = (line.partition(":") for line in lines[:_MAX_LINES])
    return {name.strip(): text.strip() for name, _, text in pairs if text.strip() not in ("", "NA")}


def read_listing(host: Host) -> ChipListing:
    """Return the listing of ``npu-smi info``. Raises Unavailable if it does not answer."""
    answer = read_npu_smi(host)
    if answer.code != 0:
        raise Unavailable("npu-smi info does not answer (device.npu-smi)")
    return parse(answer.stdout)


def parse(text: str) -> ChipListing:
    """Parse the output of ``npu-smi info``. Any text is accepted."""
    version: str | None = None
    chips: list[Chip] = []
    processes: list[ChipProcess] = []
    unreadable: list[str] = []
    # A chip whose second row is still missing.
    half: Chip | None = None
    for line in text.splitlines()[:_MAX_LINES]:
        if not line.lstrip().startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if found := _VERSION.search(cells[0]):
            version = found[1]
        elif _TITLE.match(cells[0]):
            continue
        elif chip := _first_row(cells):
            unreadable += _without_second_row(half)
            half = chip
        elif half and (whole := _second_row(half, cells)):
            chips.append(whole)
            unreadable += [] if whole.health else [f"health of {whole.label}"]
            unreadable += [f"memory of {whole.label}"] if whole.total is None else []
            half = None
        elif process := _process(cells):
            processes.append(process)
        else:
            unreadable.append(f"row {' '.join(line.split())[:80]!r}")
    unreadable += _without_second_row(half)
    unreadable += [] if version else ["version of npu-smi"]
    unreadable += [] if chips else ["any chip"]
    return ChipListing(version, tuple(chips), tuple(processes), tuple(unreadable))


def _first_row(cells: list[str]) -> Chip | None:
    if len(cells) != 3 or not (named := _NAMED.fullmatch(cells[0])) or named[2].isdigit():
        return None
    return Chip(_number(named[1]), named[2], cells[1])


def _second_row(first: Chip, cells: list[str]) -> Chip | None:
    if len(cells) != 3 or not (numbered := _NUMBERED.fullmatch(cells[0])):
        return None
    pairs = _PAIR.findall(cells[2])
    known = bool(pairs) and len(pairs) == cells[2].count("/")
    used, total = map(_number, pairs[-1]) if known else (None, None)
    return replace(
        first,
        chip=_number(numbered[1]),
        physical=_number(numbered[2]) if numbered[2] else None,
        used=used,
        total=total,
    )


def _process(cells: list[str]) -> ChipProcess | None:
    if len(cells) not in (4, 5) or not (numbered := _NUMBERED.fullmatch(cells[0])) or not numbered[2]:
        return None
    if not cells[1].isdecimal():
        return None
    memory = _number(cells[3]) if cells[3].isdecimal() else None
    return ChipProcess(_number(numbered[1]), _number(numbered[2]), _number(cells[1]), cells[2], memory)


def _without_second_row(half: Chip | None) -> list[str]:
    return [f"second row of {half.label}"] if half else []


def _number(digits: str) -> int:
    # Python refuses to convert thousands of digits; no field has more than these.
    return int(digits[:18])
