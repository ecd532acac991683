"""How the NPU path is tested without an NPU: the data of ``proof.toml``, their page, and a check of them.

    python tests/npu/proof/proof.py page [--check]       # write docs/explanation/npu-path.md, or check it
    python tests/npu/proof/proof.py removals [RULE...]   # break each rule; one of its tests has to fail

Removals are done in the checkout and undone in any case: child processes of some tests import the packages
from where they are installed, so a copy would not do. A removal counts as noticed if a test fails, not if
tests were skipped or none ran. The exit code is 0 if the page is up to date or every removal was noticed.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from functools import lru_cache
from pathlib import Path

from pydantic import Field, model_validator
from typing_extensions import Self
from vime_runtime.spec import device_memory, metrics
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.strict import Strict

from harness.doctor.sparse_model import QWEN3_4B
from npu.proof import picture, recorded_account
from npu.proof.recorded_account import MIB
from vimectl.recipes.resolve import resolve
from vimectl.runs.npu_notice import REPORT_REQUEST, UNTESTED_STEPS
from vimectl.util.toml import load

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "explanation" / "npu-path.md"
PICTURE = ROOT / "docs" / "explanation" / "npu-memory.svg"
GIB = 1 << 30
CHIP = 61 * GIB  # of an Ascend 910B1
# Exit code of pytest if tests failed. Others say nothing: interrupted, internal error, usage error, no tests.
TESTS_FAILED = 1

HEAD = """\
<!-- Written by `python tests/npu/proof/proof.py page` from tests/npu/proof/proof.toml. -->

# The NPU path: how it is tested

None of this has run on an NPU. Every step is tested in up to three ways, and some parts cannot be tested yet:

1. **on a CPU**: the same code runs for real, without anything of an NPU;
2. **on torch_npu**: the code runs on the released torch_npu, over stand-ins for the C libraries of CANN
   (`tests/npu/cann`). The stand-ins follow CANN's documentation and torch_npu's sources; a mistake that is
   in both a stand-in and our code is not seen;
