"""Save edits of installed packages and work trees as patches, change and drop them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from harness.git import commit, git
from harness.patches import disk_operations
from harness.patches.index_server import Index
from harness.patches.toy_packages import Tree, install, lay, snapshot
from harness.wheels import write_wheel
from vimectl.cli import complete, run_cli
from vimectl.patches import content, distribution, edited_files, save
from vimectl.patches.command import recover
from vimectl.patches.own_series import find_own
from vimectl.patches.path_rules import PathRule
from vimectl.patches.save import SaveOptions, SaveOutcome
from vimectl.patches.selection import Selection
from vimectl.patches.target import find_at
from vimectl.util.dist_info import record_hash

LINES = [b"line %d\n" % number for number in range(30)]
FILES = {"toy/__init__.py": b"".join(LINES), "toy/data.txt": b"data\n", "toy/tool.py": b"".join(LINES)}
RELEASE: Tree = {path: (0o644, content) for path, content in FILES.items()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("VIMECTL_STACK", raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content.release.cache_clear()
    return folder


@pytest.fixture
def site(tmp_path: Path, index: Index) -> Path:
    """Return a site-packages folder with toy 1.0, which the index has too."""
    wheel = write_wheel(tmp_path / "wheels", "toy", "1.0", FILES)
    index.files = {wheel.name: wheel.read_bytes()}
    place = tmp_path / "site-packages"
    install(place, "toy", RELEASE)
    (place / "toy_cpu-1.0.dist-info").rename(place / "toy-1.0.dist-info")
    record = place / "toy-1.0.dist-info" / "RECORD"
    record.write_bytes(record.read_bytes().replace(b"toy_cpu", b"toy"))
    return place


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a work tree whose files are not all in a package."""
    place = tmp_path / "Toy-LM"
    lay(
        place,
        {**RELEASE, ".github/work flow.yml": (0o644, b"on: push\n"), "tests/test_a.py": (0o644, b"1\n")},
    )
    commit(place)
    return place


