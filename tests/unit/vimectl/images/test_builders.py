"""The command lines of Docker, Podman and Buildah; scripts replace them, because no machine has all three."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import IO

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError, VimeError

from harness.images.fake_builder import FakeBuilder
from vimectl.images.builders import ARCHITECTURES, Builder, ImageIdentity, choose_builder
from vimectl.util.host import Host

ID, DIGEST = "a" * 64, f"sha256:{'b' * 64}"
HERE = ARCHITECTURES[platform.machine()]
# Images are files below "images", with what `inspect` prints.
BEHAVIOR = """\
images = here / "images"
images.mkdir(exist_ok=True)
def image(name):
    return images / name.replace("/", "%")
command = [word for word in arguments if not word.startswith("--")]
if arguments[0].endswith("version"):
    if (here / "down").exists():
        sys.exit("\\nCannot connect to the Docker daemon at unix:///var/run/docker.sock.\\nIs it running?")
    print("builder version 28.2.2, build e6534b4")
elif command[0] == "buildx":
    if (here / "old").exists():
        sys.exit("docker: 'buildx' is not a docker command.")
elif command[0] == "unshare":
    sys.exit(1)
elif command[0] == "inspect":
    if not image(command[-1]).exists():
        sys.exit("Error: No such image")
    print(image(command[-1]).read_text())
elif command[0] == "pull":
    print("a2f: Pull complete")
    image(command[-1]).write_text((here / "pulled").read_text())
elif command[0] == "tag":
    image(command[2]).write_text(image(command[1]).read_text())
elif command[0] in ("containers", "ps"):
    name = "vimectl-build-base-working-container"
    print("\\n".join(["other", "vimectl-build-basement", *([name, name + "-1"] if here.stat() else [])]))
elif command[0] == "rmi":
    image(command[1]).unlink()
elif command[0] == "build":
    print("#7 [built 3/9] RUN something\\n#7 0.1 working")
    (name,) = (word.partition("=")[2] for word in arguments if word.startswith("--tag="))
    image(name).write_text("ok")
    if (here / "fails").exists():
        print('#7 ERROR: process "something" did not complete successfully: exit code: 1')
        sys.exit(1)
