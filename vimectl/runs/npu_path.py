"""What the NPU path does step by step, and what has been proven of it without an Ascend machine.

The steps are data, ``npu_path.toml`` beside this module; ``scripts/npu_proof.py`` writes ``docs/npu-path.md``
from them. Until a run has completed on NPUs from this account, a run says what is unproven.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, model_validator
from typing_extensions import Self
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.strict import Strict

from vimectl import __version__
from vimectl.util.toml import load

REPORT = (
    "Whether it works or not, please tell: `vimectl doctor --bundle report.zip` collects what a report "
    "needs, without secrets and names of people; attach it together with summary.json of the run."
)


class Removal(Strict):
    """A text of a file without which a test has to fail: ``instead`` takes its place."""

    file: str
    text: str
    instead: str = ""


class Item(Strict):
    """Something that the path must do because its lack has bitten somebody.

    ``scripts/npu_removals.py`` does each ``removal`` and runs ``tests``: one at least has to
    fail. ``pinned`` says why there is nothing to remove.
    """

    id: str
    says: str
    tests: list[str] = Field(min_length=1)
    removal: list[Removal] = Field(default_factory=list)
    pinned: str = ""

    @model_validator(mode="after")
    def _removed_or_pinned(self) -> Self:
        if bool(self.removal) == bool(self.pinned):
            raise ValueError(f"item {self.id} has either a removal or the reason why it has none")
        return self


class Step(Strict):
    """One step of the path.

    ``running`` are tests that run it on a CPU, ``sources`` tests that run it against released sources of
    upstream with stand-ins for the hardware alone: as "file::function". ``unproven`` is what only an Ascend
    machine can tell.
    """

    id: str
    does: str
    running: list[str] = Field(default_factory=list)
    sources: list[str] = Field(default_factory=list)
    unproven: str = Field(default="", max_length=100)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.running or self.sources or self.unproven):
            raise ValueError(f"step {self.id} is neither proven nor unproven")
        return self


class NpuPath(Strict):
    """The whole of ``npu_path.toml``."""

    item: list[Item]
    step: list[Step]


@lru_cache(maxsize=1)
def path() -> NpuPath:
    """The steps in their order, and the items that each have a test of their own."""
    return load(NpuPath, Path(__file__).with_name("npu_path.toml"))


def unproven() -> list[Step]:
    """The steps of which something is left that only an Ascend machine can tell."""
    return [step for step in path().step if step.unproven]


def named_tests() -> list[str]:
    """Every test that a step or an item names, once."""
    named = [test for item in path().item for test in item.tests]
    named += [test for step in path().step for test in (*step.running, *step.sources)]
    return list(dict.fromkeys(named))


def notice(recipe: Recipe) -> str:
    """What a run on NPUs says of itself; nothing on other devices."""
    if recipe.cluster.device != "npu":
        return ""
    steps = [f"  {step.does}: {step.unproven}" for step in unproven()]
    return "\n".join(["What no NPU has proven yet:", *steps, REPORT])


def completed(recipe: Recipe) -> bool:
    """Whether a run on NPUs has completed from this account with the recipe's stack."""
    return _marker(recipe).exists()


def note_completed(recipe: Recipe, summary: dict[str, Any]) -> None:
    """Remember that a run on NPUs completed."""
    if recipe.cluster.device != "npu":
        return
    _marker(recipe).parent.mkdir(parents=True, exist_ok=True)
    document = {"time": time.time(), "version": __version__, "summary": summary}
    _marker(recipe).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _marker(recipe: Recipe) -> Path:
    return Path(platformdirs.user_state_dir("vimectl")) / "npu-path" / f"{recipe.recipe.stack}.json"
