"""An image built and verified with buildah by a user who is not root."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import TESTS
from harness.images import fake_base
from harness.images.image_store import EPOCH, ImageStore
from harness.needs import unavailable
from harness.other_users import User, give

pytestmark = [pytest.mark.slow, pytest.mark.needs("network")]

SCRIPT = TESTS / "harness/images/rootless.sh"
UNPRIVILEGED = 4321
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def user(images: ImageStore, stand_in_stack: Path, stand_in_folder: Path) -> Iterator[User]:
    """A user with the fake base, the stack and its sources in the home directory."""
    home = Path(tempfile.mkdtemp(prefix="vimectl-user-"))  # other users cannot enter the folders of pytest
    home.chmod(0o755)
    (home / "tmp").mkdir()
    shutil.copytree(stand_in_stack.parent, home / "stack")
    shutil.copytree(stand_in_folder, home / "sources")
    images.buildah("push", "--quiet", fake_base.IMAGE, f"docker-archive:{home}/base.tar:{fake_base.IMAGE}")
    found = User(UNPRIVILEGED, UNPRIVILEGED, home)
    give(found, home)
    yield found
    shutil.rmtree(home)


@pytest.fixture
def run(user: User) -> Run:
    """Return a function that runs a command as the user."""

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        apart = ["unshare", "--mount", "--propagation=private", "bash", str(SCRIPT)]
        whole = [*apart, str(user.home), str(user.uid), sys.base_prefix, *map(str, command)]
        variables = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
        return subprocess.run(whole, env=variables, cwd=user.home, capture_output=True, text=True)

    if (done := run("buildah", "unshare", "true")).returncode:
        unavailable(f"no user namespaces: {done.stderr}")
    return run


def test_build_and_verification_need_no_root(
    run: Run, user: User, images: ImageStore, stand_in_stack: Path, stand_in_image: str
) -> None:
    assert run("buildah", "pull", "--quiet", f"docker-archive:{user.home}/base.tar").returncode == 0
    stack, base = user.home / "stack" / stand_in_stack.name, ("--base", fake_base.IMAGE)
    image = [sys.executable, "-m", "vimectl", "image"]
    more = ("--builder", "buildah", "--stand-in")
    done = run(
        *image, "build", "--stack", stack, "--offline", user.home / "sources", "--tag", "own", *base, *more
    )
    assert done.returncode == 0, done.stderr
    done = run(*image, "verify", "own", "--tree", "--json", *more)
    found = json.loads(done.stdout)
    assert found["problems"] == [], done.stderr
    # The files and their owners are those of the image that root builds.
    assert found["tree"] == images.verify(stand_in_image, "--stand-in", "--tree")["tree"]
    assert run("buildah", "containers", "--all", "--quiet").stdout == ""
    assert "vimectl-build" not in run("buildah", "images").stdout
    assert [*(user.home / "tmp").iterdir()] == []
