"""A small real environment: wheels of this interpreter's build tools and of two invented packages."""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError

from harness.git import commit
from harness.memory_saver.elf_file import ElfFile
from harness.tiny_stack import lock_of, tiny_stack, tiny_wheel
from harness.wheels import write_wheel
from vimectl.env.create import (
    STATE_FILE,
    WORK_DIR,
    create_environment,
    read_state,
    stack_with_lock,
    write_state,
)
from vimectl.env.memory_saver import pinned_build
from vimectl.env.memory_saver.verify import verify_path
from vimectl.env.site_packages import incomplete, site_packages
from vimectl.env.vimectl_wheel import repack
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import MemorySaverSource, Stack
from vimectl.util.host import Host

# The requirements of an editable install of this checkout in the new environment.
BUILD = ["hatchling", "editables", "packaging", "pathspec", "pluggy", "trove-classifiers"]

pytestmark = pytest.mark.slow


CREATE = """
import sys
from pathlib import Path
from harness.tiny_stack import tiny_stack
from vimectl.env.create import create_environment
from vimectl.stacks.catalog import load_stack
directory, lock, name = sys.argv[1:]
stack = tiny_stack() if name == "tiny" else load_stack(name)
create_environment(Path(directory), stack, Path(lock), lambda now: None)
"""
# Of the user, whose sources have a whole stack.
USER = dict(os.environ)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    for name in BUILD + (["tomli"] if sys.version_info < (3, 11) else []):
        try:
            repack(distribution(name), folder)
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed in the test environment")
    for name in ("alpha", "beta"):
        tiny_wheel(folder, name, "1.0")
    tiny_wheel(folder, "alpha", "2.0")
    return folder


@pytest.fixture(scope="module")
def lock(wheelhouse: Path) -> Path:
    return lock_of(wheelhouse / "lock.txt", [w for w in wheelhouse.glob("*.whl") if "alpha-2" not in w.name])


