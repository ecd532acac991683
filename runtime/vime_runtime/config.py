"""The one JSON file that says everything about a run, as attributes: ``config.recipe.train.tensor_parallel``.

The file was checked against the recipe schema by whoever wrote it; here it is only read.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Config = SimpleNamespace


def load(path: Path) -> Config:
    """Read the resolved run file. Tables become namespaces, lists stay lists, null becomes None."""
    return from_dict(json.loads(path.read_text(encoding="utf-8")))


def from_dict(document: dict[str, Any]) -> Config:
    """Turn nested dictionaries into nested namespaces."""
    return json.loads(json.dumps(document), object_hook=lambda table: SimpleNamespace(**table))


def to_dict(config: Config) -> dict[str, Any]:
    """Turn nested namespaces back into dictionaries, to cross a process boundary."""
    return json.loads(json.dumps(config, default=vars))
