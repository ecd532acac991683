"""The requirements of builds from source, and their sources."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import platformdirs
import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.git import two_commits
from vimectl.env import source_builds
from vimectl.env.installer import UvInstaller
from vimectl.env.source_builds import SAVER, CommitBuild, check_requirements, commit_builds, install_commits
from vimectl.stacks.catalog import load_stack, lock_path
from vimectl.stacks.lock import read_lock
from vimectl.util.host import Host

COMPILED = load_stack("ascend-0.23.0.post1")


def machine(root: Path, *programs: str, **environment: str) -> Host:
    """Return a host whose PATH has these programs only."""
    folder = root / "bin"
    folder.mkdir()
    for name in programs:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    return Host(root, {"PATH": str(folder), **environment})


def test_everything_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement) as caught:
        check_requirements(COMPILED, machine(tmp_path))
    for needed in ("git", "a C++ compiler", "CANN 9.1.0 for vllm-ascend", "NNAL 9.1.0", "npu-smi"):
        assert needed in caught.value.message
    assert "source /usr/local/Ascend/ascend-toolkit/set_env.sh" in caught.value.hint


def test_cann_whose_environment_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "usr/local/Ascend/cann").mkdir(parents=True)
    host = machine(tmp_path, "git", "g++", "npu-smi", ATB_HOME_PATH="/usr/local/Ascend/cann")
    with pytest.raises(MissingRequirement, match=r"needs the environment of CANN for vllm-ascend$"):
        check_requirements(COMPILED, host)
    host.environment["ASCEND_TOOLKIT_HOME"] = "/usr/local/Ascend/cann"
    check_requirements(COMPILED, host)


def test_cann_is_not_needed_where_nothing_is_compiled_against_it(tmp_path: Path) -> None:
    check_requirements(load_stack("ascend-0.22"), machine(tmp_path, "git", "c++"))


def test_stack_without_builds_needs_nothing(tmp_path: Path) -> None:
    check_requirements(load_stack("cpu-0.32"), machine(tmp_path))


def test_memory_saver_is_built_where_cann_is(tmp_path: Path) -> None:
    stack, host = load_stack("ascend-0.22"), Host(tmp_path, {})
    assert [build.name for build in commit_builds(stack, host)] == ["megatron-core", "mindspeed"]
    pins = read_lock(lock_path("ascend-0.22"), "aarch64")
    triton, saver = source_builds.left_out(stack, pins, Path("/e/bin/python"), host)
    assert "/e/bin/python -m pip install --no-deps triton-ascend==3.2.1 -i https://" in triton
    assert saver.startswith(f"{SAVER}: ")

    (tmp_path / "usr/local/Ascend/cann").mkdir(parents=True)
    assert commit_builds(stack, host)[-1].folder == "contrib/torch_memory_saver/python"
    assert len(source_builds.left_out(stack, pins, Path("/e/bin/python"), host)) == 1


class _RecordingUv:
    """Remembers what the folders to install had in them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.installed: list[bytes] = []

    def report(self, now: object) -> None:
        pass

    def install_local(self, arguments: list[str], variables: dict[str, str]) -> None:
        assert variables == {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
        self.installed += [Path(folder, "__init__.py").read_bytes() for folder in arguments]


def test_commit_is_built_from_its_files_even_if_the_cache_was_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    first = two_commits(tmp_path / "trainer")
    build = CommitBuild("trainer", str(tmp_path / "trainer"), first, (), "package")
    (tmp_path / "work").mkdir()
    uv = _RecordingUv(tmp_path / "work")
    install_commits(cast(UvInstaller, uv), [build])
    archive = tmp_path / "cache" / "commits" / f"trainer-{first}" / "source.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-40])
    install_commits(cast(UvInstaller, uv), [build])
    assert uv.installed == [b"version = 1\n"] * 2
    assert list((tmp_path / "work").iterdir()) == []
