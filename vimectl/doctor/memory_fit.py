"""recipe: whether what the recipe's model takes at least fits the devices and the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vime_runtime.spec.recipe import Recipe

from vimectl.doctor import limits, npu
from vimectl.doctor.estimate import Estimate, estimate
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.doctor.subject_model import config

_Judge = Callable[[Subject, Recipe, Estimate], Outcome]

_MORE_RANKS = "a larger train.tensor_parallel (or train.expert_parallel, of a model with experts)"


def checks() -> list[Check]:
    return [
        Check(
            "recipe.trainer-memory",
            "weights, fp32 gradients, master weights and two moments are 18 bytes a parameter (16 in fp32), "
            "shared by the ranks; and backward needs the activations of one longest response",
            partial(_judged, _trainer),
        ),
        Check(
            "recipe.engine-memory",
            "vLLM starts only if weights and the KV cache of one longest sequence fit into its share",
            partial(_judged, _engine),
        ),
        Check(
            "recipe.sync-memory",
            "while weights travel the trainer is awake, the engine has its weights, and a bucket is between",
            partial(_judged, _sync),
        ),
        Check(
            "recipe.host-memory",
            "paused trainers of devices wait in the host's memory ([memory] host_bytes)",
            partial(_judged, _host),
        ),
    ]


def _judged(judge: _Judge, subject: Subject) -> Outcome:
    found = config(subject)
    if subject.recipe is None or isinstance(found, str):
        return skipped(found if isinstance(found, str) else "no recipe is named")
    try:
        known = estimate(subject.recipe, found)
    except KeyError as e:
        return skipped(f"the model's config.json has no {e} (recipe.model)")
    return judge(subject, subject.recipe, known)


def _trainer(subject: Subject, recipe: Recipe, known: Estimate) -> Outcome:
    needed = known.trainer + known.activations
    tell = f"{known.parameters / 1e6:,.0f} million parameters: at least {size(needed)} a rank"
    mend = f"{_MORE_RANKS}, train.recompute=true, or shorter responses"
    return _on_device(subject, recipe, needed, tell, mend)


def _engine(subject: Subject, recipe: Recipe, known: Estimate) -> Outcome:
    share = recipe.rollout.memory_utilisation
    if recipe.rollout.kv_cache_bytes is not None:
        cache = recipe.rollout.kv_cache_bytes
        return judged(
            cache >= known.sequence,
            f"KV cache of {size(cache)} a rank ([rollout] kv_cache_bytes); a longest sequence takes "
            f"{size(known.sequence)}",
            f"{size(known.sequence)} or more",
            f"--set rollout.kv_cache_bytes={known.sequence}, or more for several at once",
        )
    total = _device_bytes(subject)
    needed = known.engine + known.sequence
    tell = f"weights {size(known.engine)}, a longest sequence {size(known.sequence)} a rank"
    if total is None:
        return skipped(f"{tell}; the devices' memory is not known")
    room = int(share * total)
    sequences = max(room - known.engine, 0) // known.sequence
    return judged(
        room >= needed,
        f"{tell}; {size(room)} of {size(total)} is the engine's share: {sequences} such sequences at once",
        f"{size(needed)} or more",
        "a larger rollout.memory_utilisation or rollout.tensor_parallel, or shorter responses",
    )


def _sync(subject: Subject, recipe: Recipe, known: Estimate) -> Outcome:
    buckets = 2 * recipe.sync.bucket_bytes  # one is filled while the other is read
    needed = known.trainer + known.engine + buckets
    tell = (
        f"trainer {size(known.trainer)}, engine's weights {size(known.engine)}, two buckets "
        f"{size(buckets)}: {size(needed)} a device"
    )
    mend = f"{_MORE_RANKS} or rollout.tensor_parallel, or a smaller sync.bucket_bytes"
    if not recipe.cluster.colocate:
        return skipped("trainer and engine are on devices of their own")
    return _on_device(subject, recipe, needed, tell, mend)


def _on_device(subject: Subject, recipe: Recipe, needed: int, tell: str, mend: str) -> Outcome:
    """Judge what each device needs; ranks on a CPU share the machine's memory."""
    if recipe.cluster.device != "cpu":
        total = _device_bytes(subject)
        if total is None:
            return skipped(f"{tell}; the devices' memory is not known")
        return judged(needed <= total, f"{tell}, of {size(total)}", f"at most {size(total)}", mend)
    found = limits.memory(subject.host)
    if found is None:
        return skipped(f"{tell}; /proc/meminfo has no MemAvailable")
    ranks = recipe.cluster.devices_per_node
    return judged(
        needed * ranks <= found.available,
        f"{tell}, {size(needed * ranks)} for {ranks} ranks, of {size(found.available)} available",
        f"{size(needed * ranks)} available",
        "end what uses the memory, or use a larger machine",
    )


def _device_bytes(subject: Subject) -> int | None:
    """The memory of the smallest device, as npu-smi gives it."""
    if subject.stack.stack.device != "npu":
        return None
    found = npu.listing(subject)
    totals = [chip.total for chip in found.chips if chip.total] if found else []
    return min(totals) * 1024**2 if totals else None


def _host(subject: Subject, recipe: Recipe, known: Estimate) -> Outcome:
    if recipe.cluster.device == "cpu":
        return skipped("on a CPU a paused trainer waits in a file (host.disk)")
    if not recipe.cluster.colocate:
        return skipped("the trainer is never paused")
    needed = known.trainer * recipe.cluster.devices_per_node
    declared = recipe.memory.host_bytes
    return judged(
        needed <= declared,
        f"{recipe.cluster.devices_per_node} paused ranks: {size(needed)}; host_bytes is {size(declared)}",
        f"host_bytes of {size(needed)} or more, which host.memory then looks for",
        f"--set memory.host_bytes={needed}",
        "warn",
    )
