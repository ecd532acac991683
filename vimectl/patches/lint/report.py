"""What lint says of one patch file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vimectl.patches.patchfile import Defect, names, rules
from vimectl.patches.patchfile.rules import Severity

HunkResult = Literal["exact", "offset", "fuzz", "applied", "does-not-apply"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, at a line of the patch file; ``rule`` is a name that stays."""

    line: int
    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class HunkReport:
    """How a hunk, at ``line`` of the patch file, fits the release: ``offset`` lines lower than it says, with
    ``fuzz`` lines of context at each end ignored. A binary file counts as one hunk."""

    path: str
    line: int
    result: HunkResult
    offset: int = 0
    fuzz: int = 0


@dataclass(frozen=True)
class FileReport:
    """All of it, by line. ``hunks`` is empty when the patch was compared with nothing."""

    path: Path
    findings: tuple[Finding, ...]
    hunks: tuple[HunkReport, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The file as `patch lint --json` prints it."""
        findings = [
            {"line": f.line, "rule": f.rule, "severity": f.severity, "message": f.message}
            for f in self.findings
        ]
        hunks = [
            {"path": h.path, "line": h.line, "result": h.result, "offset": h.offset, "fuzz": h.fuzz}
            for h in self.hunks
        ]
        return {"path": str(self.path), "ok": self.ok, "findings": findings, "hunks": hunks}


def findings(defects: Iterable[Defect]) -> tuple[Finding, ...]:
    """Return defects as findings, each once, by line."""
    known = rules.known()
    found = {Finding(d.line, d.rule, known[d.rule].severity, names.printable(d.message)) for d in defects}
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.rule, finding.message)))
