"""The content of ``resolved.json``: everything that the tool tells the runtime about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from vime_runtime.spec.process_roles import Role
from vime_runtime.spec.recipe import Mode, Recipe
from vime_runtime.spec.run_paths import RunPaths
from vime_runtime.spec.strict import Strict


class RequiredVariable(Strict):
    """A variable without which a process refuses to start."""

    accepts: str = Field(description="Regular expression that a good value matches as a whole.")
    reason: str = Field(description="Why it is required.")


class RunConfig(Strict):
    """One run, resolved: the recipe with overrides and absolute paths, its folders and environments."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["vimectl.run/1"] = Field(default="vimectl.run/1", alias="schema")
    recipe: Recipe
    overrides: list[str] = Field(default_factory=list, description="The --set options, as given.")
    mode: Mode
    steps: int = Field(gt=0, description="Number of steps of the run.")
    settings_sha256: str = Field(description="Digest of the settings that the results depend on.")
    run_dir: str
    scratch_dir: str = Field(description="Private temporary folder; it is removed when the run has ended.")
    address: str | None = Field(default=None, description="host:port of an existing Ray cluster.")
    environment: dict[Role, dict[str, str]]
    required: dict[Role, dict[str, RequiredVariable]]

    @property
    def paths(self) -> RunPaths:
        """The files of the run directory."""
        return RunPaths(Path(self.run_dir))

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a run file. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json(path.read_bytes())

    def dump(self) -> str:
        """Return the text of the run file."""
        return self.model_dump_json(by_alias=True, indent=2) + "\n"
