"""A small package whose series is ported from one release to the next."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from harness.git import git
from harness.patches.stored_content import content_at
from harness.patches.toy_packages import Tree, build_series, lay
from harness.wheels import write_wheel
from vimectl.patches import series
from vimectl.patches.blobs import blob_id
from vimectl.patches.lint.linter import lint
from vimectl.patches.port.command import PortOutcome, port_series
from vimectl.patches.release_files import open_path
from vimectl.patches.series import Series

Files = dict[str, "bytes | None"]


def lines(*names: str) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()


A = lines(*"abcdefghijklmnopqrstuvwxyz")
MORE = lines("0", "1", "2")


def change(content: bytes, *pairs: tuple[str, str]) -> bytes:
    for old, new in pairs:
        content = content.replace(f"{old}\n".encode(), "".join(f"{word}\n" for word in new.split()).encode())
    return content


def existing(files: Files) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if content is not None}


def tree_of(files: Files) -> Tree:
    return {path: (0o644, content) for path, content in existing(files).items()}


def write_sdist(folder: Path, version: str, files: Files) -> Path:
    path = folder / f"toy-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in existing(files).items():
            member = tarfile.TarInfo(f"toy-{version}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def apply_with_git(one: Series, release: Tree, folder: Path) -> None:
    """Write a release into a new folder, and apply the patches of a series to it with git only."""
    folder.mkdir()
    lay(folder, release)
    git(folder, "init", "-q")
    for patch in one.patches:
        (folder / ".git" / "one.patch").write_bytes(patch.text)
        git(folder, "apply", "--whitespace=nowarn", ".git/one.patch")


class Toy:
    """A series for toy 1.0 and both releases; ``port`` ports it to 2.0, a source archive."""

    def __init__(self, folder: Path, old: Files, new: Files, *patches: Files) -> None:
        self.new, self.out, self.folder = new, folder / "out", folder
        stages = [old]
        for patch in patches:
            stages.append(stages[-1] | patch)
        trees = [tree_of(stage) for stage in stages]
        self.series = build_series("toy", trees, folder / "toy-1.0", ["p"] * len(patches))
        self.sources = [write_wheel(folder, "toy", files=existing(old)), write_sdist(folder, "2.0", new)]
        self.conflicts = folder / "out.conflicts"

    def port(self, resolved: Path | None = None) -> PortOutcome:
        where = self.series.directory
        return port_series("toy", "1.0", "2.0", self.sources, self.out, resolved, where)

    def files(self) -> Files:
        """Return the new release with the new series applied; git and the blob ids of the series agree."""
        one = series.read(self.out)
        tree = self.folder / "applied"
        apply_with_git(one, tree_of(self.new), tree)
        found = {name: content_at(tree / name) for name in one.chains}
        reports = lint([self.out], open_path(self.sources[1])) if one.patches else []
        assert [report.findings for report in reports if not report.ok] == []
        assert {hunk.result for report in reports for hunk in report.hunks} <= {"exact"}
        assert {name: None if data is None else blob_id(data) for name, data in found.items()} == {
            name: chain[-1] for name, chain in one.chains.items()
        }
        return found


Make = Callable[..., Toy]


def results(outcome: PortOutcome) -> list[tuple[str, str]]:
    return [(patch.id, patch.result) for patch in outcome.patches]
