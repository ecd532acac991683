"""A stack whose sources are all on this machine, and an image built on a fake base image."""

from __future__ import annotations

import shutil
from pathlib import Path

import platformdirs
import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import MissingRequirement

from harness.git import two_commits
from harness.images import fake_sources
from harness.images.image_store import ImageStore
from harness.images.user_stack import STACK, UserStack
from harness.needs import require, unavailable
from harness.wheels import write_wheel
from vimectl.env import vimectl_wheel
from vimectl.images import vendor
from vimectl.images.plan import make_plan


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this vimectl, made once because it takes a second or two."""
    pytest.importorskip("hatchling", reason="makes the wheel of vimectl itself from a checkout")
    return vimectl_wheel.make_wheel(tmp_path_factory.mktemp("tool"))


@pytest.fixture
def own(tmp_path: Path, tool: Path, monkeypatch: pytest.MonkeyPatch) -> UserStack:
    """A stack whose sources are all on this machine; pip and git have no other source."""
    monkeypatch.setattr(vimectl_wheel, "make_wheel", lambda folder: Path(shutil.copy(tool, folder)))
    repository = tmp_path / "trainer"
    first = two_commits(repository)
    links = tmp_path / "links"
    wheel = write_wheel(links, "weights")
    (tmp_path / "own.txt").write_text(f"weights==1.0 --hash=sha256:{sha256_file(wheel)}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")

    file = tmp_path / "own.toml"
    file.write_text(STACK.format(trainer=repository, commit=first))
    return UserStack(file, repository, first, links)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """A store of images with the fake base images, which root makes with debootstrap."""
    for need in ("buildah", "debootstrap", "root"):
        require(need)
    return ImageStore.make(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def stand_in_stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack of the stand-in image; its repositories are on this machine."""
    return fake_sources.stack_file(tmp_path_factory.mktemp("repositories"))


@pytest.fixture(scope="session")
def stand_in_folder(stand_in_stack: Path) -> Path:
    """The source folder of the stand-in image. The wheels stay in the user's cache."""
    folder = Path(platformdirs.user_cache_dir("vimectl")) / "stand-in-sources"
    made = make_plan(str(stand_in_stack))
    try:
        vendor.collect(made, folder, lambda now: None)
    except MissingRequirement as e:
        unavailable(e.message)
    return folder


@pytest.fixture(scope="session")
def stand_in_image(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> str:
    """The tag of the image built on the fake base image."""
    done = images.build(stand_in_stack, stand_in_folder, "stand-in")
    assert done.returncode == 0, done.stdout + done.stderr
    return "stand-in"
