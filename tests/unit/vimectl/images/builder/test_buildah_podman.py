"""Calls of Buildah and Podman; a script replaces them, because they are not installed everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.images.fake_builder import FakeBuilder
from vimectl.images.builder.base import Builder
from vimectl.images.builder.programs import Buildah, Podman
from vimectl.util.host import Host

BEHAVIOR = """\
if arguments[0] in ("containers", "ps"):
    name = "vimectl-build-working-container"
    print(json.dumps([{"containername": one, "Names": [one]} for one in (name, name + "-1", "other")]))
elif "inspect" in arguments:
    print(json.dumps([{"Id": "a" * 64}]))
elif arguments[0] == "build":
    print("STEP 1/2: RUN something\\nworking")
    (id_file,) = (a.partition("=")[2] for a in arguments if a.startswith("--iidfile="))
    Path(id_file).write_text("sha256:" + "c" * 64)
    sys.exit((here / "fails").exists())
"""


@pytest.fixture(params=[Buildah, Podman])
def builder(request: pytest.FixtureRequest) -> Builder:
    return request.param(Host())


@pytest.fixture
def fake(builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    return FakeBuilder(tmp_path, builder.name, BEHAVIOR, monkeypatch)


def test_build_uses_the_alias_and_removes_the_leftovers(builder: Builder, fake: FakeBuilder) -> None:
    assert builder.build(fake.job(), lambda line: None) == "c" * 64
    (command,) = (call for call in fake.calls() if call[0] == "build")
    assert ["tag", "quay.io/x", "localhost/vimectl-build"] in fake.calls()
    assert {
        *("--build-arg=BASE_IMAGE=localhost/vimectl-build", "--build-arg=STACK=own"),
        *("--build-arg=SOURCE_DATE_EPOCH=1", "--timestamp", "--layers=false", "--force-rm"),
    } <= set(command)
    removed = [call[-1] for call in fake.calls() if call[0] == "rm"]
    assert removed == 2 * ["vimectl-build-working-container", "vimectl-build-working-container-1"]
    assert fake.calls()[-1][-1] == "localhost/vimectl-build"
    assert "working" in (fake.here / "log").read_text()


def test_failed_build_removes_its_image(builder: Builder, fake: FakeBuilder) -> None:
    (fake.here / "fails").touch()
    with pytest.raises(CheckFailed, match=r"step: STEP 1/2: RUN something"):
        builder.build(fake.job(), lambda line: None)
    assert ["rmi", "--force", f"sha256:{'c' * 64}"] in fake.calls()
