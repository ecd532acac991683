"""Training states in ``checkpoints/``: the names of their directories, and the manifest that completes one.

``checkpoints/step-000010`` is the state after step 10. A state is complete when it has a ``manifest.json``;
while it is being written its directory ends in ``.partial``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from vime_runtime.spec.atomic_io import FileRecord
from vime_runtime.spec.strict import Strict

MANIFEST_FILE = "manifest.json"
PARTIAL_SUFFIX = ".partial"
_STATE_NAME = re.compile(r"step-(\d{6,})")


class CheckpointManifest(Strict):
    """The content of ``manifest.json``."""

    schema_: Literal["vime.state/1"] = Field(default="vime.state/1", alias="schema")
    step: int
    settings: str = Field(description="RunConfig.settings_sha256 of the run that wrote the state.")
    files: dict[str, FileRecord]

    @classmethod
    def load(cls, state: Path) -> CheckpointManifest:
        """Read the manifest of a state's directory. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json((state / MANIFEST_FILE).read_bytes())

    def dump(self) -> str:
        """Return the text of the file."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"


def state_directory(checkpoints: Path, step: int) -> Path:
    """Return where the state after ``step`` is, or would be."""
    return checkpoints / f"step-{step:06}"


def state_steps(checkpoints: Path) -> list[int]:
    """Return the steps that have a directory, complete or not, in ascending order."""
    names = map(_STATE_NAME.fullmatch, (path.name for path in checkpoints.glob("step-*")))
    return sorted(int(name[1]) for name in names if name)


def newest_state(checkpoints: Path) -> Path | None:
    """Return the directory of the newest complete state. Its files are not compared with the manifest."""
    for step in reversed(state_steps(checkpoints)):
        state = state_directory(checkpoints, step)
        if (state / MANIFEST_FILE).is_file():
            return state
    return None
