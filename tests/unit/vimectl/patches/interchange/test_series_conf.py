from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.patches.git_and_quilt import committed, run
from vimectl.cli import run_cli
from vimectl.patches import series as series_files
from vimectl.stacks.catalog import load_summary

LINES = "".join(f"l{number}\n" for number in range(1, 31))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the series.conf of a repository with three patches for two work trees."""
    root = tmp_path / "image"
    for name, module in (("Megatron-LM", "megatron"), ("Mind_Speed", "mindspeed")):
        (root / name / module).mkdir(parents=True)
        (root / name / module / "a.py").write_text(LINES)
        committed(root / name)
    patches = tmp_path / "source" / "docker" / "npu"
    patches.mkdir(parents=True)
    for name, line, module in (("one", 6, "megatron"), ("two", 20, "megatron"), ("three", 6, "mindspeed")):
        before = [f" l{n}\n" for n in range(line - 3, line)]
        after = [f" l{n}\n" for n in range(line + 1, line + 4)]
        body = "".join([*before, f"-l{line}\n+{name}\n", *after])
        hunk = f"@@ -{line - 3},7 +{line - 3},7 @@\n"
        (patches / f"{name}.patch").write_text(f"--- a/{module}/a.py\n+++ b/{module}/a.py\n{hunk}{body}")
    (patches / "series.conf").write_text(
        f"# target|image|source\n\n{root}/Megatron-LM|one.patch|docker/npu/one.patch\n"
        f"{root}/Mind_Speed/ | three.patch | three.patch\n{root}/Megatron-LM|two.patch|docker/npu/two.patch\n"
    )
    return patches / "series.conf"


def test_series_conf_becomes_a_project(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = tmp_path / "image"
    (trees / "Megatron-LM" / "megatron" / "a.py").write_text("patched already\n")
    assert run_cli(["patch", "import", str(project), "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    wanted = {"megatron-lm": ["0001-one", "0002-two"], "mind-speed": ["0001-three"]}
    assert [(one["package"], one["id"]) for one in document["patches"]] == [
        (name, patch) for name, patches in wanted.items() for patch in patches
    ]
    summary = load_summary(str(tmp_path / "out" / "vimectl.toml"))
    assert summary.targets == {"megatron-lm": trees / "Megatron-LM", "mind-speed": trees / "Mind_Speed"}
    for name, patches in wanted.items():
        (directory,) = summary.patches[name]
        series = series_files.read(Path(directory))
        assert [patch.id for patch in series.patches] == patches
        assert series.commit == run(summary.targets[name], "git", "rev-parse", "HEAD").strip()
    assert run_cli(["patch", "import", str(project), "--out", str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_work_trees_that_are_elsewhere_are_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(tmp_path / "image" / "Mind_Speed", tmp_path / "clone")
    command = ["patch", "import", str(project), "--out", str(tmp_path / "out")]
    assert run_cli(command) == 2
    error = capsys.readouterr().err.replace("\n", " ")
    assert "mind-speed (" in error
    assert "megatron-lm (" not in error
    assert not (tmp_path / "out").exists()
    assert run_cli([*command, "--against", f"mindspeed={tmp_path / 'clone'}"]) == 2
    assert "mind-speed" in capsys.readouterr().err
    assert run_cli([*command, "--against", f"mind-speed={tmp_path / 'clone'}"]) == 0
    summary = load_summary(str(tmp_path / "out" / "vimectl.toml"))
    assert summary.targets["mind-speed"] == tmp_path / "image" / "Mind_Speed"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/x/vllm|vllm.patch", "series.conf:1: not of the form"),
        ("/x/vllm|vllm.patch|", "series.conf:1: not of the form"),
        ("/x/vllm|vllm.patch|gone.patch", "gone.patch: no such file"),
        ("/x/a_b|x|one.patch\n/y/a-b|x|one.patch", "are both a-b"),
        ("# nothing", "no patches here"),
    ],
)
def test_malformed_lines_are_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    project.write_text(line)
    assert run_cli(["patch", "import", str(project), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err.replace("\n", "")
