"""A small real environment: wheels of this interpreter's build tools and of two invented packages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.version import Version
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import UsageError

from harness.wheels import write_wheel
from vimectl.env.create import STATE_FILE, WORK_DIR, create_environment, read_state, write_state
from vimectl.env.site_packages import site_packages, to_install
from vimectl.env.vimectl_wheel import repack
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import Stack
from vimectl.util.toml import validate

# The requirements of an editable install of this checkout in the new environment.
BUILD = ["pip", "hatchling", "editables", "packaging", "pathspec", "pluggy", "trove-classifiers"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        Version(version("pip")) < Version("25"), reason="needs the pip of the lock in the test environment"
    ),
]


def tiny_wheel(folder: Path, name: str, release: str, content: str = "") -> Path:
    """Make a minimal wheel with one module."""
    text = content or f"version = {release!r}\n"
    return write_wheel(folder, name, release, {f"{name}.py": text.encode()})


def lock_of(path: Path, wheels: list[Path]) -> Path:
    lines = []
    for wheel in wheels:
        name, release = wheel.name.split("-")[:2]
        lines.append(f"{name}=={release} --hash=sha256:{sha256_file(wheel)}\n")
    path.write_text("".join(lines))
    return path


def tiny_stack(name: str = "tiny") -> Stack:
    return validate(
        Stack,
        {
            "stack": {
                "name": name,
                "description": "two invented packages",
                "device": "cpu",
                "python": f"=={sys.version_info.major}.{sys.version_info.minor}.*",
                "machines": ["x86_64", "aarch64"],
            },
            "packages": {"alpha": "1.0", "beta": "1.0"},
            "notes": {"packages": "a test", "python": "a test", "machines": "a test"},
        },
        "test",
    )


CREATE = """
import sys
from pathlib import Path
from test_create import tiny_stack
from vimectl.env.create import create_environment
create_environment(Path(sys.argv[1]), tiny_stack(), Path(sys.argv[2]), lambda now: None)
"""


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
def _user_configuration(wheelhouse: Path) -> object:
    """Configure pip to find wheels in one directory only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(wheelhouse))
        yield


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, lock: Path) -> Path:
    """An environment whose creation was killed at three moments and then resumed."""
    directory = tmp_path_factory.mktemp("environments") / "env"
    site = directory / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    moments = [
        lambda: (directory / "pyvenv.cfg").is_file(),
        lambda: any((directory / WORK_DIR / "wheels").glob("alpha*")),
        lambda: any(site.glob("alpha-1.0.dist-info")),
    ]
    for moment in moments:
        kill_at(moment, directory, lock)
        assert read_state(directory).phase != "complete"
    made = create_environment(directory, tiny_stack(), lock, lambda now: None)
    assert made.packages == len(read_lock(lock))
    return directory


def kill_at(moment: object, directory: Path, lock: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CREATE, str(directory), str(lock)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    deadline = time.monotonic() + 180  # the second moment takes a minute on a busy machine
    while not moment():
        assert child.poll() is None, "finished before the moment to kill it"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_creation_resumes_after_being_killed(environment: Path, lock: Path) -> None:
    site = site_packages(environment)
    assert to_install(read_lock(lock).values(), site, thorough=True) == []
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


def test_half_installed_package_is_installed_again(environment: Path, lock: Path) -> None:
    site = site_packages(environment)
    (site / "alpha.py").write_text("")  # shorter than in its RECORD
    (site / "beta-1.0.dist-info" / "RECORD").unlink()
    (site / "~eta").mkdir()
    state = read_state(environment)
    write_state(environment, type(state)(state.stack, state.lock, "packages", state.packages, state.tool))
    made = create_environment(environment, tiny_stack(), lock, lambda now: None)
    assert made.installed == 2
    assert "1.0" in (site / "alpha.py").read_text()
    assert not (site / "~eta").exists()


def test_other_lock_updates_packages_and_removes_the_rest(
    environment: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    kept = [w for w in wheelhouse.glob("*.whl") if not w.name.startswith(("alpha-1", "beta"))]
    site = site_packages(environment)
    (site / "editables" / "__init__.py").write_text("")  # damaged by hand: repaired by the update
    made = create_environment(environment, tiny_stack(), lock_of(tmp_path / "lock", kept), lambda now: None)
    assert made.installed == 2
    assert "2.0" in (site / "alpha.py").read_text()
    assert (site / "editables" / "__init__.py").read_text()
    assert not (site / "beta.py").exists()


def test_environment_of_another_stack_is_refused(environment: Path, lock: Path) -> None:
    with pytest.raises(UsageError, match="holds the stack tiny"):
        create_environment(environment, tiny_stack("other"), lock, lambda now: None)


def test_directory_of_the_user_is_refused_and_unchanged(tmp_path: Path, lock: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="was not made by vimectl"):
        create_environment(tmp_path, tiny_stack(), lock, lambda now: None)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
