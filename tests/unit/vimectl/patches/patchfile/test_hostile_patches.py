from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.hostile_patches import Hostile, cases
from harness.patches.toy_packages import snapshot
from vimectl.patches import series
from vimectl.patches.interchange.importers import import_patches
from vimectl.patches.lint.linter import lint
from vimectl.patches.release_files import SourceTree

HOSTILE = cases()
BEFORE = b"a\nb\nc\nd\n"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Return a folder with a target, files outside of it that a patch may try to reach, and a series."""
    target = tmp_path / "world" / "site-packages"
    (target / "toy" / "sub").mkdir(parents=True)
    (target / "toy" / "__init__.py").touch()
    (target / "toy" / "both.py").write_bytes(BEFORE)
    (target / "toy" / "link").symlink_to("both.py")
    (target / ".git" / "hooks").mkdir(parents=True)
    (target / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    for name in ("victim", "changed.py", "secret"):
        (tmp_path / "world" / name).write_bytes(BEFORE)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "series").write_text("0001-hostile.patch\n")
    (tmp_path / "series" / "series.toml").write_text('package = "toy"\nversion = "1.0"\nmodule = "toy"\n')
    return tmp_path


@pytest.mark.parametrize("one", HOSTILE, ids=lambda one: one.name)
def test_hostile_patch_is_refused_and_writes_nothing(one: Hostile, world: Path) -> None:
    patch = world / "series" / "0001-hostile.patch"
    patch.write_bytes(one.patch)
    before = snapshot(world)
    (report,) = lint([patch])
    errors = {finding.rule for finding in report.findings if finding.severity == "error"}
    assert one.rule in errors
    assert json.dumps(report.as_json())
    with pytest.raises(UsageError) as refused:
        series.read(world / "series")
    message = refused.value.message
    assert any(f": {rule}: " in message for rule in errors) or re.search("more than|full blob ids", message)
    with pytest.raises(UsageError):
        import_patches([patch], SourceTree(world / "world" / "site-packages"))
    assert snapshot(world) == before
