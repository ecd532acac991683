from __future__ import annotations

import re
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches import content, series
from vimectl.patches.series import Series

SHIPPED = [(package, version) for package, versions in series.known().items() for version in versions]
DEP3 = ("Description", "Origin", "Forwarded", "Last-Update")


def test_chains_list_every_state_of_a_file(toy_series: Series) -> None:
    first, second = toy_series.patch
    both = toy_series.chains["toy/both.py"]
    assert both == [first.files[0].before, first.files[0].after, second.files[0].after]
    assert toy_series.chains["toy/new.py"][0] is None
    assert toy_series.touching("toy/crlf.py") == [second]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "toy/new.py"', 'path = "../outside.py"', "pattern"),
        ('path = "toy/new.py"', 'path = "/etc/passwd"', "pattern"),
        ('path = "toy/new.py"', 'path = ".git/hooks/x"', "pattern"),
        ('path = "toy/crlf.py"', 'path = "toy/new.py"', "does not start where"),
        ('module = "toy"', 'module = "toy"\ncomment = "x"', "unknown key 'comment'"),
        ('module = "toy"', 'module = "toy"\nunneeded = { first = "x" }', "0001-first is in the series, but"),
        ('id = "0001-first"', 'id = "first"', "pattern"),
    ],
)
def test_malformed_series_is_refused(
    toy_series: Series, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (toy_series.directory / "series.toml").read_text()
    assert old in text
    (tmp_path / "series.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message):
        series.read(tmp_path)


@pytest.mark.parametrize(("package", "version"), SHIPPED)
def test_shipped_patches_agree_with_their_series(package: str, version: str) -> None:
    one = series.load(package, version)
    assert series.read(one.directory) == one  # load does not validate
    assert (one.package, one.version) == (package, version)
    listed = {f"{patch.id}.patch" for patch in one.patch}
    assert {path.name for path in one.directory.glob("*.patch")} == listed
    for patch in one.patch:
        path = one.directory / f"{patch.id}.patch"
        header, text = path.read_text().split("\n---\n", 1)
        assert set(DEP3) <= {line.partition(":")[0] for line in header.splitlines()}
        assert set(content.read_diffs(path)) == {file.path for file in patch.files}
        ids = re.findall(r"^index ([0-9a-f]{40})\.\.([0-9a-f]{40}) ", text, re.MULTILINE)
        assert ids == [(file.before, file.after) for file in patch.files]
