"""``python -m vime_runtime.prepare KIND OUT_DIR SETTINGS_JSON``: make a checkpoint and its problems.

Progress is one JSON object a line on stdout. Exit codes: 0 made; 2 the kind or the settings are bad;
3 the disk is full.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

# A kind is a module with a dataclass ``Settings`` and ``make(out_dir, settings, report)``; it is
# imported when asked for, because it imports torch.
KINDS = {
    "gguf": "vime_runtime.prepare.gguf_file",
    "reversed-digits": "vime_runtime.prepare.reversed_digits",
}

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: list[str]) -> int:
    """Make what the command line asks for and return the exit code."""
    kind, out_dir, settings_json = argv[1:]
    try:
        prepare(kind, Path(out_dir), json.loads(settings_json))
    except UsageError as e:
        _emit("error", error={"kind": "bad-input", "message": e.message, "hint": e.hint})
        return 2
    except Exception as e:
        if "No space left on device" not in str(e):  # safetensors has an error class of its own for it
            raise
        message, hint = f"no space left in {out_dir.parent}", "free some space, or set XDG_CACHE_HOME=DIR"
        _emit("error", error={"kind": "machine-lacks", "message": message, "hint": hint})
        return 3
    return 0


def prepare(kind: str, out_dir: Path, table: dict[str, Any]) -> None:
    """Make ``kind`` in ``out_dir``.

    Raises:
        UsageError: an unknown kind or setting, or settings that lead nowhere.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r} in [prepare]", f"known: {', '.join(KINDS)}")
    _emit("phase", phase="prepare", step=0, steps=0, detail="loading torch and transformers")
    module = importlib.import_module(KINDS[kind])
    settings = _settings(module.Settings, table)
    out_dir.mkdir(parents=True, exist_ok=True)

    def report(step: int, detail: str) -> None:
        _emit("phase", phase="prepare", step=step, steps=settings.max_steps, detail=detail)

    module.make(out_dir, settings, report)


def _settings(schema: type[Any], table: dict[str, Any]) -> Any:
    """Check a table against a dataclass of plain values with defaults."""
    defaults = dataclasses.asdict(schema())
    for key, value in table.items():
        if key not in defaults:
            raise UsageError(f"unknown key {key!r} in [prepare.settings]", f"known: {', '.join(defaults)}")
        if type(value) is not type(defaults[key]):
            raise UsageError(
                f"prepare.settings.{key}: expected {type(defaults[key]).__name__}, found {value!r}"
            )
    return schema(**table)


def _emit(kind: str, **fields: Any) -> None:
    print(json.dumps({"time": time.time(), "kind": kind, **fields}), flush=True)


if __name__ == "__main__":
    # To be killed with whoever started this: nobody would wait for it then.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    sys.exit(main(sys.argv))
