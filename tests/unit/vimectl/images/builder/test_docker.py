"""Calls of Docker and its answers; a script replaces docker, because no daemon can run here."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.images.fake_builder import FakeBuilder
from vimectl.images.builder.programs import Docker, choose_builder
from vimectl.util.host import Host

BEHAVIOR = """\
if (here / "down").exists() and arguments[0] == "version":
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
if (here / "old").exists() and arguments[0] == "buildx":
    sys.exit("docker: 'buildx' is not a docker command.")
if arguments[:2] == ["image", "inspect"]:
    if not (here / "there").exists():
        sys.exit("Error: No such image")
    print(json.dumps([{
        "Id": "sha256:" + "a" * 64, "RepoDigests": ["quay.io/x@sha256:" + "b" * 64], "Architecture": "arm64",
        "Config": {"Env": ["PATH=/bin", "A=b=c"], "Labels": {"vimectl.stack": "own"}, "User": "1001:1000",
                   "Entrypoint": ["/e"], "Cmd": ["c"]},
    }]))
elif arguments[0] == "pull":
    print("a2f: Pull complete")
    (here / "there").touch()
elif arguments[:2] == ["buildx", "build"]:
    print("#7 [built 3/9] RUN something\\n#7 0.1 working")
    if (here / "fails").exists():
        print('#7 ERROR: process "something" did not complete successfully: exit code: 1')
        sys.exit(1)
    (written,) = (a.partition("=")[2] for a in arguments if a.startswith("--iidfile="))
    Path(written).write_text("sha256:" + "a" * 64)
elif arguments[0] == "create":
    print("c0ffee")
elif arguments[0] == "export":
    with tarfile.open(arguments[1].partition("=")[2], "w") as archive:
        member = tarfile.TarInfo("opt/file")
        member.size = 7
        archive.addfile(member, io.BytesIO(b"content"))
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    return FakeBuilder(tmp_path, "docker", BEHAVIOR, monkeypatch)


def test_docker_is_preferred_when_it_works(docker: FakeBuilder) -> None:
    assert choose_builder("auto", Host()).name == "docker"


@pytest.mark.parametrize(
    ("state", "message"), [("down", "Cannot connect"), ("old", "'buildx' is not a docker")]
)
def test_client_without_daemon_or_buildx_is_unusable(state: str, message: str, docker: FakeBuilder) -> None:
    (docker.here / state).touch()
    assert message in str(Docker(Host()).unusable())
    with pytest.raises(MissingRequirement, match=message):
        choose_builder("docker", Host())


def test_missing_base_image_is_pulled(docker: FakeBuilder) -> None:
    lines: list[str] = []
    assert Docker(Host()).base_digest(docker.job(), lines.append) == f"sha256:{'b' * 64}"
    assert lines == ["pulling quay.io/x", "a2f: Pull complete"]
    assert [call[0] for call in docker.calls()] == ["image", "pull", "image"]


def test_build_has_no_network_and_no_tag(docker: FakeBuilder) -> None:
    assert Docker(Host()).build(docker.job(), lambda line: None) == f"sha256:{'a' * 64}"
    (called,) = docker.calls()
    assert called[:2] == ["buildx", "build"]
    assert {"--network=none", "--build-arg=BASE_IMAGE=quay.io/x", "--build-arg=STACK=own"} <= set(called)
    assert "--build-arg=SOURCE_DATE_EPOCH=1" in called
    assert called[-1] == str(docker.here / "context")
    assert not any(text.startswith(("--tag", "-t")) for text in called)
    assert "#7 0.1 working" in (docker.here / "log").read_text()


def test_no_epoch_argument_without_an_epoch(docker: FakeBuilder) -> None:
    Docker(Host()).build(docker.job(epoch=None), lambda line: None)
    assert not any("SOURCE_DATE_EPOCH" in text for text in docker.calls()[0])


def test_failed_step_is_named(docker: FakeBuilder) -> None:
    (docker.here / "fails").touch()
    with pytest.raises(CheckFailed, match=r"step: #7 \[built 3/9\] RUN something"):
        Docker(Host()).build(docker.job(), lambda line: None)


def test_configuration_is_parsed(docker: FakeBuilder) -> None:
    with pytest.raises(UsageError, match="no image own"):
        Docker(Host()).configuration("own")
    (docker.here / "there").touch()
    found = Docker(Host()).configuration("own")
    assert found.digest == "a" * 64
    assert found.environment == {"PATH": "/bin", "A": "b=c"}
    assert (found.labels, found.user, found.machine) == ({"vimectl.stack": "own"}, "1001:1000", "arm64")


def test_mounted_tree_is_exported_and_the_container_removed(docker: FakeBuilder) -> None:
    (docker.here / "work").mkdir()
    with Docker(Host()).mounted("own", docker.here / "work") as root:
        assert (root / "opt/file").read_text() == "content"
    assert docker.calls()[-1] == ["rm", "--force", "c0ffee"]
