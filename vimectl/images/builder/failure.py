"""What the output of a build says about why it failed: the step, the last lines, and the likely mend."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError
from vime_runtime.spec.strict import Strict

from vimectl.util import toml

# How a step begins: "[2/3] STEP 1/7: RUN ..." of buildah and podman, "#7 [built 3/9] RUN ..." of BuildKit.
STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: .*|#\d+ \[.*\d+/\d+\] .*")
# BuildKit's steps go on side by side: a line begins with the number of its step, and the time.
_FAILED = re.compile(r"#(\d+) ERROR")
_OUTPUT = re.compile(r"#\d+ \d+\.\d+ ?(.*)")
_ERROR = re.compile(r"error: (.*)")
_MEND = re.compile(r"mend:  ?(.*)")
# What buildah and podman add after the step's own output.
_NOISE = re.compile(r"subprocess exited|Error: (building at|error building)|time=")
_SHOWN, _STEP_WIDTH = 12, 100


class Mend(Strict):
    """``[[mend]]``: what a line of the output means, and what to do. ``machine``: the machine lacks it."""

    pattern: str
    found: str
    do: str
    machine: bool = False


class Mends(Strict):
    """The whole of ``mends.toml``."""

    mend: list[Mend]


def explain(builder: str, status: int, output: str, log: Path) -> VimeError:
    """Return the error that a failed build is."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    step, last = _of_step(lines)
    step = step if len(step) <= _STEP_WIDTH else f"{step[: _STEP_WIDTH - 3]}..."
    text = "\n".join(f"    {line}" for line in last[-_SHOWN:])
    mends = [match[1] for line in last if (match := _MEND.match(line))]
    # pip's errors begin alike, and have no mend.
    said = [match[1] for line in last if mends and (match := _ERROR.match(line))]
    # What vimectl said inside the image is better than what can be guessed from outside.
    known = None if said else next((m for m in _mends() if re.search(m.pattern, "\n".join(lines))), None)
    why = said[-1] if said else known.found if known else f"exit status {status}"
    hint = mends[-1] if said else known.do if known else "the whole output is in the log"
    kind = MissingRequirement if known and known.machine else CheckFailed
    return kind(f"{why}\n  step: {step or 'before the first'}\n{text}\n  log: {log}", hint)


def _of_step(lines: list[str]) -> tuple[str, list[str]]:
    """The step that failed ("" when it was before the first), and what it said."""
    numbers = [match[1] for line in lines if (match := _FAILED.match(line))]
    if numbers:
        own = [line for line in lines if line.startswith(f"#{numbers[-1]} ")]
        said = [match[1] for line in own if (match := _OUTPUT.match(line))]
        return next((line for line in own if STEP.match(line)), ""), said
    at = max((n for n, line in enumerate(lines) if STEP.match(line)), default=-1)
    return lines[at] if at >= 0 else "", [line for line in lines[at + 1 :] if not _NOISE.match(line)]


@cache
def _mends() -> list[Mend]:
    return toml.load(Mends, Path(__file__).with_name("mends.toml")).mend
