"""Check that a process has the environment variables that the tool decided on, before a library reads them.

Inherited variables, an image, or a start-up file of Python can change them. Without a check, a wrong
allocator setting would be noticed hours later, or never. The workers of an engine inherit the variables of
its actor. They check them when vLLM loads its plugins, which is before they use a device, and get their logs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from vime_runtime.logging.process_log import redirect_output
from vime_runtime.spec.errors import WrongEnvironment
from vime_runtime.spec.run_config import RequiredVariable
from vime_runtime.spec.run_paths import RunPaths
from vime_runtime.spec.strict import Strict

# Passes the specification on to the workers of an engine.
VARIABLE = "VIME_ENGINE_ENVIRONMENT"
# How vLLM names the processes of an engine's tensor-parallel ranks.
WORKER_NAME = re.compile(r"VllmWorker-(\d+)")


class EnvSpec(Strict):
    """The variables of one process, and those that are required, by name."""

    values: dict[str, str]
    required: dict[str, RequiredVariable]

    def require(self, process: str, environment: Mapping[str, str] = os.environ) -> None:
        """Check the environment of this process; print a difference in a variable that is not required.

        Raises:
            WrongEnvironment: a required variable has another value.
        """
        for name, value in self.values.items():
            found = environment.get(name)
            if found != value and name not in self.required:
                print(f"environment: {name} is {_shown(found)}, expected {value!r}", flush=True)
        for name, variable in self.required.items():
            found = environment.get(name)
            if found is None or not re.fullmatch(variable.accepts, found):
                # A recipe's [env] may have set a value that is not accepted.
                value = self.values.get(name, "")
                expected = value if re.fullmatch(variable.accepts, value) else variable.accepts
                raise WrongEnvironment(
                    f"{process} has {name} {_shown(found)}, expected {expected!r}: {variable.reason}",
                    f"find what sets {name} there: the recipe's [env], a sitecustomize or .pth file of its "
                    "Python, or a library that it imports",
                )

    def pass_to_workers(self, run_dir: str, engine: str) -> None:
        """Pass the specification to the workers that this process starts."""
        _error_file(engine).unlink(missing_ok=True)  # of an earlier attempt
        os.environ[VARIABLE] = _WorkerSpec(engine=engine, run_dir=run_dir, spec=self).model_dump_json()


class _WorkerSpec(Strict):
    engine: str
    run_dir: str
    spec: EnvSpec


def prepare_worker() -> None:
    """Give this process its own log and check its environment, if it is a worker of an engine.

    Raises:
        WrongEnvironment: as ``EnvSpec.require``. vLLM does not pass the error on to the process that starts
            the engine, which therefore calls ``worker_error``.
    """
    text = os.environ.get(VARIABLE)
    worker = WORKER_NAME.fullmatch(multiprocessing.current_process().name)
    if not (text and worker):
        return
    passed = _WorkerSpec.model_validate_json(text)
    redirect_output(RunPaths(Path(passed.run_dir)), f"{passed.engine} worker {worker[1]}")
    try:
        passed.spec.require(f"worker {worker[1]} of {passed.engine}")
    except WrongEnvironment as e:
        _error_file(passed.engine).write_text(json.dumps([e.message, e.hint]), encoding="utf-8")
        raise


def worker_error(engine: str) -> WrongEnvironment | None:
    """Return why a worker of this engine refused to start, if one did."""
    file = _error_file(engine)
    return WrongEnvironment(*json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def _error_file(engine: str) -> Path:
    return Path(tempfile.gettempdir(), f"{engine.replace(' ', '-')}.refusal")


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)
