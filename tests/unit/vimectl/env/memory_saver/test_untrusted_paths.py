"""`vimectl tms` on paths that are no library: it ends, names the path, and writes nowhere else."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.memory_saver.elf_file import ElfFile
from vimectl.cli import run_cli
from vimectl.env.memory_saver.verify import verify_path
from vimectl.util.host import Host


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


PATHS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "sparse": sparse,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "missing": lambda path: None,
    "empty folder": lambda path: path.mkdir(),
    "folder with a pipe": lambda path: [
        path.mkdir(),
        os.mkfifo(path / "torch_memory_saver_hook_mode_torch.abi3.so"),
    ],
}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("suffix", [".so", ".whl"])
def test_path_is_refused(kind: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"torch_memory_saver{suffix}"
    PATHS[kind](path)
    for command in (["verify", str(path)], ["record", str(path), "--note", "tested"]):
        assert run_cli(["tms", *command]) == 2
        assert str(path) in capsys.readouterr().err


def test_200_mutations_of_a_library_are_classified(tmp_path: Path) -> None:
    chosen, genuine = random.Random(19), ElfFile().content()
    path = tmp_path / "torch_memory_saver_hook_mode_torch.abi3.so"
    for _ in range(200):
        content = bytearray(genuine)
        for _ in range(chosen.randint(1, 8)):
            values = [0, 1, 0x7F, 0x80, 0xFF, chosen.randrange(256)]
            content[chosen.randrange(len(content))] = chosen.choice(values)
        path.write_bytes(content[: chosen.choice([len(content), chosen.randrange(len(content))])])
        (build,) = verify_path(path, Host(), None)
        assert build.verdict in ("unknown", "not-elf", "wrong-machine")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_builds_are_recorded_in_a_regular_file_only(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    builds = tmp_path / "config/vimectl/builds.toml"
    builds.parent.mkdir(parents=True)
    {
        "pipe": lambda: os.mkfifo(builds),
        "device": lambda: builds.symlink_to("/dev/null"),
        "folder": builds.mkdir,
    }[kind]()
    library = tmp_path / "torch_memory_saver_hook_mode_torch.abi3.so"
    library.write_bytes(ElfFile().content())
    assert run_cli(["tms", "record", str(library), "--note", "tested"]) == 2
    assert str(builds) in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config", library.name]