3. **by hand**: tried once on pinned sources that no package index has, see [below](#tried-by-hand);
4. **not yet**: only an NPU can test it.

A run on NPUs prints the last column until one has completed, and writes it to its `logs/driver.log`.
"""

MEMORY = """\
The recipe at a tiny size (`tests/harness/npu/whole_run.py`) on chips of the stand-ins: what is held of the
fullest chip at its fullest moment of each phase, in MiB, from the journal of the stand-ins. What a real chip
adds, such as the context of a process and the workspaces of kernels, is not in it. Measured and printed by
`PYTHONPATH=tests:. python tests/npu/proof/account.py`."""


class Removal(Strict):
    """Pieces of source text without each of which a test has to fail; ``replacement`` replaces it."""

    file: str
    texts: list[str]
    replacement: str = ""


class Rule(Strict):
    """Something that the NPU path must do: it has failed without. ``pinned``: why there is no removal."""

    id: str
    rule: str
    tests: list[str] = Field(min_length=1)
    removal: list[Removal] = Field(default_factory=list)
    pinned: str = ""

    @model_validator(mode="after")
    def _has_removal_or_reason(self) -> Self:
        if bool(self.removal) == bool(self.pinned):
            raise ValueError(f"rule {self.id} needs either a removal or the reason why it has none")
        return self


class Step(Strict):
    """One step of the path; tests are given as ``file::function``."""

    id: str
    description: str = Field(default_factory=lambda given: UNTESTED_STEPS[given["id"]].description)
    cpu: list[str] = Field(default_factory=list)
    torch_npu: list[str] = Field(default_factory=list)
    by_hand: list[str] = Field(default_factory=list)

    @property
    def untested(self) -> str:
        """The part of the step that only an NPU can test; empty if there is none."""
        return UNTESTED_STEPS[self.id].untested if self.id in UNTESTED_STEPS else ""


class Trial(Strict):
    """Something that was tried by hand. Steps name it by ``id``."""

    id: str
    what: str
    date: date
    commits: list[str]
    command: str
    outcome: str


class Proof(Strict):
    """The content of ``proof.toml``."""

    rule: list[Rule]
    step: list[Step]
    trial: list[Trial] = Field(default_factory=list)

    @model_validator(mode="after")
    def _trials_are_known(self) -> Self:
        known = {trial.id for trial in self.trial}
        if unknown := {trial for step in self.step for trial in step.by_hand} - known:
            raise ValueError(f"no trial {', '.join(sorted(unknown))}")
        return self


@lru_cache(maxsize=1)
def read_proof() -> Proof:
    """Read ``proof.toml``."""
    return load(Proof, Path(__file__).with_name("proof.toml"))


def named_tests() -> list[str]:
    """Return every test that a step or a rule names, once."""
    proof = read_proof()
    named = [test for rule in proof.rule for test in rule.tests]
    named += [test for step in proof.step for test in (*step.cpu, *step.torch_npu)]
    return list(dict.fromkeys(named))


def render_page() -> str:
    """Return the text of ``docs/explanation/npu-path.md``."""
    proof = read_proof()
    lines = [
        HEAD,
        "| step | on a CPU | on torch_npu | by hand | not yet |",
        "| --- | --- | --- | --- | --- |",
    ]
    for step in proof.step:
        cells = [
            step.description,
            _links(step.cpu),
            _links(step.torch_npu),
            "<br>".join(step.by_hand),
            step.untested,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Device memory over three steps", "", MEMORY, "", f"![bars]({PICTURE.name})"]
    for name, rows in recorded_account.read().items():
        peak = max(row.total for row in rows) / MIB
        lines += ["", f"### {name}: at most {peak:.1f} MiB", "", *recorded_account.table(rows)]
    lines += ["", "## Device memory at the recipe's own size", "", *computed_table()]
    lines += ["", "## Rules that each have a test", ""]
    lines += [
        "A run has failed without each of these. Their tests fail when the line that does it is removed.",
        "",
    ]
    lines += _head("rule", "tests")
    lines += [f"| {rule.rule} | {_links(rule.tests)} |" for rule in proof.rule]
    lines += ["", "## Tried by hand", "", *_head("what", "date", "sources", "command", "outcome")]
    for trial in proof.trial:
        cells = [trial.what, str(trial.date), "<br>".join(trial.commits), f"`{trial.command}`", trial.outcome]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Reporting a run", "", REPORT_REQUEST, ""]
    return "\n".join(lines)


def computed_table() -> list[str]:
    """Return the lines that say what Qwen3-4B needs of a chip, with and without the trainer's cache."""
    recipe = resolve("qwen3-4b-tp2").recipe
    shape = family_of(QWEN3_4B, "").shape(QWEN3_4B, "")
    phases = device_memory.device_memory(recipe, shape, CHIP)
    step = phases[metrics.TRAIN]
    cache = step["trainer: activations"] + step["trainer: loss"]
    rows, peaks = [], [0, 0]
    for phase, holders in phases.items():
        trainer = sum(nbytes for holder, nbytes in holders.items() if holder.startswith("trainer"))
        total = sum(holders.values())
        kept = total if phase == metrics.TRAIN else total + cache
        peaks = [max(peaks[0], total), max(peaks[1], kept)]
        cells = [f"{nbytes / GIB:.1f}" for nbytes in (trainer, total - trainer, total, kept)]
        rows.append(f"| {phase} | {' | '.join(cells)} |")
    margin = CHIP * device_memory.MARGIN
    return [
        "Qwen3-4B with `qwen3-4b-tp2`, computed by `vime_runtime.spec.device_memory`, which the doctor uses,",
        "in GiB of a chip. The last column is for a trainer that keeps its cache after a step.",
        "",
        *_head("phase", "trainer", "engine", "total", "with the cache kept"),
        *rows,
        "",
        f"The run needs {peaks[0] / GIB:.1f} of {CHIP / GIB:.0f} GiB and leaves "
        f"{(CHIP - peaks[0]) / GIB:.1f} GiB; a margin of {margin / GIB:.1f} GiB is required. With the cache "
        f"kept it needs {peaks[1] / GIB:.1f} GiB.",
        "",
        f"{step['trainer: HCCL'] / GIB:.1f} GiB are buffers of the trainer's HCCL communicators, also while",
        "it is offloaded. Groups of the same ranks share one, and that of all ranks has buffers of 1 MB.",
        "slime and vime destroy and rebuild their groups instead. That frees the buffers on the stand-ins",
        "too, but what it costs in every step can only be measured on NPUs.",
    ]


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]


def _links(tests: list[str]) -> str:
    pairs = [test.split("::") for test in tests]
    return "<br>".join(f"[{name.removeprefix('test_')}](../../{file})" for file, name in pairs)


def try_removal(rule: Rule, removal: Removal, piece: str) -> str:
    """Remove a text, run the tests of the rule, and return "noticed by ..." or what happened instead."""
    file = ROOT / removal.file
    text = file.read_text(encoding="utf-8")
    if text.count(piece) != 1:
        return f"not tried: the text is there {text.count(piece)} times"
    file.write_text(text.replace(piece, removal.replacement), encoding="utf-8")
    options = ["-q", "-x", "-p", "no:cacheprovider", "--no-header"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *rule.tests], cwd=ROOT, capture_output=True, text=True
        )
    finally:
        file.write_text(text, encoding="utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != TESTS_FAILED or not failed:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        return f"NOT NOTICED (pytest exit code {done.returncode}): {' '.join(last)}"
    return f"noticed by {failed[0].partition('::')[2].partition(' ')[0]}"


def main(command: str, *arguments: str) -> int:
    if command == "page":
        if arguments == ("--check",):
            return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != render_page())
        PAGE.write_text(render_page(), encoding="utf-8")
        PICTURE.write_text(picture.draw(recorded_account.read()), encoding="utf-8")
        return 0
    unnoticed = 0
    for rule in read_proof().rule:
        if arguments and rule.id not in arguments:
            continue
        if rule.pinned:
            print(f"{rule.id}: nothing to remove: {rule.pinned}")
        for removal in rule.removal:
            for piece in removal.texts:
                result = try_removal(rule, removal, piece)
                unnoticed += not result.startswith("noticed")
                print(f"{rule.id}: {removal.file}: {piece.strip()!r}: {result}", flush=True)
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
