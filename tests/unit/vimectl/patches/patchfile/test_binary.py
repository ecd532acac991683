from __future__ import annotations

from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import UsageError

from vimectl.patches import content
from vimectl.patches.git_commands import temporary_repository
from vimectl.patches.patchfile import binary
from vimectl.patches.patchfile.apply import GitFile, apply_patch
from vimectl.patches.patchfile.file_diff import BinaryData, PatchFile
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


def git_diff(old: bytes | None, new: bytes | None) -> PatchFile:
    states = [None if data is None else GitFile(data) for data in (old, new)]
    with temporary_repository() as git:
        return parse(git.diff({"data.bin": (states[0], states[1])}))


@pytest.mark.parametrize("case", CASES)
def test_binary_data_applies_forward_and_reverse(case: str) -> None:
    old, new = CASES[case]
    patch = git_diff(old, new)
    (diff,) = patch.diffs
    assert content.apply_diff(old, diff) == new
    assert content.apply_diff(new, diff, reverse=True) == old
    files = {} if old is None else {"data.bin": GitFile(old)}
    assert apply_patch(patch, files.get) == {"data.bin": None if new is None else GitFile(new)}


def test_cases_include_both_kinds_of_binary_data() -> None:
    (part,), (other,) = (git_diff(*CASES[case]).diffs for case in ("a part of it", "other content"))
    assert part.binary
    assert other.binary
    assert {part.binary[0].method, other.binary[0].method} == {"delta", "literal"}


@settings(max_examples=100, deadline=2000)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_delta_is_applied_or_refused(content: bytes, data: bytes) -> None:
    with suppress(binary.CorruptBinary):
        binary.apply_binary(content, BinaryData("delta", data, len(data)))


def test_delta_for_other_content_is_refused() -> None:
    patch = git_diff(*CASES["a part of it"])
    with pytest.raises(UsageError, match=r"data\.bin.* does not match the current contents"):
        apply_patch(patch, {"data.bin": GitFile(b"other")}.get)
    with pytest.raises(UsageError, match="the delta is for other content"):
        content.apply_diff(b"other", patch.diffs[0])
