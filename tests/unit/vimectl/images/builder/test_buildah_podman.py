"""Calls of Buildah and Podman; a script replaces them, because they are not installed everywhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.images.builder.base import Builder, BuildJob
from vimectl.images.builder.programs import Buildah, Podman
from vimectl.util.host import Host

_PROGRAM = """\
#!{python}
import json, sys
from pathlib import Path
here, arguments = Path({here!r}), sys.argv[1:]
with (here / "called").open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
if arguments[0] in ("containers", "ps"):
    name = "vimectl-build-working-container"
    print(json.dumps([{{"containername": one, "Names": [one]}} for one in (name, name + "-1", "other")]))
elif "inspect" in arguments:
    print(json.dumps([{{"Id": "a" * 64}}]))
elif arguments[0] == "build":
    print("STEP 1/2: RUN something\\nworking")
    (id_file,) = (a.partition("=")[2] for a in arguments if a.startswith("--iidfile="))
    Path(id_file).write_text("sha256:" + "c" * 64)
    sys.exit((here / "fails").exists())
"""


@pytest.fixture(params=[Buildah, Podman])
def builder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / request.param.name
    program.write_text(_PROGRAM.format(python=sys.executable, here=str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return request.param(Host())


def job(folder: Path) -> BuildJob:
    (folder / "work").mkdir()
    return BuildJob(
        folder / "Dockerfile", folder, "base", {"STACK": "own"}, 5, folder / "work", folder / "log"
    )


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "called").read_text().splitlines()]


def test_build_uses_the_alias_and_removes_the_leftovers(builder: Builder, tmp_path: Path) -> None:
    assert builder.build(job(tmp_path), lambda line: None) == "c" * 64
    (command,) = (call for call in calls(tmp_path) if call[0] == "build")
    assert ["tag", "base", "localhost/vimectl-build"] in calls(tmp_path)
    assert {
        *("--build-arg=BASE_IMAGE=localhost/vimectl-build", "--build-arg=STACK=own"),
        *("--build-arg=SOURCE_DATE_EPOCH=5", "--timestamp", "--layers=false", "--force-rm"),
    } <= set(command)
    removed = [call[-1] for call in calls(tmp_path) if call[0] == "rm"]
    assert removed == 2 * ["vimectl-build-working-container", "vimectl-build-working-container-1"]
    assert calls(tmp_path)[-1][-1] == "localhost/vimectl-build"
    assert "working" in (tmp_path / "log").read_text()


def test_failed_build_removes_its_image(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    with pytest.raises(CheckFailed, match=r"step: STEP 1/2: RUN something"):
        builder.build(job(tmp_path), lambda line: None)
    assert ["rmi", "--force", f"sha256:{'c' * 64}"] in calls(tmp_path)
