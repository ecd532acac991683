"""The account of device memory that ``account.py`` has recorded, and its table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vime_runtime.spec import process_roles

RECORD = Path(__file__).with_name("account.json")
MIB = 1 << 20
TRAINER, ENGINE = (process_roles.TRAINER,), (process_roles.ENGINE, process_roles.ENGINE_WORKER)
# In the order of the table: the holder, the roles of its processes, the kind of memory in the journal.
HOLDERS = {
    "trainer: region": (TRAINER, "physical"),
    "trainer: allocator": (TRAINER, "malloc"),
    "trainer: HCCL": (TRAINER, "hccl"),
    "engine: weights, KV cache": (ENGINE, "physical"),
    "engine: allocator": (ENGINE, "malloc"),
    "engine: HCCL": (ENGINE, "hccl"),
}


@dataclass(frozen=True)
class Row:
    """The fullest moment of the fullest chip in a phase: bytes by holder. ``step`` is 0 during start-up."""

    step: int
    phase: str
    held: dict[str, int]

    @property
    def total(self) -> int:
        """All bytes that are held."""
        return sum(self.held.values())

    @property
    def label(self) -> str:
        """The step and the phase."""
        return f"{self.step or ''} {self.phase}".strip()


Accounts = dict[str, list[Row]]


def write(accounts: Accounts) -> None:
    """Record accounts by the name of their run."""
    document = {name: [asdict(row) for row in rows] for name, rows in accounts.items()}
    RECORD.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read() -> Accounts:
    """Return the recorded accounts."""
    document = json.loads(RECORD.read_text(encoding="utf-8"))
    return {name: [Row(**row) for row in rows] for name, rows in document.items()}


def table(rows: list[Row]) -> list[str]:
    """Return the lines of a Markdown table of an account, in MiB."""
    heads = ["phase", *HOLDERS, "total"]
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    for row in rows:
        cells = [*(row.held.get(holder, 0) for holder in HOLDERS), row.total]
        lines.append(f"| {row.label} | {' | '.join(f'{nbytes / MIB:.1f}' for nbytes in cells)} |")
    return lines
