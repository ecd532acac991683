"""Change and drop patches in the middle of a series; git applies the rebased series."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from harness.patches.stored_content import content_at
from harness.patches.toy_packages import LINK, Tree, build_series
from harness.patches.toy_series import A, apply_with_git
from vimectl.patches.blobs import git_mode
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.restack import FileStates, restack
from vimectl.patches.series import Series

Files = dict[str, "tuple[int, bytes] | None"]


def change(*words: str, content: bytes = A) -> bytes:
    for word in words:
        content = content.replace(f"\n{word.lower()}\n".encode(), f"\n{word}\n".encode())
    return content


def plain(**files: bytes | None) -> Files:
    return {name: None if content is None else (0o644, content) for name, content in files.items()}


def states(files: Files) -> dict[str, GitFile | None]:
    return {path: one and GitFile(one[1], git_mode(one[0])) for path, one in files.items()}


class Stack:
    """A series with the patches ``0001-p``, ``0002-p``, ... on a release."""

    def __init__(self, folder: Path, *stages: Files) -> None:
        self.folder = folder
        trees: list[Tree] = [{}]
        for stage in stages:
            merged = {**trees[-1], **stage}
            trees.append({path: one for path, one in merged.items() if one is not None})
        self.release = trees[1]
        self.series = build_series("toy", trees[1:], folder / "series", ["p"] * (len(stages) - 1))

    def restack(
        self, number: int, after: Files | None, header: bytes | None = None
    ) -> tuple[Series, FileStates]:
        paths = [*self.series.chains, *(after or {})]
        released = states({path: self.release.get(path) for path in paths})
        new = None if after is None else states(after)
        series, left = restack(self.series, released, f"{number:04}-p", new, header)
        assert self.applied(series) == {path: one for path, one in left.items() if one}
        return series, left

    def applied(self, series: Series) -> FileStates:
        """Return the release with the patches as git applies them."""
        tree = Path(tempfile.mkdtemp(dir=self.folder), "tree")
        apply_with_git(series, self.release, tree)
        found = {}
        for path in tree.rglob("*"):
            if ".git" not in path.parts and not path.is_dir():
                mode = git_mode(path.lstat().st_mode)
                found[path.relative_to(tree).as_posix()] = GitFile(content_at(path) or b"", mode)
        return found


def test_later_patches_follow_a_changed_patch(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path,
        plain(a=A, b=A, c=A),
        plain(a=change("C")),
        plain(a=change("C", "M"), b=change("M")),
        plain(b=change("M", "T")),
    )
    series, left = stack.restack(1, plain(a=b"0\n" + change("C", "D"), c=change("X")), b"Description: new\n")
    first, second, third = series.patches
    assert (first.files, second.files) == (["a", "c"], ["a", "b"])
    assert first.text.startswith(b"Description: new\n---\n")
    assert second.header == stack.series.patches[1].header
    assert third is stack.series.patches[2]  # nothing below its file changed
    wanted = plain(a=b"0\n" + change("C", "D", "M"), b=change("M", "T"), c=change("X"))
    assert left == states(wanted)


def test_later_patches_do_without_a_dropped_patch(tmp_path: Path) -> None:
    stages = [plain(a=A), plain(a=b"0\n" + A, n=b"new\n"), plain(a=b"0\n" + change("M"))]
    stack = Stack(tmp_path, *stages)
    series, left = stack.restack(1, None)
    assert [patch.id for patch in series.patches] == ["0002-p"]
    assert left == states(plain(a=change("M"), n=None))
    assert stack.restack(2, None)[0].patches == stack.series.patches[:1]


def test_conflict_names_the_patch_and_shows_both(tmp_path: Path) -> None:
    stack = Stack(tmp_path, plain(a=A), plain(a=change("M")), plain(a=change("M", "N")))
    with pytest.raises(CheckFailed) as error:
        stack.restack(1, plain(a=A.replace(b"m\nn\n", b"one\ntwo\n")))
    assert error.value.message == (
        "0002-p does not fit a any more, nothing was changed:\n"
        "<<<<<<< the state below\none\ntwo\n||||||| before\nM\nn\n=======\nM\nN\n>>>>>>> 0002-p"
    )
    assert "vimectl patch drop 0002-p" in error.value.hint


@pytest.mark.parametrize(
    ("first", "second", "new", "shown"),
    [
        ({"a": (0o644, b"1\0")}, {"a": (0o644, b"2\0")}, {"a": (0o644, b"3\0")}, "Cannot merge binary"),
        (plain(n=b"1\n"), plain(n=b"2\n"), {"a": (0o644, b"x")}, "0002-p changes it"),
        (plain(n=b"1\n"), {"n": (0o755, b"1\n")}, {"a": (0o644, b"x")}, "changes its mode"),
        (plain(n=b"1\n"), plain(n=None), plain(n=b"2\n"), "0002-p does not have the file"),
        (plain(b=A), plain(n=b"1\n"), plain(n=b"2\n"), "both have such a file"),
    ],
)
def test_changes_that_git_cannot_merge_conflict(
    tmp_path: Path, first: Files, second: Files, new: Files, shown: str
) -> None:
    stack = Stack(tmp_path, plain(a=b"0\0"), first, second)
    with pytest.raises(CheckFailed, match=shown):
        stack.restack(1, new)


def test_modes_links_and_binary_files_are_kept(tmp_path: Path) -> None:
    script: Files = {"run.sh": (0o755, A), "l": (LINK, b"one"), "bin": (0o644, b"\0" * 9), "gone": None}
    later = {"run.sh": (0o755, change("M")), "l": (LINK, b"two"), "bin": (0o644, b"\0" * 8)}
    stack = Stack(tmp_path, plain(**{"run.sh": A}, gone=b"x\n"), script, later)
    # The first patch no longer sets the executable bit, and changes a line.
    _, left = stack.restack(1, script | {"run.sh": (0o644, change("C"))})
    assert left == states(script | later | {"run.sh": (0o644, change("C", "M"))})
    series, left = stack.restack(2, later | {"run.sh": (0o644, A)})
    assert series.patches[0] is stack.series.patches[0]
    assert left == states(script | later | {"run.sh": (0o644, A)})


def test_file_created_again_has_the_mode_of_a_new_one(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path, {"run.sh": (0o755, A)}, plain(b=A), {"run.sh": None}, plain(**{"run.sh": b"new\n"})
    )
    assert stack.restack(1, plain(c=A))[0].patches[1:] == stack.series.patches[1:]


def test_patch_with_nothing_left_is_dropped(tmp_path: Path) -> None:
    stack = Stack(tmp_path, plain(a=A), plain(a=change("C")), plain(a=change("C", "M")))
    for after, kept in ((change("C", "M"), "0001-p"), (A, "0002-p")):
        series, _ = stack.restack(1, plain(a=after))
        assert [patch.id for patch in series.patches] == [kept]


def test_wrong_contents_are_refused(tmp_path: Path) -> None:
    stack = Stack(tmp_path, plain(a=A), plain(a=change("C")))
    stack.release["a"] = (0o644, b"another\n")
    with pytest.raises(UsageError, match="the hunk for line 1 does not fit"):
        stack.restack(1, None)
