"""The build steps, run on a directory instead of an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.images import fake_sources
from vimectl.env.memory_saver import known_builds
from vimectl.env.memory_saver.known_builds import BuildsFile
from vimectl.images import build_steps, manifest
from vimectl.images.plan import STACK_FILE
from vimectl.recipes.environment import variables
from vimectl.stacks.catalog import stack_file
from vimectl.util import toml

EPOCH = "1767225600"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory /opt/vimectl of an image, with a real stack, and its builds file."""
    folder = tmp_path / "opt"
    folder.mkdir()
    shutil.copy(stack_file("ascend-0.22"), folder / STACK_FILE)
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setattr(manifest, "IMAGE_DIR", folder)
    monkeypatch.setattr(known_builds, "MACHINE_FILE", str(tmp_path / "etc" / "builds.toml"))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def built(folder: Path, needed: tuple[str, ...]) -> Path:
    """Return a directory of built wheels with a memory saver linked with ``needed``."""
    fake_sources.saver_wheel(folder, needed)
    return folder


def test_memory_saver_from_the_pinned_source_is_recorded(image: Path, tmp_path: Path) -> None:
    build_steps.record(built(tmp_path / "built", ("libascendcl.so",)), "no")
    known = toml.load(BuildsFile, tmp_path / "etc" / "builds.toml").build
    assert {(one.verdict, one.backend, one.by, one.at) for one in known} == {
        ("known-good", "ascend", "vimectl image build", "2026-01-01T00:00:00Z")
    }
    assert all("87df718a2f15161d3120e4e1dfd19b30afca7cbf (tag 2026.6.0)" in one.note for one in known)
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["builds.toml"]
    written = json.loads((image / manifest.IMAGE_RECORD).read_text())
    assert (written["stand_in"], written["at"]) == (False, "2026-01-01T00:00:00Z")
    assert "pytest" in {one["name"] for one in written["installed"]}


def test_stand_in_is_not_recorded(image: Path, tmp_path: Path) -> None:
    build_steps.record(built(tmp_path / "built", ("libascendcl.so",)), "yes")
    assert not (tmp_path / "etc").exists()
    assert json.loads((image / manifest.IMAGE_RECORD).read_text())["stand_in"] is True


@pytest.mark.parametrize("stand_in", ["yes", "no"])
@pytest.mark.parametrize(
    ("needed", "why"),
    [
        (("libcudart.so.12",), "wrong-backend: built for cuda, the stack needs ascend"),
        (("libc.so.6",), "no build with these digests is known"),
    ],
)
def test_library_for_another_backend_fails_the_build(
    needed: tuple[str, ...], why: str, stand_in: str, image: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckFailed, match=why) as error:
        build_steps.record(built(tmp_path / "built", needed), stand_in)
    assert "87df718a2f15161d3120e4e1dfd19b30afca7cbf" in error.value.hint
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize("value", ["expandable_segments:True", "max_split_size_mb:128", ""])
def test_base_with_another_allocator_setting_fails_the_build(value: str) -> None:
    reason = next(one.reason for one in variables() if one.name == "PYTORCH_NPU_ALLOC_CONF")
    with pytest.raises(CheckFailed, match="the base image exports") as error:
        build_steps.check_allocator({"PYTORCH_NPU_ALLOC_CONF": value})
    assert reason in error.value.message


@pytest.mark.parametrize("environment", [{}, {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:False"}])
def test_base_with_an_accepted_allocator_setting_passes(environment: dict[str, str]) -> None:
    build_steps.check_allocator(environment)


def test_failed_check_fails_the_build_and_keeps_the_report(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_steps.record(None, "no")
    assert build_steps.main(["gate"]) == 1  # no package of an Ascend stack is installed here
    output = capsys.readouterr().err
    assert "cann.toolkit: found no toolkit, needed 9.0.0" in output
    assert "hint:" in output
    report = json.loads((image / manifest.IMAGE_REPORT).read_text())
    assert report["ok"] is False
