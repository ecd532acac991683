"""Check, uninstall and reinstall a patched package with pip."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches import toy_packages
from harness.patches.toy_packages import snapshot
from harness.wheels import write_wheel
from vimectl.patches import command, distribution, edits
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import find_at

pytest.importorskip("pip")


def build_wheel(directory: Path, package: str, name: str, version: str = "1.0") -> Path:
    """Build a wheel of one of the rich packages, with any distribution name."""
    files = {path: content for path, (_, content) in toy_packages.rich(package)[0].items()}
    return write_wheel(directory, name, version, files)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    venv.create(tmp_path / "venv", symlinks=True)
    return tmp_path / "venv"


@pytest.fixture
def pip(environment: Path) -> Callable[..., str]:
    """Return a function that runs this interpreter's pip on the environment and fails when pip does."""

    def run(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def site(environment: Path) -> Path:
    return next(environment.glob("lib/python3*/site-packages"))


def status(place: Path, series: Series) -> TargetStatus:
    found = find_at(place, series.package, series.module)
    return classify(found, series)


def test_pip_works_on_a_patched_package(
    environment: Path,
    pip: Callable[..., str],
    tmp_path: Path,
    rich_series: dict[str, Series],
) -> None:
    wheel = build_wheel(tmp_path, "one", "one_local_build")
    install = ["install", "-q", "--no-index", "--no-deps"]
    empty = snapshot(site(environment))
    pip(*install, wheel)
    place, series = site(environment), rich_series["one"]
    released = snapshot(place)
    assert any(".pyc" in path for path in released)  # pip compiles

    assert status(place, series).state == "pristine"
    command.change("apply", [status(place, series)])
    pip("check")
    assert "one/fresh/deep/new.py" in pip("show", "-f", "one_local_build")
    subprocess.run([environment / "bin" / "python", "-c", "import one.both, one.new_name"], check=False)

    # After a reinstall it is pristine despite the recorded apply, and can be patched and reverted again.
    pip(*install, "--force-reinstall", wheel)
    assert status(place, series).state == "pristine"
    assert not (place / "one/fresh/deep/new.py").exists()
    command.change("apply", [status(place, series)])
    command.change("revert", [status(place, series)])
    pip("check")
    sources = {path: what for path, what in released.items() if ".pyc" not in path}
    assert {path: what for path, what in snapshot(place).items() if ".pyc" not in path} == sources

    command.change("apply", [status(place, series)])
    pip("uninstall", "-q", "-y", "one_local_build")
    left = {path for path in snapshot(place).keys() - empty.keys() if ".vimectl" not in path}
    assert left == set()


def test_distribution_with_the_matching_record_is_chosen(
    environment: Path, pip: Callable[..., str], tmp_path: Path, rich_series: dict[str, Series]
) -> None:
    wheel = build_wheel(tmp_path, "one", "one_cpu", "0.9")
    other = tmp_path / "other"
    other.mkdir()
    pip("install", "-q", "--no-index", "--no-deps", wheel)
    both = build_wheel(other, "one", "one", "1.0")
    with zipfile.ZipFile(both, "a") as archive:
        archive.writestr("one/later.py", "later = 1\n")
    pip("install", "-q", "--no-index", "--no-deps", both)
    # The second install overwrote the files of the first, here with content that only the second lists.
    record_of_first = site(environment) / "one_cpu-0.9.dist-info" / "RECORD"
    text = record_of_first.read_bytes()
    record_of_first.write_bytes(distribution.update_record(text, {"one/both.py": b"another content"}))
    found = find_at(site(environment), "one", "one")
    assert found.version == "1.0"


def test_wheel_is_classified_but_not_changed(tmp_path: Path, rich_series: dict[str, Series]) -> None:
    wheel = build_wheel(tmp_path, "one", "one_cpu")
    before = wheel.read_bytes()
    found = status(wheel, rich_series["one"])
    assert (found.target.kind, found.target.version, found.state) == ("wheel", "1.0", "pristine")
    assert edits.diff_from_release(found) == ""
    for action in ("apply", "revert"):
        with pytest.raises(UsageError, match="a wheel is read-only"):
            command.change(action, [found])  # type: ignore[arg-type]
    assert wheel.read_bytes() == before
    assert list(tmp_path.iterdir()) == [wheel]
    assert find_at(wheel, "two", "two") is None
