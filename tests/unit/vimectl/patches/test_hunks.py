from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import UsageError

from vimectl.patches import content

# Few different lines, so that hunks have look-alikes nearby; bytes that are no UTF-8; both line ends.
LINES = st.lists(
    st.sampled_from([b"a\n", b"b\n", b"\n", b"c\r\n", b"\xff\xe9\n", b"-x\n", b"+ y\n"]), max_size=30
)
CONTENT = st.builds(
    lambda lines, end: b"".join(lines) + end, LINES, st.sampled_from([b"", b"no newline", b"\r"])
)


def git_diff(directory: Path, old: bytes, new: bytes) -> bytes:
    (directory / "a").mkdir(exist_ok=True)
    (directory / "b").mkdir(exist_ok=True)
    (directory / "a" / "file").write_bytes(old)
    (directory / "b" / "file").write_bytes(new)
    command = ["git", "diff", "--no-index", "--no-prefix", "--text", "a/file", "b/file"]
    return subprocess.run(command, cwd=directory, capture_output=True).stdout


@settings(max_examples=50, deadline=None)
@given(old=CONTENT, new=CONTENT)
def test_what_git_writes_leads_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes
) -> None:
    assume(old != new)
    directory = tmp_path_factory.mktemp("diff")
    text = git_diff(directory, old, new)
    (directory / "p.patch").write_bytes(text)
    diffs = content.read_diffs(directory / "p.patch")
    assert set(diffs) == {"file"}
    assert content.apply_diff(old, diffs["file"]) == new
    assert content.apply_diff(new, diffs["file"], reverse=True) == old


def test_a_hunk_that_does_not_fit_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.patch").write_bytes(git_diff(tmp_path, b"1\n" * 9 + b"old\n", b"1\n" * 9 + b"new\n"))
    diff = content.read_diffs(tmp_path / "p.patch")["file"]
    # The same lines one further down: git would take them at an offset, which nobody sees.
    with pytest.raises(UsageError, match="line 7 does not fit"):
        content.apply_diff(b"1\n" * 10 + b"old\n", diff)


def test_a_truncated_patch_is_refused(tmp_path: Path) -> None:
    text = git_diff(tmp_path, b"1\n2\n3\n", b"1\nx\n3\n")
    (tmp_path / "p.patch").write_bytes(text[: text.index(b"+x")])
    with pytest.raises(UsageError, match=r"p\.patch:7: truncated: the file ends in the hunk of line 5"):
        content.read_diffs(tmp_path / "p.patch")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("diff --git a/x b/y\nrename from x\nrename to y\n", ":1: a rename, and a series has none"),
        (
            "diff --git a/x b/x\ndeleted file mode 100644\ndiff --git a/x b/x\nnew file mode 120000\n"
            "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+y\n\\ No newline at end of file\n",
            ":3: x changes its type",
        ),
    ],
)
def test_what_no_series_can_say_is_refused(tmp_path: Path, patch: str, message: str) -> None:
    (tmp_path / "p.patch").write_text(patch)
    with pytest.raises(UsageError, match=message):
        content.read_diffs(tmp_path / "p.patch")
