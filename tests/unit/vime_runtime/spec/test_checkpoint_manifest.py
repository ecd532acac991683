from __future__ import annotations

import json
from pathlib import Path

from vime_runtime.spec.atomic_io import FileRecord
from vime_runtime.spec.checkpoint_manifest import (
    CheckpointManifest,
    newest_state,
    state_directory,
    state_steps,
)


def test_a_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest = CheckpointManifest(step=5, settings="abc", files={"rank-0": FileRecord(3, "00ff")})
    (tmp_path / "manifest.json").write_text(manifest.dump())
    assert CheckpointManifest.load(tmp_path) == manifest
    assert json.loads(manifest.dump()) == {
        "schema": "vime.state/1",
        "step": 5,
        "settings": "abc",
        "files": {"rank-0": {"bytes": 3, "sha256": "00ff"}},
    }


def test_the_newest_state_with_a_manifest_is_found(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "absent") is None
    for name in ("step-000002", "step-1000000", "step-1000001.partial", "step-x", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    state_directory(tmp_path, 1000002).mkdir()
    assert state_steps(tmp_path) == [2, 1000000, 1000002]
    assert newest_state(tmp_path) == state_directory(tmp_path, 1000000)
