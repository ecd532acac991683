"""Problems and verifiers of the library reasoning-gym: ``data.path = "reasoning_gym:TASK"``.

``python -m vime_runtime.data.reasoning_gym PATH SETTINGS_JSON`` checks a path and its settings without torch
and prints an error on stdout, as one JSON object. Exit codes: 0 no error; 2 bad input.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import types
from typing import Any

from vime_runtime.spec.errors import UsageError, nearest
from vime_runtime.spec.recipe import TASK_PREFIX

# Packages that only single tasks of the library need; the stack's lock leaves them out. The library imports
# all tasks at once, so without a placeholder one missing package would break every task.
SINGLE_TASK_PACKAGES = ("cellpylib", "pycosat", "zss")


def create(path: str, settings: dict[str, Any]) -> Any:
    """Return the ``ProceduralDataset`` of a task: a sequence of entries with ``score_answer(answer, entry)``.

    The same settings give the same entries; the default ``seed`` is 0.

    Raises:
        UsageError: an unknown task or setting, a value that the task refuses, or a missing package.
    """
    datasets = _library()
    task = path.removeprefix(TASK_PREFIX)
    if task not in datasets:
        raise UsageError(
            f"reasoning_gym has no task {task!r}.{nearest(task, datasets)}",
            f"it has {', '.join(sorted(datasets))}",
        )
    dataset_class, config_class = datasets[task]
    known = [field.name for field in dataclasses.fields(config_class)]
    for key in settings:
        if key not in known:
            raise UsageError(
                f"the task {task} has no setting {key!r}.{nearest(key, known)}",
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
        raise _package_error(task, str(e.name)) from e
    except Exception as e:  # the library raises many types for a wrong value; most are assertions
        raise UsageError(
            f"the task {task} refuses its settings: {e or type(e).__name__}",
            f"see the settings of reasoning-gym's {config_class.__name__}: {', '.join(known)}",
        ) from e
    return dataset


def _library() -> dict[str, tuple[type, type]]:
    """Return the dataset class and the configuration class of every task of the library."""
    for name in SINGLE_TASK_PACKAGES:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _MissingPackage(name)
    try:
        from reasoning_gym.factory import DATASETS
    except ImportError as e:
        raise UsageError(str(e), "install the package reasoning-gym") from e
    finally:
        for name in SINGLE_TASK_PACKAGES:
            if isinstance(sys.modules.get(name), _MissingPackage):
                del sys.modules[name]
    datasets: dict[str, tuple[type, type]] = DATASETS
    return datasets


class _MissingPackage(types.ModuleType):
    """A placeholder for a missing package; using it raises what importing the package would have raised."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"No module named {self.__name__!r}", name=self.__name__)


def _refuse_missing(task: str, dataset_class: type) -> None:
    """Raise UsageError if the task uses a package that is missing."""
    # Some tasks need the package only to score a wrong answer; this must be reported before the run.
    for value in vars(sys.modules[dataset_class.__module__]).values():
        if isinstance(value, _MissingPackage):
            raise _package_error(task, value.__name__)


def _package_error(task: str, package: str) -> UsageError:
    return UsageError(
        f"the task {task} needs the package {package}, which is not installed",
        f"install {package}, which has no wheel, or choose another task",
    )


def main(argv: list[str]) -> int:
    """Check the path and the settings on the command line; return the exit code."""
    path, settings_json = argv[1:]
    try:
        create(path, json.loads(settings_json))
    except UsageError as e:
        print(json.dumps({"message": e.message, "hint": e.hint}))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
