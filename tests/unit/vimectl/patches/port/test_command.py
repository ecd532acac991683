"""Test the port command: its paths, messages and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from harness.git import commit
from harness.patches.toy_packages import LINK, Tree, build_series, lay
from harness.patches.toy_series import MORE, A, Files, Make, change, results, tree_of
from harness.wheels import write_wheel
from vimectl.cli import run_cli
from vimectl.patches import content, series
from vimectl.patches.blobs import blob_id
from vimectl.patches.port.command import port_series
from vimectl.patches.release_files import ReleaseFiles, open_path
from vimectl.util.directory_tree import DirectoryTree


def test_wrong_old_release_is_refused(toy: Make, tmp_path: Path) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": MORE}, {"toy/a.py": change(A, ("m", "M"))})
    one.sources *= 2
    with pytest.raises(UsageError, match="4 times --source"):
        one.port()
    one.sources = [write_wheel(one.folder, "toy", files={"toy/a.py": MORE}), one.sources[1]]
    with pytest.raises(
        CheckFailed, match=r"toy/a\.py is [0-9a-f]{40}, /.*/toy-1\.0 is for [0-9a-f]{40}"
    ) as error:
        one.port()
    assert "unpatched" in error.value.hint
    tree = tmp_path / "tree"
    (tree / "toy").mkdir(parents=True)
    (tree / "toy" / "__init__.py").touch()
    (tree / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 3.0\n")
    for sources, stated in [([tree, one.sources[1]], "3.0"), (one.sources[::-1], "2.0")]:
        one.sources = sources
        with pytest.raises(UsageError, match=rf"is toy {stated}, not 1\.0"):
            one.port()


def test_existing_output_is_kept(toy: Make) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": change(A, ("m", "em"))}, {"toy/a.py": change(A, ("m", "M"))})
    one.port()
    edited = one.conflicts / "0001-p" / "toy/a.py"
    edited.write_bytes(b"my work\n")
    with pytest.raises(UsageError, match="exists already") as error:
        one.port()
    assert "--resolved" in error.value.hint
    assert edited.read_bytes() == b"my work\n"
    with pytest.raises(UsageError, match="not a folder that vimectl patch port made"):
        one.port(one.folder)
    one.port(one.conflicts)
    with pytest.raises(UsageError, match="exists already"):
        one.port(one.conflicts)


def test_output_path_that_cannot_be_used(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": A}, {"toy/a.py": change(A, ("m", "M"))})
    one.out = one.sources[0] / "below-a-file"
    with pytest.raises(MissingRequirement, match="below-a-file: cannot be written: Not a directory"):
        one.port()
    monkeypatch.chdir(tmp_path)
    for one.out in (Path("."), Path("..")):
        with pytest.raises(UsageError, match="exists already"):
            one.port()


def test_archive_paths_outside_are_ignored(toy: Make) -> None:
    # The most similar new path leads out of the conflict folder.
    one = toy({"toy/a.py": A}, {"../../a.py": A, "toy/.git/a.py": A}, {"toy/a.py": change(A, ("m", "M"))})
    outcome = one.port()
    assert "nor another new file" in outcome.patches[0].files[0].note
    assert sorted(path.name for path in one.conflicts.rglob("*")) == ["0001-p", "README.txt"]


def test_interrupted_port_leaves_nothing(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": A}, {"toy/a.py": change(A, ("m", "M"))})
    before = sorted(one.folder.iterdir())

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DirectoryTree, "rename", interrupted)  # the last step
    with pytest.raises(KeyboardInterrupt):
        one.port()
    assert sorted(one.folder.iterdir()) == before


def test_user_git_configuration_is_ignored(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = toy({"toy/a.py": b"a\r\nb\r\n"}, {"toy/a.py": b"a\r\nb\r\nc\r\n"}, {"toy/a.py": b"A\r\nb\r\n"})
    config = "[core]\nautocrlf = input\n[diff]\nnoprefix = true\nexternal = false\ncontext = 0\n"
    (tmp_path / ".gitconfig").write_text(config)
    monkeypatch.setenv("HOME", str(tmp_path))
    one.port()
    monkeypatch.undo()
    assert "--- a/toy/a.py\n+++ b/toy/a.py\n" in (one.out / "0001-p.patch").read_text()
    assert one.files() == {"toy/a.py": b"A\r\nb\r\nc\r\n"}


def test_port_command(toy: Make, capsys: pytest.CaptureFixture[str]) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": change(A, ("m", "em"))}, {"toy/a.py": change(A, ("m", "M"))})
    argv = ["patch", "port", "toy", "--from", "1.0", "--to", "2.0", "--series", str(one.series.directory)]
    argv += [word for path in one.sources for word in ("--source", str(path))] + ["--out", str(one.out)]
    assert run_cli([*argv, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["ok"], found["written"]) == ("vimectl.patch.port/1", False, None)
    assert found["patches"][0]["files"][0]["result"] == found["patches"][0]["result"] == "conflict"
    (one.conflicts / "0001-p" / "toy/a.py").write_bytes(A)
    assert run_cli([*argv, "--resolved", str(one.conflicts)]) == 0
    shown = capsys.readouterr()
    assert f"written to {one.out}" in shown.out
    assert f"vimectl patch apply --series {one.out}\n" in shown.err
    assert f'toy = ["{one.out}"]' in shown.err
    for package, version, message in [
        ("toy", "1.0", "unknown package"),
        ("vllm", "0", "unknown series of vllm"),
        ("vllm", "", "with --from V"),
    ]:
        assert run_cli(["patch", "port", package, "--from", version, "--to", "2.0"]) == 2
        assert message in capsys.readouterr().err


def test_single_source_is_recognized_by_content(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": MORE + A}, {"toy/a.py": change(A, ("m", "M"))})
    found = dict(zip(("1.0", "2.0"), one.sources, strict=True))
    versions = []

    def release(package: str, version: str) -> ReleaseFiles:
        versions.append(version)
        return open_path(found[version])

    monkeypatch.setattr(content, "release", release)
    for number, (given, fetched) in enumerate([("1.0", "2.0"), ("2.0", "1.0")]):
        out = one.folder / f"out-{number}"
        port_series("toy", "1.0", "2.0", [found[given]], out, None, one.series.directory)
        assert versions.pop() == fetched
        assert not versions


def test_modes_and_links_are_ported(toy: Make, tmp_path: Path) -> None:
    old = {"toy/a.sh": A, "toy/b.sh": A}
    one = toy(old, {**old, "toy/a.sh": MORE + A})
    trees: list[Tree] = [
        {"toy/a.sh": (0o644, A), "toy/b.sh": (0o644, A)},
        {
            "toy/a.sh": (0o644, change(A, ("m", "M"))),
            "toy/b.sh": (0o755, A),
            "toy/run.sh": (0o755, b"run\n"),
            "toy/l": (LINK, b"a.sh"),
        },
    ]
    one.series = build_series("toy", trees, tmp_path / "modes", ["p"])
    assert results(one.port()) == [("0001-p", "offset")]
    found = series.read(one.out).patches[0].diffs
    assert {path: (diff.new_blob, diff.new_mode) for path, diff in found.items()} == {
        "toy/a.sh": (blob_id(change(MORE + A, ("m", "M"))), None),
        "toy/run.sh": (blob_id(b"run\n"), "100755"),
        "toy/b.sh": (blob_id(A), "100755"),
        "toy/l": (blob_id(b"a.sh"), "120000"),
    }
    one.files()
    assert (tmp_path / "applied" / "toy" / "b.sh").stat().st_mode & 0o111
    assert (tmp_path / "applied" / "toy" / "l").is_symlink()


def test_commits_of_a_work_tree(toy: Make, tmp_path: Path) -> None:
    old: Files = {"toy/a.py": A, ".github/b.yml": A}
    patched = {path: change(A, ("m", "M")) for path in old}
    one = toy(old, dict.fromkeys(old, MORE + A), patched)
    tree = tmp_path / "tree"
    commits = []
    for files in (old, one.new):
        lay(tree, tree_of(files))
        commits.append(commit(tree))
    (one.series.directory / "series.toml").write_text(f'package = "toy"\ncommit = "{commits[0]}"\n')
    lay(tree, tree_of(patched))  # the files of the commits count
    found = port_series("toy", "", commits[1][:12], [tree], one.out, None, one.series.directory)
    assert (found.old, results(found)) == (commits[0], [("0001-p", "offset")])
    assert (series.read(one.out).commit, series.read(one.out).version) == (commits[1], "")
    assert one.files() == {path: change(MORE + A, ("m", "M")) for path in old}
    with pytest.raises(UsageError, match=f"is for {commits[0]}, not {commits[1]}"):
        port_series("toy", commits[1], "2.0", [tree], tmp_path / "o", None, one.series.directory)
    # A plain quilt series states neither package nor commit.
    (one.series.directory / "series.toml").unlink()
    with pytest.raises(UsageError, match="does not state its release"):
        port_series("toy", "", commits[1], [tree], tmp_path / "o", None, one.series.directory)
    port_series("toy", commits[0][:9], commits[1], [tree], tmp_path / "o", None, one.series.directory)
    assert series.read(tmp_path / "o").package == "toy"


def test_series_on_top_of_the_shipped_one(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, above = change(A, ("c", "C")), change(A, ("c", "C"), ("m", "M"))
    one = toy({"toy/a.py": A}, {"toy/a.py": MORE + A}, {"toy/a.py": below})
    one.port()
    shipped = {"1.0": one.series, "2.0": series.read(one.out)}
    trees = [tree_of({"toy/a.py": content}) for content in (below, above)]
    mine = build_series("toy", trees, tmp_path / "mine", ["mine"])
    with pytest.raises(CheckFailed, match="mine is for"):
        port_series("toy", "1.0", "2.0", one.sources, tmp_path / "new", None, mine.directory)
    monkeypatch.setattr(series, "known", lambda: {"toy": list(shipped)})
    monkeypatch.setattr(series, "load", lambda package, version: shipped[version])
    port_series("toy", "1.0", "2.0", one.sources, tmp_path / "new", None, mine.directory)
    stacked = series.stack_up([shipped["2.0"], series.read(tmp_path / "new")])
    assert stacked.chains["toy/a.py"][-1] == blob_id(MORE + above)