@pytest.fixture(scope="module", autouse=True)
def _user_configuration(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> object:
    """Configure pip to find wheels in one directory only, and start with empty caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheelhouse))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, lock: Path) -> Path:
    """An environment whose creation was killed at three moments and then resumed."""
    directory = tmp_path_factory.mktemp("environments") / "env"
    site = directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    moments = [
        lambda: (directory / "pyvenv.cfg").is_file(),
        lambda: any(site.glob("alpha-1.0.dist-info")),
        lambda: any(site.glob("vimectl-*.dist-info")),
    ]
    for moment in moments:
        kill_at(moment, directory, lock)
        assert read_state(directory).phase == "creating"
    made = create_environment(directory, tiny_stack(), lock, lambda now: None)
    assert made.packages == len(read_lock(lock))
    return directory


def start(directory: Path, lock: Path, stack: str = "tiny") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", CREATE, directory, lock, stack], env=environment)


def kill_at(moment: Callable[[], bool], directory: Path, lock: Path) -> None:
    child = start(directory, lock)
    deadline = time.monotonic() + 180  # ends a hang
    while not moment():
        assert child.poll() is None, "finished before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_creation_resumes_after_being_killed(environment: Path, lock: Path) -> None:
    site = site_packages(environment)
    assert incomplete(read_lock(lock).values(), site, digests=True) == []
    assert read_state(environment).phase == "complete"
    assert not (environment / WORK_DIR).exists()
    code = "import alpha, beta, vime_runtime; print(vime_runtime.__file__)"
    output = subprocess.check_output([environment / "bin" / "python", "-c", code], text=True)
    assert output.strip().endswith("runtime/vime_runtime/__init__.py")
    assert (environment / "bin" / "vimectl").is_file()
    assert list((site / "__pycache__").glob("alpha.*.pyc"))


def test_complete_environment_is_unchanged(environment: Path, lock: Path) -> None:
    before = (environment / STATE_FILE).stat().st_mtime_ns
    assert create_environment(environment, tiny_stack(), lock, lambda now: None).installed == 0
    assert (environment / STATE_FILE).stat().st_mtime_ns == before


def test_creation_that_is_killed_at_random_moments(lock: Path, tmp_path: Path) -> None:
    kill_at_random_moments(tmp_path / "env", tiny_stack(), lock)


@pytest.mark.exhaustive
@pytest.mark.needs("network")
def test_creation_of_a_stack_that_is_killed_at_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_CONFIG_FILE", "PIP_NO_INDEX", "PIP_FIND_LINKS"):
        value = USER.get(name)
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    kill_at_random_moments(tmp_path / "env", *stack_with_lock("cpu-0.32"))


def kill_at_random_moments(directory: Path, stack: Stack, lock: Path) -> None:
    """Kill ten creations; create the environment after each, and compare it with an undisturbed one."""
    create_environment(directory, stack, lock, lambda now: None)
    shutil.rmtree(directory)
    began = time.monotonic()  # with a filled cache, as all later ones
    create_environment(directory, stack, lock, lambda now: None)
    seconds = time.monotonic() - began
    expected = digests(directory)
    assert [name for name in expected if name.endswith(".dist-info/RECORD")]
    for seed in range(10):
        # In the same directory, because scripts and byte code have its path.
        shutil.rmtree(directory)
        child = start(directory, lock, stack.name)
        time.sleep(random.Random(seed).uniform(0.2, 1.2) * seconds)
        child.kill()
        child.wait()
        create_environment(directory, stack, lock, lambda now: None)
        assert digests(directory) == expected


def digests(environment: Path) -> dict[str, str]:
    """Return the digests of the files of an environment by path.

    Of byte code and of uv's notes about the checkout only the paths: they have the time of a file.
    """
    found = {}
    for path in filter(Path.is_file, environment.rglob("*")):
        timed = path.suffix == ".pyc" or path.name == "uv_cache.json" or "vimectl-" in path.parent.name
        found[str(path.relative_to(environment))] = "" if timed else sha256_file(path)
    return found


def test_damaged_package_is_installed_again(environment: Path, lock: Path) -> None:
    site = site_packages(environment)
    (site / "beta-1.0.dist-info" / "RECORD").unlink()
    for name in ("alpha", "editables/__init__"):
        # In place and so in uv's cache as well; as long as before, so that only the digest tells.
        size = (site / f"{name}.py").stat().st_size
        (site / f"{name}.py").write_bytes(b" " * size)
    (site / "alpha-1.0.dist-info" / "RECORD").write_text("")
    interrupt_update(environment, ["editables"])
    made = create_environment(environment, tiny_stack(), lock, lambda now: None)
    assert made.installed == 3
    assert "1.0" in (site / "alpha.py").read_text()
    assert (site / "editables" / "__init__.py").read_text().strip()
    assert incomplete(read_lock(lock).values(), site, digests=True) == []


def interrupt_update(environment: Path, pending: list[str]) -> None:
    state = read_state(environment)
    write_state(environment, dataclasses.replace(state, phase="updating", pending=pending))


def test_packages_of_the_user_survive_an_interrupted_update(
    environment: Path, lock: Path, tmp_path: Path
) -> None:
    site = site_packages(environment)
    (site / "mine.py").write_text("mine")
    interrupt_update(environment, [])
    create_environment(environment, tiny_stack(), lock, lambda now: None)
    assert (site / "mine.py").read_text() == "mine"


def test_files_of_patched_packages_are_not_shared(lock: Path, tmp_path: Path) -> None:
    stack = tiny_stack().model_copy(update={"patches": {"beta": ["1.0"]}})
    create_environment(tmp_path / "env", stack, lock, lambda now: None)
    site = site_packages(tmp_path / "env")
    assert (site / "beta.py").stat().st_nlink == 1
    assert (site / "alpha.py").stat().st_nlink > 1


def test_other_lock_updates_packages_and_removes_the_rest(
    environment: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    kept = [w for w in wheelhouse.glob("*.whl") if not w.name.startswith(("alpha-1", "beta"))]
    site = site_packages(environment)
    edited = site / "editables" / "__init__.py"
    edited.unlink()  # damaged by hand: repaired by the update
    made = create_environment(environment, tiny_stack(), lock_of(tmp_path / "lock", kept), lambda now: None)
    assert made.installed == 2
    assert "2.0" in (site / "alpha.py").read_text()
    assert edited.read_text()
    assert not (site / "beta.py").exists()


# A build backend that returns a wheel.
SAVER_BACKEND = """
import shutil
from pathlib import Path

def build_wheel(folder, settings=None, metadata=None):
    (wheel,) = Path(".").glob("*.whl")
    return Path(shutil.copy(wheel, folder)).name
"""


@pytest.fixture
def stack_with_saver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ElfFile], Stack]:
    """A machine with CANN and a compiler, and a stack that pins a source of the memory saver."""
    (tmp_path / "cann").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "g++").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(tmp_path / "cann"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def make(library: ElfFile) -> Stack:
        folder = tmp_path / "saver" / pinned_build.FOLDER
        files = {"torch_memory_saver_hook_mode_torch.abi3.so": library.content()}
        write_wheel(folder, "torch_memory_saver", "1.0", files)
        (folder / "backend.py").write_text(SAVER_BACKEND)
        build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        (folder / "pyproject.toml").write_text(build)
        source = MemorySaverSource.model_construct(
            url=str(tmp_path / "saver"), commit=commit(tmp_path / "saver"), tag="1.0", left_out=[]
        )
        return tiny_stack().model_copy(update={"memory_saver": source})

    return make


def test_memory_saver_that_is_built_here_is_known_good(
    stack_with_saver: Callable[[ElfFile], Stack], lock: Path, tmp_path: Path
) -> None:
    stack = stack_with_saver(ElfFile(machine=platform.machine()))
    create_environment(tmp_path / "env", stack, lock, lambda now: None)
    (build,) = verify_path(site_packages(tmp_path / "env"), Host(), stack)
    assert build.verdict == "known-good"
    assert build.note.startswith(f"built by vimectl env create from {stack.memory_saver.url} at ")


def test_memory_saver_that_is_built_without_an_accelerator_is_refused(
    stack_with_saver: Callable[[ElfFile], Stack], lock: Path, tmp_path: Path
) -> None:
    stack = stack_with_saver(ElfFile(machine=platform.machine(), needed=["libc.so.6"]))
    with pytest.raises(CheckFailed, match=r"abi3\.so: unknown: ") as caught:
        create_environment(tmp_path / "env", stack, lock, lambda now: None)
    assert stack.memory_saver.commit in caught.value.hint
    assert not (tmp_path / "config").exists()


def test_environment_of_another_stack_is_refused(environment: Path, lock: Path) -> None:
    with pytest.raises(UsageError, match="holds the stack tiny"):
        create_environment(environment, tiny_stack("other"), lock, lambda now: None)


def test_directory_of_the_user_is_refused_and_unchanged(tmp_path: Path, lock: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="was not made by vimectl"):
        create_environment(tmp_path, tiny_stack(), lock, lambda now: None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
