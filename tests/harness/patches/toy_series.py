"""A small package whose series is ported from one release to the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.patches.toy_packages import build_series
from harness.patches.toy_releases import Files, applied, lines, write_sdist
from harness.wheels import write_wheel
from vimectl.patches import series
from vimectl.patches.blobs import blob_id
from vimectl.patches.lint.linter import lint
from vimectl.patches.port.command import PortOutcome, port_series
from vimectl.patches.release_files import open_path

A = lines(*"abcdefghijklmnopqrstuvwxyz")
MORE = lines("0", "1", "2")


def change(content: bytes, *pairs: tuple[str, str]) -> bytes:
    for old, new in pairs:
        content = content.replace(f"{old}\n".encode(), "".join(f"{word}\n" for word in new.split()).encode())
    return content


def existing(files: Files) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if content is not None}


class Toy:
    """A series for toy 1.0 and both releases; ``port`` ports it to 2.0, a source archive."""

    def __init__(self, folder: Path, old: Files, new: Files, *patches: Files) -> None:
        self.new, self.out, self.folder = new, folder / "out", folder
        stages = [existing(old)]
        for patch in patches:
            stages.append(existing(stages[-1] | patch))
        trees = [{path: (0o644, content) for path, content in stage.items()} for stage in stages]
        self.series = build_series("toy", trees, folder / "toy-1.0", ["p"] * len(patches))
        self.sources = [write_wheel(folder, "toy", files=stages[0]), write_sdist(folder, "2.0", new)]
        self.conflicts = folder / "out.conflicts"

    def port(self, resolved: Path | None = None) -> PortOutcome:
        where = self.series.directory
        return port_series("toy", "1.0", "2.0", self.sources, self.out, resolved, where)

    def files(self) -> Files:
        """Return the new release with the new series applied; git and the blob ids of the series agree."""
        one = series.read(self.out)
        found = applied(one, self.new, self.folder / "applied")
        sources = open_path(self.sources[1])
        reports = [lint(self.out / f"{patch.id}.patch", sources) for patch in one.patch]
        assert [report.findings for report in reports if not report.ok] == []
        assert {hunk.result for report in reports for hunk in report.hunks} <= {"exact"}
        assert {name: None if data is None else blob_id(data) for name, data in found.items()} == {
            name: chain[-1] for name, chain in one.chains.items()
        }
        return found


Make = Callable[..., Toy]


def results(outcome: PortOutcome) -> list[tuple[str, str]]:
    return [(patch.id, patch.result) for patch in outcome.patches]
