"""A stack whose every source is on this machine."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from own_stack import STACK, Own, commit, git

from vimectl import provision
from vimectl.digest import sha256


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this vimectl, made once: that takes a second or two."""
    pytest.importorskip("hatchling", reason="makes the wheel of vimectl itself from a checkout")
    return provision.own_wheel(tmp_path_factory.mktemp("tool"))


@pytest.fixture
def own(tmp_path: Path, tool: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    """A stack whose every source is on this machine; pip and git are configured with nothing else."""
    monkeypatch.setattr(provision, "own_wheel", lambda folder: Path(shutil.copy(tool, folder)))
    repository = tmp_path / "trainer"
    (repository / "package").mkdir(parents=True)
    git(repository, "init", "-q")
    (repository / "package" / "__init__.py").write_text("version = 1\n")
    (repository / "build.sh").write_text("#!/bin/sh\n")
    (repository / "build.sh").chmod(0o755)
    (repository / "link").symlink_to("package/__init__.py")
    # What git archive would leave out, or change.
    (repository / ".gitattributes").write_text("build.sh export-ignore\nstamp export-subst\n")
    (repository / "stamp").write_text("$Format:%H$\n")
    first = commit(repository, "first")
    (repository / "package" / "__init__.py").write_text("version = 2\n")
    commit(repository, "second")

    links = tmp_path / "links"
    links.mkdir()
    wheel = links / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n"
        )
        archive.writestr("weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("weights-1.0.dist-info/RECORD", "")
    (tmp_path / "own.txt").write_text(f"weights==1.0 --hash=sha256:{sha256(wheel)}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")

    file = tmp_path / "own.toml"
    file.write_text(STACK.format(trainer=repository, commit=first))
    return Own(file, repository, first, links)
