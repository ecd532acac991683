"""Write docs/npu-path.md: every step of the NPU path and how it is proven.

``python scripts/npu_proof.py`` writes it; with ``--check`` it says whether the page is what it would write.
The data are in vimectl/runs/npu_path.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vimectl.runs import npu_path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "npu-path.md"

HEAD = """\
<!-- Written by `python scripts/npu_proof.py` from vimectl/runs/npu_path.toml. -->

# The NPU path: what is proven, and how

None of this has run on an NPU. Every step is proven in one of three ways:

1. **by running**: the same code runs for real on a CPU;
2. **by sources**: the code runs against the released sources of upstream (vLLM, vllm-ascend, Megatron-core),
   or on a simulated NPU (`tests/npu`), with stand-ins for the hardware alone;
3. **not yet**: only an Ascend machine can tell.

The first run on NPUs from an account says what is in the last column, and so does its `logs/driver.log`.
"""


def render() -> str:
    """The page."""
    found = npu_path.path()
    lines = [HEAD, "| step | by running | by sources | not yet |", "| --- | --- | --- | --- |"]
    for step in found.step:
        cells = [step.does, _tests(step.running), _tests(step.sources), step.unproven]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## What it must do, because its lack has bitten somebody", ""]
    lines += ["Each of these tests fails when the line that does it is removed.", ""]
    lines += ["| what | tests |", "| --- | --- |"]
    lines += [f"| {item.says} | {_tests(item.tests)} |" for item in found.item]
    lines += ["", "## Telling how it went", "", npu_path.REPORT, ""]
    return "\n".join(lines)


def _tests(tests: list[str]) -> str:
    """Links to the files, by the names of the functions."""
    pairs = [test.split("::") for test in tests]
    return "<br>".join(f"[{name.removeprefix('test_')}](../{file})" for file, name in pairs)


def main(argv: list[str]) -> int:
    """Write the page, or say whether it is up to date."""
    if argv[1:] == ["--check"]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != render())
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
