"""Explain a failed build from the builder's output: the step, its last lines, the likely cause and a hint."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError
from vime_runtime.spec.strict import Strict

from vimectl.util import toml

# The first line of a step: "[2/3] STEP 1/7: RUN ..." (buildah, podman), "#7 [built 3/9] RUN ..." (BuildKit).
STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: .*|#\d+ \[.*\d+/\d+\] .*")
# BuildKit runs steps in parallel: a line begins with the number of its step, and the time.
_FAILED = re.compile(r"#(\d+) ERROR")
_OUTPUT = re.compile(r"#\d+ \d+\.\d+ ?(.*)")
# As util.console.report_error prints them. pip's hints have one space, and its errors no hint of this form.
_ERROR = re.compile(r"error: (.*)")
_HINT = re.compile(r"hint:  (.*)")
# Printed by buildah and podman after the output of the step.
_NOISE = re.compile(r"subprocess exited|Error: (building at|error building)|time=")
_SHOWN_LINES, _STEP_WIDTH = 12, 100


class OutputHint(Strict):
    """``[[hint]]``: a pattern in the output, its meaning, and a hint. See ``build_hints.toml``."""

    pattern: str
    found: str
    hint: str
    machine: bool = False


class HintsFile(Strict):
    """The schema of ``build_hints.toml``."""

    hint: list[OutputHint]


def explain(status: int, output: str, log: Path) -> VimeError:
    """Return the error for a build that failed with this exit status and output."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    step, last = _failed_step(lines)
    step = step if len(step) <= _STEP_WIDTH else f"{step[: _STEP_WIDTH - 3]}..."
    text = "\n".join(f"    {line}" for line in last[-_SHOWN_LINES:])
    hints = [match[1] for line in last if (match := _HINT.match(line))]
    errors = [match[1] for line in last if hints and (match := _ERROR.match(line))]
    # An error of vimectl inside the image is more exact than a guess from the output.
    known = None if errors else next((h for h in _hints() if re.search(h.pattern, "\n".join(lines))), None)
    why = errors[-1] if errors else known.found if known else f"exit status {status}"
    hint = hints[-1] if errors else known.hint if known else "the whole output is in the log"
    kind = MissingRequirement if known and known.machine else CheckFailed
    return kind(f"{why}\n  step: {step or 'before the first'}\n{text}\n  log: {log}", hint)


def _failed_step(lines: list[str]) -> tuple[str, list[str]]:
    """Return the first line of the failed step ("" when it was before the first) and the step's output."""
    numbers = [match[1] for line in lines if (match := _FAILED.match(line))]
    if numbers:
        step_lines = [line for line in lines if line.startswith(f"#{numbers[-1]} ")]
        output = [match[1] for line in step_lines if (match := _OUTPUT.match(line))]
        return next((line for line in step_lines if STEP.match(line)), ""), output
    at = max((n for n, line in enumerate(lines) if STEP.match(line)), default=-1)
    return lines[at] if at >= 0 else "", [line for line in lines[at + 1 :] if not _NOISE.match(line)]


@cache
def _hints() -> list[OutputHint]:
    return toml.load(HintsFile, Path(__file__).with_name("build_hints.toml")).hint
