"""``python -m vime_runtime.prepare KIND OUT_DIR SETTINGS_JSON``: make a checkpoint and its problems.

Progress and errors are JSON objects on stdout, one per line. Exit codes: 0 made; 2 bad kind or settings;
3 disk full.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vime_runtime.graceful_stop import signal_when_parent_exits
from vime_runtime.spec import events
from vime_runtime.spec.errors import MissingRequirement, UsageError, VimeError, unknown

# Module and settings class of each kind. A module has ``make(out_dir, settings, report)``. It is imported
# only when its kind is requested, because it imports torch.
KINDS = {
    "gguf": ("vime_runtime.prepare.gguf_file", "GgufSettings"),
    "reversed-digits": ("vime_runtime.prepare.reversed_digits", "ReversedDigitsSettings"),
}


def main(argv: list[str]) -> int:
    """Make the checkpoint that the command line describes and return the exit code."""
    kind, out_dir, settings_json = argv[1:]
    try:
        prepare(kind, Path(out_dir), json.loads(settings_json))
        return 0
    except UsageError as e:
        error: VimeError = e
    except Exception as e:
        if "No space left on device" not in str(e):  # not always an OSError: safetensors has its own class
            raise
        full = Path(out_dir).parent
        error = MissingRequirement(f"no space left in {full}", "free some space, or set XDG_CACHE_HOME=DIR")
    _emit(events.ERROR, error={"kind": error.kind, "message": error.message, "hint": error.hint})
    return error.exit_code


def prepare(kind: str, out_dir: Path, table: dict[str, Any]) -> None:
    """Make ``kind`` in ``out_dir`` with the settings of ``[prepare.settings]``.

    Raises:
        UsageError: unknown kind or key, or settings that do not work.
    """
    if kind not in KINDS:
        raise unknown("kind in [prepare]:", kind, KINDS)
    _emit(events.PHASE, phase=events.PREPARE, step=0, steps=0, detail="loading torch and transformers")
    module_name, settings_name = KINDS[kind]
    module = importlib.import_module(module_name)
    settings = _read_settings(getattr(module, settings_name), table)
    out_dir.mkdir(parents=True, exist_ok=True)

    def report(step: int, detail: str) -> None:
        _emit(events.PHASE, phase=events.PREPARE, step=step, steps=settings.max_steps, detail=detail)

    module.make(out_dir, settings, report)


def _read_settings(schema: type[Any], table: dict[str, Any]) -> Any:
    """Check keys and types of a table against a dataclass with defaults, and return the dataclass."""
    defaults = dataclasses.asdict(schema())
    for key, value in table.items():
        if key not in defaults:
            raise unknown("key in [prepare.settings]:", key, defaults)
        if type(value) is not type(defaults[key]):
            raise UsageError(
                f"prepare.settings.{key}: expected {type(defaults[key]).__name__}, found {value!r}"
            )
    return schema(**table)


def _emit(kind: str, **fields: Any) -> None:
    print(json.dumps({"time": time.time(), "kind": kind, **fields}), flush=True)


if __name__ == "__main__":
    signal_when_parent_exits(signal.SIGKILL)  # nothing else would use the result
    sys.exit(main(sys.argv))
