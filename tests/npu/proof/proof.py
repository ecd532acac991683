"""How the NPU path is tested without an NPU: the data of ``proof.toml``, their page, and a check of them.

    python tests/npu/proof/proof.py page [--check]       # write docs/npu-path.md, or check that it is current
    python tests/npu/proof/proof.py removals [RULE...]   # break each rule; one of its tests has to fail

Removals are done in the checkout and undone in any case: child processes of some tests import the packages
from where they are installed, so a copy would not do. A removal counts as noticed if a test fails, not if
tests were skipped or none ran. The exit code is 0 if the page is up to date or every removal was noticed.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from pydantic import Field, model_validator
from typing_extensions import Self
from vime_runtime.spec.strict import Strict

from vimectl.runs.npu_notice import REPORT_REQUEST, UNTESTED_STEPS
from vimectl.util.toml import load

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "npu-path.md"
# Exit code of pytest if tests failed. Others say nothing: interrupted, internal error, usage error, no tests.
TESTS_FAILED = 1

HEAD = """\
<!-- Written by `python tests/npu/proof/proof.py page` from tests/npu/proof/proof.toml. -->

# The NPU path: how it is tested

None of this has run on an NPU. Every step is tested in one of two ways, and some parts cannot be tested yet:

1. **by running**: the same code runs for real on a CPU;
2. **against sources**: the code runs against the released sources of upstream (vLLM, vllm-ascend,
   Megatron-core), or on a simulated NPU (`tests/npu`), with fakes for the hardware only;
3. **not yet**: only an NPU can test it.

A run on NPUs prints the last column until one has completed, and writes it to its `logs/driver.log`.
"""


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
    running: list[str] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list)

    @property
    def untested(self) -> str:
        """The part of the step that only an NPU can test; empty if there is none."""
        return UNTESTED_STEPS[self.id].untested if self.id in UNTESTED_STEPS else ""


class Proof(Strict):
    """The content of ``proof.toml``."""

    rule: list[Rule]
    step: list[Step]


@lru_cache(maxsize=1)
def read_proof() -> Proof:
    """Read ``proof.toml``."""
    return load(Proof, Path(__file__).with_name("proof.toml"))


def named_tests() -> list[str]:
    """Return every test that a step or a rule names, once."""
    proof = read_proof()
    named = [test for rule in proof.rule for test in rule.tests]
    named += [test for step in proof.step for test in (*step.running, *step.sources)]
    return list(dict.fromkeys(named))


def render_page() -> str:
    """Return the text of ``docs/npu-path.md``."""
    proof = read_proof()
    lines = [HEAD, "| step | by running | against sources | not yet |", "| --- | --- | --- | --- |"]
    for step in proof.step:
        cells = [step.description, _links(step.running), _links(step.sources), step.untested]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Rules that each have a test", ""]
    lines += [
        "A run has failed without each of these. Their tests fail when the line that does it is removed.",
        "",
    ]
    lines += ["| rule | tests |", "| --- | --- |"]
    lines += [f"| {rule.rule} | {_links(rule.tests)} |" for rule in proof.rule]
    lines += ["", "## Reporting a run", "", REPORT_REQUEST, ""]
    return "\n".join(lines)


def _links(tests: list[str]) -> str:
    pairs = [test.split("::") for test in tests]
    return "<br>".join(f"[{name.removeprefix('test_')}](../{file})" for file, name in pairs)


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