def edit(path: Path, number: int, text: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = text
    path.write_bytes(b"".join(lines))


def keep(place: Path, name: str, **options: object) -> SaveOutcome:
    package = "toy" if place.name == "site-packages" else "toy-lm"
    settings = SaveOptions(description=f"Say {name}\n\nbecause", **options)  # type: ignore[arg-type]
    return save.save(find_own(package, directory=place), name, settings)


def state(place: Path) -> str:
    package = "toy" if place.name == "site-packages" else "toy-lm"
    return find_own(package, directory=place).status.state


def vimectl(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = run_cli([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_project_without_patches_says_how_to_save_one(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "vimectl.toml").write_text('[packages]\ntoy = "1.0"\n')
    assert run_cli(["patch", "status"]) == 0
    assert "to save your edits as one: vimectl patch save" in capsys.readouterr().err


def test_edits_of_an_installed_package_are_kept_over_a_reinstall(
    site: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = snapshot(site)
    edit(site / "toy/__init__.py", 3, b"mine\n")
    (site / "toy/new.py").write_bytes(b"new\n")
    (site / "toy/data.txt").unlink()
    (site / "toy/__init__.py.orig").write_bytes(b"left by an editor\n")
    keep(site, "mine")
    patched = snapshot(site)
    text = (project / "patches/toy/mine.patch").read_text()
    assert text.startswith("Description: Say mine\n because\n")
    assert "Forwarded: no\n" in text
    assert (project / "patches/toy/series").read_text().splitlines()[-1] == "mine.patch"
    record = (site / "toy-1.0.dist-info/RECORD").read_bytes()
    there = {path: (site / path).read_bytes() for path in ("toy/__init__.py", "toy/new.py", "toy/tool.py")}
    assert distribution.count_matching(record, there) == 3
    code, found = vimectl(capsys, "patch", "verify", "--target", site)
    assert (code, found["targets"][0]["state"]) == (0, "applied")  # type: ignore[index]

    for path, (_, data) in released.items():  # as pip reinstalls it
        if Path(path).is_file() or "data.txt" in path:
            Path(path).write_bytes(data)
    (site / "toy/new.py").unlink()
    assert state(site) == "pristine"
    assert run_cli(["patch", "verify", "--target", str(site)]) == 1
    assert "to apply them: vimectl patch apply" in capsys.readouterr().err
    assert vimectl(capsys, "patch", "apply", "--target", site)[0] == 0
    ledger = str(site / ".vimectl/ledger.json")  # now it has the mode of the file that the patch deletes
    assert {**snapshot(site), ledger: patched[ledger]} == patched
    assert vimectl(capsys, "patch", "revert", "--target", site)[0] == 0
    (site / "toy/__init__.py.orig").unlink()
    assert snapshot(site) == released


def test_saving_again_changes_the_patch_and_rebases_those_above(site: Path, project: Path) -> None:
    tool = site / "toy/tool.py"
    for number, name in enumerate(("one", "two", "three")):
        edit(tool, 10 * number + 2, name.encode() + b"\n")
        keep(site, name)
    edit(tool, 12, b"TWO\n")
    outcome = keep(site, "two")
    assert outcome.rebased == ("three",)
    assert b"+TWO\n" in (project / "patches/toy/two.patch").read_bytes()
    assert state(site) == "applied"
    edit(site / "toy/__init__.py", 0, b"first\n")  # a file that the patch did not have
    assert set(keep(site, "one").files) == {"toy/tool.py", "toy/__init__.py"}
    assert (project / "patches/toy/series").read_text().splitlines()[1:] == [
        "one.patch",
        "two.patch",
        "three.patch",
    ]
    assert state(site) == "applied"


def test_conflict_with_a_patch_above_changes_nothing(site: Path, project: Path) -> None:
    for name in ("one", "two"):
        edit(site / "toy/tool.py", 5, name.encode() + b"\n")
        keep(site, name)
    edit(site / "toy/tool.py", 5, b"three\n")
    before = snapshot(site, project)
    with pytest.raises(CheckFailed, match="does not fit"):
        keep(site, "one")
    with pytest.raises(CheckFailed, match="does not fit"):
        save.drop(find_own("toy", directory=site), "one")
    assert snapshot(site, project) == before


def test_dropped_patch_is_reverted_and_removed(site: Path, project: Path) -> None:
    released = snapshot(site)
    for number, name in enumerate(("one", "two", "three")):
        edit(site / "toy/tool.py", 10 * number + 2, name.encode() + b"\n")
        keep(site, name)
    assert save.drop(find_own("toy", directory=site), "two").files == ("toy/tool.py",)
    assert b"line 12\n" in (site / "toy/tool.py").read_bytes()
    assert not (project / "patches/toy/two.patch").exists()
    assert state(site) == "applied"
    for name in ("one", "three"):
        save.drop(find_own("toy", directory=site), name)
    assert snapshot(site) == released
    with pytest.raises(UsageError, match="unknown patch"):
        save.drop(find_own("toy", directory=site), "one")


def test_work_tree_is_saved_with_any_path(checkout: Path, project: Path) -> None:
    edit(checkout / "toy/tool.py", 4, b"mine\n")
    (checkout / ".github/work flow.yml").write_bytes(b"on: pull_request\n")
    (checkout / "docs").mkdir()
    (checkout / "docs/über=1.md").write_bytes(b"new\n")
    (checkout / "toy/tool.py").chmod(0o755)
    (checkout / "tests/test_a.py").write_bytes(b"2\n")
    outcome = keep(checkout, "mine", rules=(PathRule(False, "tests/*"),))
    assert set(outcome.files) == {"toy/tool.py", ".github/work flow.yml", "docs/über=1.md"}
    head = git(checkout, "rev-parse", "HEAD").decode().strip()
    assert f'commit = "{head}"' in (project / "patches/toy-lm/series.toml").read_text()
    assert [one.state for one in Selection().statuses()] == ["applied"]  # the project knows the work tree
    git(checkout, "checkout", "-q", "--", ".")
    git(checkout, "clean", "-fdq", "-e", ".vimectl")
    git(checkout, "apply", "--check", str(project / "patches/toy-lm/mine.patch"))


def test_commit_of_a_work_tree_becomes_a_patch(checkout: Path, project: Path) -> None:
    edit(checkout / "toy/tool.py", 4, b"mine\n")
    (checkout / "tests/test_a.py").write_bytes(b"2\n")
    git(checkout, "add", "--all")
    git(checkout, "commit", "-q", "-m", "Fix the tool\n\nIt was broken.")
    revision = git(checkout, "rev-parse", "HEAD").decode().strip()
    git(checkout, "reset", "-q", "--hard", "HEAD^")
    own = find_own("toy-lm", directory=checkout)
    outcome = save.save(own, "fix", SaveOptions(commit=revision, rules=(PathRule(True, "toy/*"),)))
    assert outcome.files == ("toy/tool.py",)
    text = (project / "patches/toy-lm/fix.patch").read_text()
    assert text.startswith("Description: Fix the tool\n It was broken.\nAuthor: test <test@localhost>\n")
    assert b"mine\n" in (checkout / "toy/tool.py").read_bytes()
    assert state(checkout) == "applied"


def test_pipe_as_record_of_another_distribution_is_passed_over(site: Path, project: Path) -> None:
    (site / "other-1.0.dist-info").mkdir()
    os.mkfifo(site / "other-1.0.dist-info/RECORD")
    (site / "toy/new.py").write_bytes(b"new\n")
    keep(site, "mine")
    assert "toy/new.py" in (project / "patches/toy/mine.patch").read_text()


def test_nothing_to_save_is_refused(site: Path, project: Path) -> None:
    with pytest.raises(CheckFailed, match="nothing of toy was edited"):
        keep(site, "empty")
    edit(site / "toy/tool.py", 2, b"one\n")
    with pytest.raises(UsageError, match="needs a description"):
        save.save(find_own("toy", directory=site), "one", SaveOptions())
    for name in ("../one", "a/b", ".one", ""):
        with pytest.raises(UsageError, match="no name for a patch"):
            keep(site, name)
    keep(site, "one")
    edit(site / "toy/tool.py", 2, b"line 2\n")
    with pytest.raises(CheckFailed, match="does not have every patch"):
        keep(site, "two")
    edit(site / "toy/tool.py", 2, b"one\n")
    edit(site / "toy/tool.py", 12, b"two\n")
    keep(site, "two")
    edit(site / "toy/tool.py", 2, b"line 2\n")
    with pytest.raises(CheckFailed, match="one would be empty"):
        keep(site, "one")
    assert {path.name for path in project.iterdir()} == {"patches", "vimectl.toml"}


def test_other_release_than_the_installed_one_is_refused(site: Path, project: Path, index: Index) -> None:
    wheel = write_wheel(project, "toy", "1.0", {**FILES, "toy/tool.py": b"another build\n"})
    index.files = {wheel.name: wheel.read_bytes()}
    edit(site / "toy/tool.py", 2, b"one\n")
    with pytest.raises(CheckFailed, match="is not the file that was installed"):
        keep(site, "one")


def test_shell_completes_packages_and_patches(site: Path, project: Path) -> None:
    edit(site / "toy/tool.py", 2, b"one\n")
    keep(site, "one")
    assert complete.patches("o") == ["one"]
    assert complete.patches("x") == []
    assert complete.packages("t") == ["toy"]
    (project / "vimectl.toml").unlink()
    assert "megatron-core" in complete.packages("")


@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 23])
def test_kill_while_saving_leaves_all_or_nothing(site: Path, project: Path, every: int) -> None:
    for number, name in enumerate(("one", "two")):
        edit(site / "toy/tool.py", 10 * number + 2, name.encode() + b"\n")
        keep(site, name)
    edit(site / "toy/tool.py", 2, b"ONE\n")
    before = snapshot(site, project)

    def work() -> None:
        keep(site, "one")

    outcomes, point = set(), 1
    while disk_operations.die_at(point, work):
        recover([project, site])
        now = snapshot(site, project)
        outcomes.add(now == before)
        if now != before:
            assert state(site) == "applied"
            assert b"+ONE\n" in (project / "patches/toy/one.patch").read_bytes()
            for path, (mode, data) in before.items():
                if not Path(path).is_dir():
                    Path(path).write_bytes(data)
                    Path(path).chmod(mode & 0o7777)
            for path in snapshot(site, project).keys() - before.keys():
                Path(path).unlink()
        point += every
    assert outcomes == {True, False}


@pytest.mark.parametrize("kind", ["pipe", "folder outside", "pipe of the project"])
def test_what_is_no_file_of_the_target_is_not_saved(
    site: Path, project: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(site / "toy/tool.py", 3, b"mine\n")
    outside = tmp_path / "outside"
    if kind == "pipe":
        (site / "toy/data.txt").unlink()
        os.mkfifo(site / "toy/data.txt")
    elif kind == "folder outside":
        (site / "toy").rename(outside)
        (outside / "tool.py").write_text("secret\n")
        (site / "toy").symlink_to(outside)
    else:
        (project / "patches/toy").mkdir(parents=True)
        os.mkfifo(project / "patches/toy/mine.patch")
    before = snapshot(project) if kind != "pipe of the project" else None
    words = ["mine", "toy", "--target", str(site), "--description", "Mine", "--version", "1.0"]
    assert run_cli(["patch", "save", *words]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "put a file" in text
    assert "secret" not in text
    assert before is None or snapshot(project) == before


def test_large_library_is_compared_with_its_hash(site: Path) -> None:
    library = site / "toy" / "library.so"
    library.touch()
    os.truncate(library, 65 * 2**20)
    with (site / "toy-1.0.dist-info" / "RECORD").open("a") as file:
        file.write(f"toy/library.so,{record_hash(bytes(65 * 2**20))},{65 * 2**20}\n")
    target = find_at(site, "toy", "toy")
    assert edited_files.find(target) == []
    with library.open("r+b") as file:
        file.write(b"edited")
    assert edited_files.find(target) == ["toy/library.so"]
