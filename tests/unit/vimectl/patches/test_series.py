from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.toy_packages import build_series
from vimectl.patches import series
from vimectl.patches.series import Series, stack_up

SHIPPED = [(package, version) for package, versions in series.known().items() for version in versions]
DEP3 = ("Description", "Origin", "Forwarded", "Last-Update")


def test_chains_list_every_state_of_a_file(toy_series: Series) -> None:
    first, second = toy_series.patches
    both = toy_series.chains["toy/both.py"]
    assert both == [
        first.diffs["toy/both.py"].old_blob,
        first.diffs["toy/both.py"].new_blob,
        second.diffs["toy/both.py"].new_blob,
    ]
    assert toy_series.chains["toy/new.py"][0] is None
    assert toy_series.touching("toy/crlf.py") == [second]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("0001-first.patch", "toy/new.py", "../outside.py", "leads out of the target"),
        ("0001-first.patch", "toy/new.py", ".git/hooks/x", "is in .git"),
        ("0001-first.patch", "..", "..0", "full blob ids|does not start|index"),
        (
            "series",
            "0001-first.patch\n0002-second.patch\n",
            "0002-second.patch\n0001-first.patch\n",
            "0001-first starts at toy/both.py",
        ),
        ("series", "0001-first.patch\n", "../0001-first.patch\n", "outside of the directory"),
        ("series", "0001-first.patch\n", "0001-first.patch -R\n", "only -p with a number is supported"),
        ("series", "0001-first.patch\n", "0001-first.patch -p0\n", "is not for -p1"),
        ("series", "0001-first.patch\n", "gone.patch\n", "gone.patch: no such file"),
        ("series.toml", "module", "modul", "unknown key 'modul'. Did you mean module"),
        ("series.toml", 'package = "toy"', "package = 1", "'package' is not a str"),
    ],
)
def test_malformed_series_is_refused(
    toy_series: Series, tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    shutil.copytree(toy_series.directory, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / file).read_bytes()
    assert old.encode() in text
    (tmp_path / file).write_bytes(text.replace(old.encode(), new.encode()))
    with pytest.raises(UsageError, match=message):
        series.read(tmp_path)


def test_series_without_a_description_of_its_own(toy_series: Series, tmp_path: Path) -> None:
    shutil.copytree(toy_series.directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "series.toml").unlink()
    (tmp_path / "series").write_text("# ours\n\n0001-first.patch # first\n0002-second.patch -p1\n")
    found = series.read(tmp_path)
    assert (found.package, found.version, found.chains) == ("", "", toy_series.chains)


@pytest.mark.parametrize(
    ("diff", "message"),
    [
        ("diff --git a/x b/y\nrename from x\nrename to y\n", ":4: y: a series has no rename"),
        (
            f"diff --git a/x b/x\ndeleted file mode 100644\nindex {'1' * 40}..{'0' * 40}\n"
            f"diff --git a/x b/x\nnew file mode 120000\nindex {'0' * 40}..{'2' * 40}\n"
            "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+y\n\\ No newline at end of file\n",
            ":7: x: a second diff of the same file",
        ),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", ":4: x: the index line is missing"),
        ("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", ":4: x: the index line is missing"),
    ],
)
def test_diff_that_a_series_cannot_have_is_refused(diff: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        series.parse_patch("p", f"Description: p\n\n---\n{diff}".encode())
    assert "vimectl patch import" in caught.value.hint


def test_series_are_stacked(toy_series: Series, tmp_path: Path) -> None:
    files = {"toy/both.py": b"a\nB\nc\nD\n", "toy/more.py": b""}
    stages = [{path: (0o644, content) for path, content in files.items()}]
    stages.append(stages[0] | {"toy/both.py": (0o644, b"A\nB\nc\nD\n")})
    upper = build_series("toy", stages, tmp_path / "upper")
    whole = stack_up([toy_series, upper])
    assert [patch.id for patch in whole.patches] == ["0001-first", "0002-second", "0001-first-2"]
    assert len(whole.chains["toy/both.py"]) == 4
    assert whole.directories == (toy_series.directory, tmp_path / "upper")
    with pytest.raises(UsageError, match=r"0001-first-2 starts at toy/both.py"):
        stack_up([upper, toy_series])


@pytest.mark.parametrize(("package", "version"), SHIPPED)
def test_shipped_series_are_complete(package: str, version: str) -> None:
    one = series.load(package, version)
    assert (one.package, one.version) == (package, version)
    listed = {f"{patch.id}.patch" for patch in one.patches}
    assert {path.name for path in one.directory.glob("*.patch")} == listed
    assert not {patch.id[5:] for patch in one.patches} & one.unneeded.keys()
    for patch in one.patches:
        assert set(DEP3) <= {line.partition(":")[0] for line in patch.header.decode().splitlines()}
