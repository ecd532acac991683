"""Who holds how much device memory in each phase of a run of qwen3-4b-tp2, at a tiny size.

    python tests/npu/proof/account.py [--chips N] [--record]

Runs the recipe twice on chips of CANN stand-ins (``tests/npu/cann``): as it is, and with a trainer that keeps
its cached device memory after it was offloaded. Prints both accounts, from the journal of the stand-ins.
``--record`` also writes them to ``account.json``, from which ``proof.py page`` makes a table and a picture.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec import events, metrics

from harness import RUNTIME
from harness.npu.machine import Machine
from harness.npu.whole_run import CHIP_BYTES, MODEL, WholeRun, launch
from harness.tiny_model import write_checkpoint
from harness.upstream import released
from npu.proof.proof import read_proof
from npu.proof.recorded_account import HOLDERS, MIB, Row, table, write

# The phases of a step, and what begins after each of them until the next one is entered.
AFTER = {
    metrics.ROLLOUT: "engine sleeps, trainer resumes",
    metrics.TRAIN: "engine's weights wake",
    metrics.SYNC: "trainer pauses, KV cache wakes",
}
# The rule in ``proof.toml`` whose removal makes the second account.
CACHE_RULE = "trainer-cache"


def account(run: WholeRun) -> list[Row]:
    """Return a row for each phase of a run up to the last step, in order."""
    intervals = list(_intervals(run))
    held: dict[int, dict[str, int]] = {}  # by chip and holder
    fullest: list[dict[str, int]] = [{} for _ in intervals]
    current = 0

    def look(interval: int) -> None:
        for chip in held.values():
            if sum(chip.values()) >= sum(fullest[interval].values()):
                fullest[interval] = dict(chip)

    for at, chip, holder, nbytes in changes(run):
        while current + 1 < len(intervals) and at >= intervals[current + 1][2]:
            current += 1
            look(current)
        held.setdefault(chip, {})[holder] = nbytes
        look(current)
    for later in range(current + 1, len(intervals)):
        look(later)
    return [Row(step, phase, held) for (step, phase, _), held in zip(intervals, fullest, strict=True)]


def changes(run: WholeRun) -> Iterator[tuple[int, int, str, int]]:
    """Yield what holders have of the chips, up to the last step.

    Afterwards processes exit, which the journal does not record.

    Yields:
        CLOCK_MONOTONIC in ns, a chip, a holder and the bytes that its processes hold from then on.
    """
    (end,) = (at for phase, _, at in _phases(run) if phase == events.SAVE)
    holders = {(role, kind): holder for holder, (roles, kind) in HOLDERS.items() for role in roles}
    roles = {event["pid"]: event["role"] for event in run.events if event["kind"] == events.PROCESS}
    held: dict[tuple[int, str], dict[int, int]] = {}  # by chip and holder, then by process
    for event in run.machine.events("held"):
        if event["at"] < end:
            holder = holders[roles[event["pid"]], event["kind"]]
            processes = held.setdefault((event["chip"], holder), {})
            processes[event["pid"]] = event["nbytes"]
            yield event["at"], event["chip"], holder, sum(processes.values())


def _intervals(run: WholeRun) -> Iterator[tuple[int, str, int]]:
    """Yield step, name and beginning (CLOCK_MONOTONIC in ns) of the start-up and of each phase of a step."""
    rows = {int(row[metrics.STEP]): row for row in run.metrics}
    phases = list(_phases(run))
    yield 0, events.START_UP, phases[0][2]
    for phase, step, begin in phases:
        if phase in AFTER:
            yield step, phase, begin
            yield step, AFTER[phase], begin + int(rows[step][metrics.seconds(phase)] * 1e9)


def _phases(run: WholeRun) -> Iterator[tuple[str, int, int]]:
    """Yield name, step and beginning (CLOCK_MONOTONIC in ns) of each phase that the run recorded."""
    offset = time.time() - time.monotonic()
    for event in run.events:
        if event["kind"] == events.PHASE:
            yield event["phase"], event["step"], int((event["time"] - offset) * 1e9)


def measure(folder: Path, chips: int, rule_removed: bool) -> list[Row]:
    """Run the recipe, as it is or without the rule, and return its account."""
    folder.mkdir()
    machine = Machine(folder / "machine", chips=chips, chip_bytes=CHIP_BYTES)
    checkpoint = write_checkpoint(folder / "model", 0, **MODEL)
    sources = [released.patched_sources("ascend-0.22", folder / "sources")]
    if rule_removed:
        sources.insert(0, _runtime_without(CACHE_RULE, folder / "runtime"))
    run = launch(folder / "whole", checkpoint, machine, chips, *sources)
    if run.code:
        raise SystemExit(f"the run failed:\n{run.output}")
    return account(run)


def _runtime_without(rule_id: str, folder: Path) -> Path:
    """Copy the runtime into a folder, without the lines that a rule of ``proof.toml`` removes."""
    shutil.copytree(RUNTIME, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (rule,) = (rule for rule in read_proof().rule if rule.id == rule_id)
    for removal in rule.removal:
        file = folder / Path(removal.file).relative_to("runtime")
        text = file.read_text(encoding="utf-8")
        for piece in removal.texts:
            assert piece in text, piece
            text = text.replace(piece, removal.replacement)
        file.write_text(text, encoding="utf-8")
    return folder


def main(arguments: list[str]) -> int:
    """Measure, print and perhaps record both accounts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chips", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        kept = {
            name: measure(Path(scratch, str(removed)), options.chips, removed)
            for name, removed in (("as it is", False), ("with a trainer that keeps its cache", True))
        }
    for name, rows in kept.items():
        print(f"\n{name}: MiB of the fullest chip at the fullest moment of each phase\n")
        print("\n".join(table(rows)))
        print(f"\npeak: {max(row.total for row in rows) / MIB:.1f} MiB")
    if options.record:
        write(kept)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
