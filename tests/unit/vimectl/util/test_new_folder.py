from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.util.new_folder import new_folder


@pytest.mark.parametrize("kind", ["new", "nested", "empty"])
def test_folder_is_complete(kind: str, tmp_path: Path) -> None:
    out = tmp_path / ("a/b/out" if kind == "nested" else "out")
    if kind == "empty":
        out.mkdir()
    with new_folder(out) as write:
        write("one", b"1")
        write("deep/er/two", b"2")
        assert not out.exists() or not any(out.iterdir())
    assert (out / "one").read_bytes() + (out / "deep/er/two").read_bytes() == b"12"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["dangling link", "link", "file", "full"])
def test_what_is_there_is_refused(kind: str, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    if kind == "file":
        out.touch()
    elif kind == "full":
        (out / "x").mkdir(parents=True)
    else:
        out.symlink_to(other)
        if kind == "link":
            other.mkdir()
    with (
        pytest.raises(UsageError, match="is a link" if "link" in kind else "exists already"),
        new_folder(out),
    ):
        pass
    assert not other.exists() or not any(other.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_error_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    expected = MissingRequirement if isinstance(error, OSError) else KeyboardInterrupt

    def fail() -> None:
        with new_folder(tmp_path / "a" / "out") as write:
            write("deep/one", b"1")
            raise error

    with pytest.raises(expected):
        fail()
    assert not any(tmp_path.iterdir())
