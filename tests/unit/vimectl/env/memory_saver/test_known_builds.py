"""Recording a build, and the verdicts that follow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.memory_saver.elf_file import ElfFile
from vimectl.env.memory_saver import known_builds
from vimectl.env.memory_saver.known_builds import BuildsFile, KnownBuild, user_builds_file
from vimectl.env.memory_saver.verify import SaverBuild, verify_installed, verify_path
from vimectl.stacks.catalog import load_stack
from vimectl.util import toml
from vimectl.util.host import CommandResult, Host, refuse_command

ASCEND = load_stack("ascend-0.22")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "torch_memory_saver_hook_mode_torch.abi3.so"
    path.write_bytes(ElfFile().content())
    return path


def record(path: Path, note: str) -> list[KnownBuild]:
    return known_builds.record_build(verify_path(path, Host(), None), note)


def verdict(path: Path) -> SaverBuild:
    host = Host(Path("/"), {}, lambda argv, timeout: CommandResult(0, "aarch64\n"))
    (build,) = verify_path(path, host, ASCEND)
    return build


def test_recorded_build_is_known_good_with_who_when_and_why(library: Path) -> None:
    assert verdict(library).verdict == "unknown"
    (added,) = record(library, "built from 2026.6.0, passed 20 steps")
    found = verdict(library)
    assert (found.verdict, found.match, found.name) == ("known-good", "sha256", added.name)
    assert found.note == added.note == "built from 2026.6.0, passed 20 steps"
    assert (added.backend, added.machine) == ("ascend", "aarch64")
    assert re.fullmatch(r".+@.+", added.by)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", added.at)
    assert toml.load(BuildsFile, user_builds_file()).build == [added]


def test_recording_appends_new_builds_only(library: Path) -> None:
    record(library, "first")
    user_builds_file().write_text(user_builds_file().read_text() + "# a remark of the owner\n")
    before = user_builds_file().read_text()
    assert record(library, "second") == []
    assert user_builds_file().read_text() == before
    library.write_bytes(ElfFile(text=b"another").content())
    record(library, "third")
    assert user_builds_file().read_text().startswith(before)
    assert [build.note for build in toml.load(BuildsFile, user_builds_file()).build] == ["first", "third"]


def test_recorded_build_is_still_wrong_for_another_backend(library: Path) -> None:
    library.write_bytes(ElfFile(needed=("libcudart.so.12",)).content())
    record(library, "for the other machine")
    assert (verdict(library).verdict, verdict(library).match) == ("wrong-backend", "sha256")


def test_known_bad_stays_bad(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(library, "seemed well")
    digest = verdict(library).sha256
    bad = KnownBuild(name="x", verdict="known-bad", backend="ascend", sha256=digest, note="ignores pause")
    monkeypatch.setattr(known_builds, "_shipped", lambda: (bad,))
    assert (verdict(library).verdict, verdict(library).note) == ("known-bad", "ignores pause")
    with pytest.raises(CheckFailed, match="ignores pause"):
        record(library, "I insist")


def test_prefix_match_is_recorded_with_its_full_digest(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = KnownBuild(
        name="x", verdict="known-good", backend="ascend", md5_prefix=verdict(library).md5[:8], note="eight"
    )
    monkeypatch.setattr(known_builds, "_shipped", lambda: (part,))
    found = verdict(library)
    assert (found.verdict, found.match) == ("known-good", "md5-prefix")
    record(library, "from the maintainers")
    found = verdict(library)
    assert (found.verdict, found.match, found.note) == ("known-good", "sha256", "from the maintainers")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a library", "not an ELF library"),
        (ElfFile(functions=["other"]).content(), "with a function tms_pause"),
        (ElfFile(needed=["libc.so.6"]).content(), "'backend': Input should be 'ascend', 'cuda' or 'rocm'"),
        (ElfFile(machine="riscv64").content(), "'machine': Input should be 'x86_64' or 'aarch64'"),
    ],
)
def test_file_that_is_not_the_library_is_not_recorded(library: Path, content: bytes, message: str) -> None:
    library.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        record(library, "well")
    assert not user_builds_file().exists()


def test_build_without_a_note_is_not_recorded(library: Path) -> None:
    with pytest.raises(UsageError, match="reason"):
        record(library, "  ")


def test_malformed_builds_file_is_named_and_unchanged(library: Path) -> None:
    user_builds_file().parent.mkdir(parents=True)
    user_builds_file().write_text("[[build]]\nnmae = 'x'\n")
    for ask in (lambda: verdict(library), lambda: record(library, "well")):
        with pytest.raises(UsageError, match=re.escape(str(user_builds_file()))):
            ask()
    assert user_builds_file().read_text() == "[[build]]\nnmae = 'x'\n"


def test_unwritable_builds_file_is_reported(library: Path) -> None:
    user_builds_file().parent.parent.write_text("in the way")
    with pytest.raises(MissingRequirement, match="cannot be written"):
        record(library, "well")


def test_unreadable_builds_file_is_reported(library: Path) -> None:
    user_builds_file().mkdir(parents=True)
    with pytest.raises(UsageError, match="a directory, not a file"):
        verdict(library)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(note=st.text(min_size=1).filter(str.strip))
def test_any_note_is_recorded(library: Path, note: str) -> None:
    user_builds_file().unlink(missing_ok=True)
    record(library, note)
    (build,) = toml.load(BuildsFile, user_builds_file()).build
    assert build.note == note.strip().encode("utf-8", "replace").decode("utf-8")


def test_build_recorded_in_an_image_is_known(tmp_path: Path) -> None:
    site = tmp_path / "root/usr/local/lib/python3.11/site-packages"
    (site / "torch_memory_saver").mkdir(parents=True)
    (site / "torch_memory_saver" / "__init__.py").write_text("")
    (site / "torch_memory_saver" / "utils.py").write_text("")
    library = site / "torch_memory_saver_hook_mode_torch.abi3.so"
    library.write_bytes(ElfFile().content())
    directories = ("/usr/local/lib/python3.11/site-packages",)
    image = Host(tmp_path / "root", {}, refuse_command, package_directories=directories)
    assert [build.verdict for build in verify_installed(image, ASCEND)] == ["unknown"]
    file = image.path(known_builds.MACHINE_FILE)
    builds = verify_path(library, Host(), ASCEND)
    known_builds.record_build(builds, "built in it", into=file, by="vimectl", at="2026-01-01T00:00:00Z")
    (build,) = verify_installed(image, ASCEND)
    assert (build.verdict, build.match, build.note) == ("known-good", "sha256", "built in it")
    assert not user_builds_file().exists()