"""
PROGRAMS = ("docker", "podman", "buildah")
DAEMONLESS = PROGRAMS[1:]


@pytest.fixture(params=PROGRAMS)
def builder(request: pytest.FixtureRequest) -> Builder:
    return Builder(request.param, Host())


@pytest.fixture
def fake(builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    made = FakeBuilder(tmp_path, builder.name, BEHAVIOR, monkeypatch)
    (tmp_path / "pulled").write_text(f"sha256:{ID} {HERE} quay.io/x@{DIGEST}\n")
    return made


@pytest.fixture
def lock() -> IO[bytes]:
    return tempfile.TemporaryFile()


def pull(builder: Builder, fake: FakeBuilder, lines: list[str], image: str = "quay.io/x") -> ImageIdentity:
    return builder.pull(image, platform.machine(), fake.here / "log", lines.append)


def images(fake: FakeBuilder) -> set[str]:
    return {path.name.replace("%", "/") for path in (fake.here / "images").iterdir()}


def test_first_that_works_is_chosen_and_has_a_version(builder: Builder, fake: FakeBuilder) -> None:
    chosen = choose_builder("auto" if builder.name == "docker" else builder.name, Host())
    assert (chosen.name, chosen.version) == (builder.name, "28.2.2")


def test_missing_base_image_is_pulled_for_the_machine(builder: Builder, fake: FakeBuilder) -> None:
    lines: list[str] = []
    assert pull(builder, fake, lines) == (ID, HERE, DIGEST)
    assert lines == ["pulling quay.io/x", "a2f: Pull complete"]
    assert fake.calls()[1] == ["pull", f"--platform=linux/{HERE}", "quay.io/x"]
    assert pull(builder, fake, lines) == (ID, HERE, DIGEST)
    assert len(lines) == 2


def test_base_image_for_another_architecture_is_refused(builder: Builder, fake: FakeBuilder) -> None:
    (fake.here / "pulled").write_text(f"{ID} s390x {DIGEST}\n")
    with pytest.raises(CheckFailed, match=f"quay.io/x on this machine is for s390x, needed {HERE}") as error:
        pull(builder, fake, [])
    assert f"{builder.name} pull --platform=linux/{HERE} quay.io/x" in error.value.hint


def test_base_image_named_by_its_id_is_refused(builder: Builder, fake: FakeBuilder) -> None:
    (fake.here / "pulled").write_text(f"{ID} {HERE}\n")
    for name in (ID[:12], f"sha256:{ID}"):
        with pytest.raises(UsageError, match="is the id of an image") as error:
            pull(builder, fake, [], name)
        assert f"{builder.name} tag {name} NAME" in error.value.hint


def test_build_for_another_machine(builder: Builder, fake: FakeBuilder, lock: IO[bytes]) -> None:
    job = fake.job(lock.fileno(), machine="aarch64")
    pull(builder, fake, [])
    with builder.build(job, lambda line: None):
        (called,) = [call for call in fake.calls() if call[0] == "build"]
        assert "--platform=linux/arm64" in called


@pytest.mark.parametrize("epoch", [None, 1])
def test_build_has_a_temporary_name(
    epoch: int | None, builder: Builder, fake: FakeBuilder, lock: IO[bytes]
) -> None:
    pull(builder, fake, [])
    with builder.build(fake.job(lock.fileno(), epoch), lambda line: None) as image:
        builder.tag(image, "vimectl:own")
        (called,) = [call for call in fake.calls() if call[0] == "build"]
    base = "quay.io/x" if builder.name == "docker" else "localhost/vimectl-build-base"
    assert {f"--build-arg=BASE_IMAGE={base}", "--build-arg=STACK=own", f"--tag={image}"} <= set(called)
    assert ("--build-arg=SOURCE_DATE_EPOCH=1" in called) == (epoch == 1)
    assert ("--timestamp=1" in called) == (epoch == 1 and builder.name in DAEMONLESS)
    assert called[-1] == str(fake.here / "context")
    assert "#7 0.1 working" in (fake.here / "log").read_text()
    assert images(fake) == {"quay.io/x", "vimectl:own"}


def test_failed_build_leaves_nothing(builder: Builder, fake: FakeBuilder, lock: IO[bytes]) -> None:
    (fake.here / "fails").touch()
    pull(builder, fake, [])
    with (
        pytest.raises(CheckFailed, match=r"step: #7 \[built 3/9\] RUN something"),
        builder.build(fake.job(lock.fileno()), lambda line: None),
    ):
        pass
    assert images(fake) == {"quay.io/x"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CheckFailed("no", "none")])
def test_image_without_a_tag_is_removed(
    error: BaseException, builder: Builder, fake: FakeBuilder, lock: IO[bytes]
) -> None:
    pull(builder, fake, [])
    with pytest.raises(type(error)), builder.build(fake.job(lock.fileno()), lambda line: None):
        raise error
    assert images(fake) == {"quay.io/x"}


@pytest.mark.parametrize("builder", [Builder(name, Host()) for name in DAEMONLESS], ids=DAEMONLESS)
def test_leftovers_of_a_killed_build_are_removed(
    builder: Builder, fake: FakeBuilder, lock: IO[bytes]
) -> None:
    pull(builder, fake, [])
    (fake.here / "images/localhost%vimectl-build-result").write_text("of a killed build")
    before = len(fake.calls())
    with builder.build(fake.job(lock.fileno()), lambda line: None):
        pass
    calls = fake.calls()[before:]
    tagged = calls.index(["tag", "quay.io/x", "localhost/vimectl-build-base"])
    removed = [call[-1] for call in calls[:tagged]]
    assert removed[1:] == [
        *("vimectl-build-base-working-container", "vimectl-build-base-working-container-1"),
        *("localhost/vimectl-build-result", "localhost/vimectl-build-base"),
    ]
    assert images(fake) == {"quay.io/x"}


@pytest.mark.parametrize("builder", [Builder("docker", Host())])
@pytest.mark.parametrize(
    ("state", "message"),
    [("down", "Cannot connect to the Docker daemon at"), ("old", "'buildx' is not a docker")],
)
def test_client_without_daemon_or_buildx_does_not_work(
    state: str, message: str, builder: Builder, fake: FakeBuilder
) -> None:
    (fake.here / state).touch()
    with pytest.raises(MissingRequirement, match=f"this machine: docker: .*{message}"):
        choose_builder(builder.name, Host())


def test_error_of_the_program_is_shown(builder: Builder, fake: FakeBuilder, lock: IO[bytes]) -> None:
    with (
        pytest.raises(VimeError) as error,
        builder.build(fake.job(lock.fileno()), lambda line: None) as image,
    ):
        builder.tag("none", image)  # the base image is absent
    assert f"{builder.name} tag" in error.value.message
    assert "No such file" in error.value.message
