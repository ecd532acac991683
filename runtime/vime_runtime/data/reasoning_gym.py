"""Problems and verifiers of the library reasoning-gym: ``data.path = "reasoning_gym:TASK"``.

``python -m vime_runtime.data.reasoning_gym PATH SETTINGS_JSON`` checks a path and its settings without torch
and prints what is wrong on stdout, as one JSON object. Exit codes: 0 all is well; 2 the input is bad.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import sys
import types
from collections.abc import Iterable
from typing import Any

from vime_runtime.spec.errors import UsageError

PREFIX = "reasoning_gym:"

# What single tasks of the library need and the stack's lock leaves out. The library imports all of it at
# once, so that one that is missing would take every task with it.
OF_SINGLE_TASKS = ("cellpylib", "pycosat", "zss")


def is_task(path: str) -> bool:
    """Whether ``data.path`` names a task instead of a file."""
    return path.startswith(PREFIX)


def create(path: str, settings: dict[str, Any]) -> Any:
    """Return the ``ProceduralDataset`` of a task: a sequence of entries with ``score_answer(answer, entry)``.

    The same settings give the same entries; a ``seed`` that is not given is 0.

    Raises:
        UsageError: an unknown task or setting, a value that the task refuses, or a package that is missing.
    """
    datasets = _library()
    task = path.removeprefix(PREFIX)
    if task not in datasets:
        raise UsageError(
            f"data.path: reasoning_gym has no task {task!r}.{_nearest(task, datasets)}",
            f"it has {', '.join(sorted(datasets))}",
        )
    dataset_class, config_class = datasets[task]
    known = [field.name for field in dataclasses.fields(config_class)]
    for key in settings:
        if key not in known:
            raise UsageError(
                f"data.settings: the task {task} has no setting {key!r}.{_nearest(key, known)}",
                f"it has {', '.join(known)}",
            )
    _refuse_missing(task, dataset_class)
    try:
        dataset = dataset_class(config=config_class(**{"seed": 0, **settings}))
        if type(len(dataset)) is not int or len(dataset) < 1:
            raise ValueError("size must be a positive number")
        first = dataset[0]
        dataset.score_answer(first["answer"], first)
    except ModuleNotFoundError as e:
        raise _lacks(task, str(e.name)) from e
    except Exception as e:  # whatever the library makes of a wrong value; most are assertions
        raise UsageError(
            f"data.settings: the task {task} refuses them: {e or type(e).__name__}",
            f"see the settings of reasoning-gym's {config_class.__name__}: {', '.join(known)}",
        ) from e
    return dataset


def _library() -> dict[str, tuple[type, type]]:
    """Every task of the library: its dataset class and its configuration class."""
    for name in OF_SINGLE_TASKS:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _Missing(name)
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as e:
        raise UsageError(f"data.path: {e}", "install the package reasoning-gym") from e
    finally:
        for name in OF_SINGLE_TASKS:
            if isinstance(sys.modules.get(name), _Missing):
                del sys.modules[name]
    return DATASETS


class _Missing(types.ModuleType):
    """Stands in for a package while the library is imported; using it is the error that its import was."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"No module named {self.__name__!r}", name=self.__name__)


def _refuse_missing(task: str, dataset_class: type) -> None:
    # Some tasks need the package only to score a wrong answer: it has to be told before the run.
    for value in vars(sys.modules[dataset_class.__module__]).values():
        if isinstance(value, _Missing):
            raise _lacks(task, value.__name__)


def _lacks(task: str, package: str) -> UsageError:
    return UsageError(
        f"data.path: the task {task} needs the package {package}, which is not installed",
        f"install {package}, which has no wheel, or choose another task",
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(found)}?" if found else ""


def main(argv: list[str]) -> int:
    """Check what the command line says and return the exit code."""
    path, settings_json = argv[1:]
    try:
        create(path, json.loads(settings_json))
    except UsageError as e:
        print(json.dumps({"message": e.message, "hint": e.hint}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
