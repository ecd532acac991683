from __future__ import annotations

import subprocess
from pathlib import Path
from random import Random

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches import content
from vimectl.patches.patchfile.apply import GitFile, apply_patch
from vimectl.patches.patchfile.reader import parse

SOME = Random(1).randbytes(3000)
CASES = {
    "other content": (SOME, Random(2).randbytes(2000)),
    "a part of it": (SOME, SOME[:1000] + b"\0new\0" + SOME[1200:] + SOME[:500]),
    "created": (None, SOME),
    "deleted": (SOME, None),
    "emptied": (SOME, b""),
    "from nothing": (b"", SOME),
    "large": (SOME * 60, b"\0" + SOME * 60),
}


def git_diff(directory: Path, old: bytes | None, new: bytes | None) -> bytes:
    def git(*arguments: str) -> bytes:
        return subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True).stdout

    git("init", "-q")
    trees = []
    for data in (old, new):
        (directory / "data.bin").unlink(missing_ok=True)
        if data is not None:
            (directory / "data.bin").write_bytes(data)
        git("add", "-A")
        trees.append(git("write-tree").decode().strip())
    return git("diff", "--binary", "--full-index", *trees)


@pytest.mark.parametrize("case", CASES)
def test_binary_data_applies_forward_and_reverse(tmp_path: Path, case: str) -> None:
    old, new = CASES[case]
    patch = git_diff(tmp_path, old, new)
    (diff,) = parse(patch).diffs
    assert content.apply_diff(old, diff) == new
    assert content.apply_diff(new, diff, reverse=True) == old
    files = {} if old is None else {"data.bin": GitFile(old)}
    assert apply_patch(parse(patch), files.get) == {"data.bin": None if new is None else GitFile(new)}


def test_cases_include_both_kinds_of_binary_data(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (part,) = parse(git_diff(tmp_path / "one", *CASES["a part of it"])).diffs
    (other,) = parse(git_diff(tmp_path / "two", *CASES["other content"])).diffs
    assert part.binary
    assert other.binary
    assert {part.binary[0].method, other.binary[0].method} == {"delta", "literal"}


def test_delta_for_other_content_is_refused(tmp_path: Path) -> None:
    patch = parse(git_diff(tmp_path, *CASES["a part of it"]))
    with pytest.raises(UsageError, match=r"data\.bin.* does not match the current contents"):
        apply_patch(patch, {"data.bin": GitFile(b"other")}.get)
    with pytest.raises(UsageError, match="the delta is for other content"):
        content.apply_diff(b"other", patch.diffs[0])
