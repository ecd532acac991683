"""What the output of a build says about why it failed: the step, the last lines, and the likely mend."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from vimectl import toml
from vimectl.errors import CheckFailed, MachineLacks, VimectlError

# How a step begins: "[2/3] STEP 1/7: RUN ..." of buildah and podman, "#7 [built 3/9] RUN ..." of BuildKit.
STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP \d+/\d+: .*|#\d+ \[.*\d+/\d+\] .*")
_ERROR = re.compile(r"(?:#\d+ [\d.]+ )?error: (.*)")
_MEND = re.compile(r"(?:#\d+ [\d.]+ )?mend:  ?(.*)")
# What the builder itself adds after the step's own output.
_NOISE = re.compile(r"subprocess exited|Error: (building at|error building)|time=|#\d+ (ERROR|DONE)|-{4,}")
_SHOWN = 12


class Mend(toml.Strict):
    """``[[mend]]``: what a line of the output means, and what to do. ``machine``: the machine lacks it."""

    pattern: str
    found: str
    do: str
    machine: bool = False


class Mends(toml.Strict):
    """The whole of ``mends.toml``."""

    mend: list[Mend]


def explain(builder: str, status: int, output: str, log: Path) -> VimectlError:
    """Return the error that a failed build is."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    at = next((n for n in range(len(lines) - 1, -1, -1) if STEP.match(lines[n])), None)
    step = lines[at] if at is not None else f"{builder}: exit status {status}"
    last = [line for line in lines[(at or 0) + 1 if at is not None else 0 :] if not _NOISE.match(line)]
    text = "\n".join(f"    {line}" for line in last[-_SHOWN:])
    said = [match[1] for line in last if (match := _ERROR.match(line))]
    mends = [match[1] for line in last if (match := _MEND.match(line))]
    # What vimectl said inside the image is better than what can be guessed from outside.
    known = None if said else next((m for m in _mends() if re.search(m.pattern, "\n".join(lines))), None)
    why = said[-1] if said else known.found if known else f"exit status {status}"
    hint = mends[-1] if said and mends else known.do if known else "the whole output is in the log"
    kind = MachineLacks if known and known.machine else CheckFailed
    return kind(f"{why}\n  step: {step}\n{text}\n  log: {log}", hint)


@cache
def _mends() -> list[Mend]:
    return toml.load(Mends, Path(__file__).with_name("mends.toml")).mend
