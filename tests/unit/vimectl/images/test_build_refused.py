"""Errors that stop `image build` before the builder runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file

from harness.images.fake_builder import FakeBuilder
from harness.images.user_stack import UserStack
from vimectl.cli import run_cli
from vimectl.images import manifest, vendor
from vimectl.images.plan import make_plan

Build = Callable[..., tuple[int, str]]


@pytest.fixture
def folder(own: UserStack, tmp_path: Path) -> Path:
    """A complete source folder."""
    vendor.collect(make_plan(str(own.file)), tmp_path / "offline", lambda now: None)
    return tmp_path / "offline"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBuilder:
    """A builder that works, and fails when it is called for anything else."""
    return FakeBuilder(tmp_path, "buildah", 'sys.exit(arguments[0] != "--version")\n', monkeypatch)


@pytest.fixture
def build(
    own: UserStack,
    fake: FakeBuilder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Build:
    """Return a function that calls `image build` with the fake builder."""
    monkeypatch.chdir(fake.here)

    def build(folder: Path, *more: str) -> tuple[int, str]:
        arguments = ["--stack", str(own.file), "--offline", str(folder), "--builder", "buildah", *more]
        return run_cli(["image", "build", *arguments]), capsys.readouterr().err

    return build


def test_missing_file_stops_the_build(build: Build, folder: Path, fake: FakeBuilder) -> None:
    (archive,) = (folder / "sources").iterdir()
    archive.unlink()
    code, output = build(folder)
    assert code == 1
    assert f"sources/{archive.name} is missing" in output
    assert fake.calls() == [["--version"]]


def test_wheel_outside_the_lock_stops_the_build(build: Build, folder: Path, fake: FakeBuilder) -> None:
    (wheel,) = (folder / "wheels").iterdir()
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"x")
    listed = json.loads((folder / manifest.FILE).read_text())
    (entry,) = (one for one in listed["sources"] if one["kind"] == "wheel")
    entry["sha256"] = sha256_file(wheel)
    (folder / manifest.FILE).write_text(json.dumps(listed))
    code, output = build(folder)
    assert code == 1
    assert "offline: wheels/weights-1.0-py3-none-any.whl has sha256" in output
    assert fake.calls() == [["--version"]]


def test_invalid_source_date_epoch(build: Build, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    code, output = build(folder)
    assert code == 2
    assert "SOURCE_DATE_EPOCH is 'yesterday'" in output


@pytest.mark.parametrize("name", ["auto", "docker", "podman", "buildah"])
def test_without_a_builder_exit_3_with_a_hint(
    name: str,
    own: UserStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code = run_cli(["image", "build", "--stack", str(own.file), "--builder", name])
    output = capsys.readouterr().err
    assert code == 3
    assert "apt-get install buildah" in output
    assert f"{'podman' if name == 'auto' else name}: not found" in output


def test_unknown_builder_is_bad_usage(own: UserStack, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["image", "build", "--stack", str(own.file), "--builder", "buildha"]) == 2
    assert "is not one of 'auto', 'docker', 'podman', 'buildah'" in capsys.readouterr().err


def test_dry_run_needs_no_builder(
    own: UserStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_cli(["image", "build", "--stack", str(own.file), "--dry-run", "--json"]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output["dry_run"] is True
    assert output["base"]["image"] == "localhost/base"
