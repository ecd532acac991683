"""The program with which the run's own Ray starts a worker: set its environment, then execute it.

It stands in for Ray's setup_worker.py, which imports Ray for this, and so takes as long as the start of the
worker itself. The format of its arguments is that of Ray 2.60 (``RuntimeEnvContext`` in
ray/_private/runtime_env/context.py). What a run does not use is left to Ray's program.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

CONTEXT = "--serialized-runtime-env-context="
LANGUAGE = "--language="


def command(argv: list[str]) -> list[str]:
    """Return the command that starts the worker, and set its environment in this process.

    Args:
        argv: the arguments that the raylet adds: those of the worker, and the two options above.
    """
    context: dict[str, Any] = next(
        (json.loads(one.removeprefix(CONTEXT)) for one in argv if one.startswith(CONTEXT)), {}
    )
    variables = context.pop("env_vars", {})
    rest = {key: value for key, value in context.items() if value}
    if LANGUAGE + "PYTHON" not in argv or rest not in ({}, {"py_executable": sys.executable}):
        from ray._private.workers import setup_worker

        return [sys.executable, str(setup_worker.__file__), *argv]
    for name, value in variables.items():
        # As Ray does: ${NAME} is an inherited variable, or nothing.
        os.environ[name] = re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
    return [sys.executable, *(one for one in argv if not one.startswith((CONTEXT, LANGUAGE)))]


if __name__ == "__main__":
    arguments = command(sys.argv[1:])
    os.execv(arguments[0], arguments)  # nosec B606 # a list of arguments, without a shell
