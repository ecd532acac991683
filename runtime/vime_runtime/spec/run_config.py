"""The content of ``resolved.json``: everything that the tool tells the runtime about a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from vime_runtime.spec.private_values import SECRET, private_values
from vime_runtime.spec.process_roles import Role
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.regular_files import read_regular
from vime_runtime.spec.run_modes import Mode
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
    private: list[str] = Field(
        default_factory=list, description="Variables of [env] whose values are not in the file."
    )

    @property
    def paths(self) -> RunPaths:
        """The files of the run directory."""
        return RunPaths(Path(self.run_dir))

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read a run file, in a process of the run: it has the private values.

        Raises:
            OSError, pydantic.ValidationError: the file cannot be read.
        """
        config = cls.model_validate_json(read_regular(path))
        return config._with_values(private_values()) if config.private else config

    def masked(self) -> RunConfig:
        """Return the configuration without the private values."""
        shown = self._with_values(dict.fromkeys(self.private, SECRET))
        keys = [(assignment, assignment.partition("=")[0].strip()) for assignment in self.overrides]
        private = {f"env.{name}" for name in self.private}
        overrides = [f"{key}={SECRET}" if key in private else assignment for assignment, key in keys]
        return shown.model_copy(update={"overrides": overrides})

    def dump(self) -> str:
        """Return the text of the run file, without the private values."""
        return self.masked().model_dump_json(by_alias=True, indent=2) + "\n"

    def _with_values(self, values: Mapping[str, str]) -> RunConfig:
        """Return the configuration with other values of the variables that it has."""

        def changed(variables: dict[str, str]) -> dict[str, str]:
            return {name: values.get(name, value) for name, value in variables.items()}

        recipe = self.recipe.model_copy(update={"env": changed(self.recipe.env)})
        environment = {role: changed(variables) for role, variables in self.environment.items()}
        return self.model_copy(update={"recipe": recipe, "environment": environment})
