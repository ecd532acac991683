"""How a bucket gets into a vLLM worker, for each shape that vLLM's weight-transfer API has had.

The trainer's side is ours in every release and imports no vLLM: ``BucketExporter`` makes bucket messages.
In the worker ours is ``Receiver``. What differs between releases lies between the two:

rpc         before 0.22: our worker extension is called directly
flagged     0.22 to 0.24: an engine made with the model; the worker keeps the cycle of an update, with a flag
owned       0.25: the engine keeps the cycle itself
stateful    from 0.26: engines with state on both sides

vLLM's version says which of them to expect. What counts is what the classes really have: vllm-ascend
0.24.0rc1 takes two shapes, and the worker of 0.25.1rc1 and 0.26.0rc1 still keeps the cycle although vLLM's
engine does by then.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from inspect import signature
from typing import Any

from packaging.version import InvalidVersion, Version

from vime_runtime.weight_sync.generations.route import Route

# The name by which vLLM's configuration asks for our engine.
BACKEND = "vime-buckets"

FLAG = "is_checkpoint_format"


@dataclass(frozen=True)
class Generation:
    """A shape of the API.

    Attributes:
        since: vLLM's first release with it.
        constructor: what the constructor of vLLM's ``WeightTransferEngine`` takes.
        trainer: whether vLLM has engines for the trainer's side as well.
    """

    name: str
    since: str
    constructor: tuple[str, ...]
    trainer: bool = False


GENERATIONS = (
    Generation("rpc", "0", ("config", "parallel_config")),
    Generation("flagged", "0.22", ("config", "parallel_config", "model")),
    Generation("owned", "0.25", ("config", "vllm_config", "device", "model")),
    Generation("stateful", "0.26", ("config", "vllm_config", "device", "model"), trainer=True),
)


def of_vllm() -> Generation:
    """The shape that the installed vLLM has.

    Raises:
        RuntimeError: it is none of those that are known.
    """
    import vllm
    from vllm.distributed.weight_transfer import base

    constructor = tuple(signature(base.WeightTransferEngine.__init__).parameters)[1:]
    trainer = hasattr(base, "TrainerWeightTransferEngine")
    for generation in (_expected(vllm.__version__), *reversed(GENERATIONS)):
        if (generation.constructor, generation.trainer) == (constructor, trainer):
            return generation
    raise RuntimeError(
        f"vLLM {vllm.__version__} has a weight-transfer API that is not known here: "
        f"WeightTransferEngine({', '.join(constructor)})"
    )


def arguments() -> dict[str, Any]:
    """What an engine of the installed vLLM must be told to take buckets."""
    return {} if of_vllm().name == "rpc" else {"weight_transfer_config": {"backend": BACKEND}}


def register() -> None:
    """Make our engine known to the installed vLLM; it is imported when used."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    name = of_vllm().name
    if name != "rpc":
        WeightTransferEngineFactory.register_engine(BACKEND, f"{__name__}.{name}", "BucketEngine")


def route(worker: Any) -> Route:
    """How buckets reach the receiver of this worker, by the methods that its class really has."""
    start = getattr(worker, "start_weight_update", None)
    if start is None or of_vllm().name == "rpc":
        name = "rpc"
    elif FLAG in signature(start).parameters:
        name = "flagged"
    else:
        name = "owned"
    return importlib.import_module(f"{__name__}.{name}").BucketRoute(worker)


def _expected(version: str) -> Generation:
    """The newest shape that this release can have; of a version that says nothing, the newest of all."""
    try:
        installed = Version(version)
    except InvalidVersion:
        return GENERATIONS[-1]
    return [each for each in GENERATIONS if Version(each.since).release <= installed.release][-1]
