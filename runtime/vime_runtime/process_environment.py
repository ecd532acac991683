"""Whether a process got the environment that was decided for it, looked at before anything reads it.

What a process inherits, an image exports or a start-up file of Python sets may say otherwise, and an
allocator that is configured wrongly is found out hours later, or never. The workers of an engine inherit
from its actor; they look as well, when vLLM loads its plugins, which is before they touch a device.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vime_runtime.logging.process_log import WORKER_NAME
from vime_runtime.spec.errors import WrongEnvironment
from vime_runtime.spec.process_roles import Role
from vime_runtime.spec.run_config import RunConfig

# What an engine's workers are to have, for them to find.
VARIABLE = "VIME_ENGINE_ENVIRONMENT"


@dataclass(frozen=True)
class EnvSpec:
    """What one process is to have.

    Attributes:
        values: every variable that was decided for it.
        required: those without which it must not start: a pattern of the values that do, and the reason.
    """

    values: dict[str, str]
    required: dict[str, tuple[str, str]]

    def require(self, process: str, environment: Mapping[str, str] = os.environ) -> None:
        """Look at this process's environment; what is not required and differs is told in its log.

        Raises:
            WrongEnvironment: a variable that is required has another value.
        """
        for name, value in self.values.items():
            found = environment.get(name)
            if found != value and name not in self.required:
                print(f"environment: {name} is {_shown(found)}, decided was {value!r}", flush=True)
        for name, (accepts, reason) in self.required.items():
            found = environment.get(name)
            if found is None or not re.fullmatch(accepts, found):
                decided = self.values.get(name, accepts)
                raise WrongEnvironment(
                    f"{process} has {name} {_shown(found)}, decided was {decided!r}: {reason}",
                    f"find what sets {name} there: the recipe's [env], a sitecustomize or .pth file of its "
                    "Python, or a library that it imports",
                )

    def tell_workers(self, folder: Path, engine: str) -> None:
        """Let the processes that this one starts know what they are to have, and where to say so if not."""
        refusal = folder / f"{engine.replace(' ', '-')}.refusal"
        refusal.unlink(missing_ok=True)  # of an attempt before this one
        os.environ[VARIABLE] = json.dumps({**asdict(self), "engine": engine, "refusal": str(refusal)})


def required(config: RunConfig, role: Role) -> dict[str, tuple[str, str]]:
    """What a process of a role must have, as the run file says: a pattern and a reason for each variable."""
    return {name: (each.accepts, each.reason) for name, each in config.required[role].items()}


def require_in_driver(config: RunConfig) -> None:
    """Look at the environment of this process, the run's driver. Raises WrongEnvironment."""
    EnvSpec(config.environment["driver"], required(config, "driver")).require("the driver")


def require_in_worker() -> None:
    """Look at this process's environment if it is a worker of an engine; elsewhere nothing.

    Raises:
        WrongEnvironment: as ``EnvSpec.require``. vLLM hides the reason from whoever started the engine, which
            finds it with ``worker_refusal``.
    """
    told = os.environ.get(VARIABLE)
    worker = WORKER_NAME.fullmatch(multiprocessing.current_process().name)
    if not (told and worker):
        return
    wanted = json.loads(told)
    try:
        EnvSpec(wanted["values"], wanted["required"]).require(f"worker {worker[1]} of {wanted['engine']}")
    except WrongEnvironment as e:
        Path(wanted["refusal"]).write_text(json.dumps([e.message, e.hint]), encoding="utf-8")
        raise


def worker_refusal() -> WrongEnvironment | None:
    """Why a worker that this process started refused to start, if one did."""
    told = os.environ.get(VARIABLE)
    refusal = Path(json.loads(told)["refusal"]) if told else None
    if refusal is None or not refusal.exists():
        return None
    return WrongEnvironment(*json.loads(refusal.read_text(encoding="utf-8")))


def _shown(value: str | None) -> str:
    return "not set" if value is None else repr(value)
