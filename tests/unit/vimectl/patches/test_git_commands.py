from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import mounted_disk
from harness.patches.toy_packages import unpack
from vimectl.cli import run_cli
from vimectl.patches.git_commands import temporary_folder
from vimectl.patches.series import Series


@pytest.mark.needs("root")
@pytest.mark.parametrize("size", ["16k", "64k"])
def test_full_folder_for_temporary_files_is_named(
    size: str,
    toy_series: Series,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release, out = unpack(tmp_path / "release"), tmp_path / "out"
    command = ["--package", "toy", "--version", "1.0", "--against", str(release), "--out", str(out)]
    with mounted_disk(tmp_path / "disk", size) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        assert run_cli(["patch", "import", str(toy_series.directory), *command]) == 3
        printed = " ".join(capsys.readouterr().err.split())
        assert f"error: {disk}: no space left" in printed
        assert "name another folder with TMPDIR" in printed
        assert list(disk.iterdir()) == []
    assert not out.exists()


def test_without_a_folder_for_temporary_files_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    with pytest.raises(MissingRequirement, match="no folder for temporary files"), temporary_folder():
        pass
