"""Compute how much memory of one device trainer and engine hold in each phase of a step.

Every number is computed from the recipe and the shape of the model; ``tests/npu/proof/account.py`` measures
the same at a tiny size. Contexts of the drivers, workspaces of kernels, captured graphs and the rounding of
allocators are not included. ``MARGIN`` is for those.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vime_runtime.spec import metrics
from vime_runtime.spec.device_layout import trainer_communicators
from vime_runtime.spec.model_families import FAMILIES
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import Recipe

ELEMENT = {"bfloat16": 2, "float32": 4}
# Bytes a parameter in the training region, and in a training state (optimizer.py): weights, fp32 master
# weights of bf16 ones, and two fp32 moments.
REGION = {"bfloat16": 2 + 4 + 8, "float32": 4 + 8}
# Those of them that a distributed optimizer shards over the data-parallel ranks.
SHARDED = {"bfloat16": 4 + 8, "float32": 8}
GRADIENT = 4  # grad_reduce_in_fp32 (optimizer.py)
# Bytes of the fp32 logits that exist at a time (logprobs.py). With a vocabulary of 150,000 over two ranks
# these are 900 tokens, enough for efficient matrix products.
LOGITS_CHUNK_BYTES = 256 * 1024**2
# Bytes per token and column of the vocabulary in such a chunk: the scaled logits and their exp, in fp32; then
# their fp32 gradient, and that in model.dtype if it is another.
LOGITS = 4 + 4
GRAD_LOGITS = {"bfloat16": 4 + 2, "float32": 4}
# MB of each of the two buffers of a communicator (CANN's documentation of HCCL_BUFFSIZE). It is the default
# of the trainer, and what every engine has (``_DEFAULT_BUFFER_SIZE`` in vllm_ascend/utils.py).
HCCL_BUFFSIZE = 200
BUCKETS = 2  # one is filled while the other is read (ipc.py)
# The part of a device's memory that must be free when the trainer resumes: 2 of 64 GiB. A step needs room for
# activations, and HCCL and the drivers allocate outside of torch. vime keeps 2 GiB for this.
MARGIN = 1 / 32


@dataclass(frozen=True)
class Held:
    """Bytes that one holder has in a phase, and how they were computed."""

    nbytes: int
    how: str


Phases = dict[str, dict[str, Held]]


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters: of the whole model, of its experts, and of one trainer rank.

    Attributes:
        per_rank: those of which a trainer rank has the weights.
        optimized: those of which it has master weights and moments.
    """

    total: int
    experts: int
    per_rank: int
    optimized: int

    @classmethod
    def of(cls, recipe: Recipe, shape: ModelShape) -> ParameterCount:
        """Count the parameters. With expert parallelism whole experts are on a rank, otherwise shards."""
        tensors = FAMILIES[shape.model_type].tensors(shape)
        total = sum(map(prod, tensors.values()))
        experts = sum(prod(dims) for name, dims in tensors.items() if ".mlp.experts." in name)
        train = recipe.train
        expert_ranks = train.expert_parallel if train.expert_parallel > 1 else train.tensor_parallel
        per_rank = round((total - experts) / train.tensor_parallel + experts / expert_ranks)
        # A distributed optimizer shards the parameters over all ranks that have the same ones.
        ranks = recipe.cluster.devices
        optimized = -(-total // ranks) if train.distributed_optimizer else per_rank
        return cls(total, experts, per_rank, optimized)


def device_memory(
    recipe: Recipe, shape: ModelShape, device_bytes: int | None = None
) -> dict[str, dict[str, int]]:
    """Return the bytes of ``held_memory`` by phase and holder."""
    phases = held_memory(recipe, shape, device_bytes)
    return {
        phase: {holder: held.nbytes for holder, held in holders.items()} for phase, holders in phases.items()
    }


def held_memory(recipe: Recipe, shape: ModelShape, device_bytes: int | None = None) -> Phases:
    """Return what is held of one device by phase (rollout, train, sync) and holder.

    Args:
        device_bytes: the memory of the device, of which the engine takes ``rollout.gpu_memory_utilization``.
            If it is None and the recipe does not give the size of the KV cache, the least one is taken, for
            one prompt and response of full length.
    """
    always = always_held(recipe)
    trained = _training_state(recipe, shape)
    computing = _step(recipe, shape)
    weights = _engine_weights(recipe, shape)
    gathered = {"trainer: gathered": Held(_gathered(recipe, shape), "the largest tensor and its shards")}
    return {
        metrics.ROLLOUT: weights | _kv_cache(recipe, shape, device_bytes) | always,
        metrics.TRAIN: trained | computing | always,
        metrics.SYNC: trained | gathered | weights | always,
    }


def always_held(recipe: Recipe) -> dict[str, Held]:
    """Return what trainer and engine hold in every phase, also while they are offloaded."""
    return _buckets(recipe) | _communicators(recipe)


def sequence_bytes(recipe: Recipe, shape: ModelShape) -> int:
    """Return the KV cache of one prompt and response of full length on one engine rank."""
    # With fewer KV heads than TP ranks, each rank has one.
    heads = max(shape.num_key_value_heads // recipe.rollout.tensor_parallel, 1)
    element = ELEMENT[recipe.model.dtype]
    return 2 * shape.num_hidden_layers * heads * shape.head_dim * element * _longest(recipe)


def _longest(recipe: Recipe) -> int:
    return recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens


def _training_state(recipe: Recipe, shape: ModelShape) -> dict[str, Held]:
    count, dtype = ParameterCount.of(recipe, shape), recipe.model.dtype
    reference = ELEMENT[dtype] if recipe.algorithm.kl_coefficient > 0 else 0
    sharded = SHARDED[dtype]
    each = REGION[dtype] - sharded + reference
    millions = f"{count.per_rank / 1e6:,.0f} million parameters"
    how = (
        f"{'weights, reference' if reference else 'weights'}: {each} bytes x {millions}; "
        f"master weights, moments: {sharded} bytes x {count.optimized / 1e6:,.0f} million"
    )
    return {
        "trainer: region": Held(each * count.per_rank + sharded * count.optimized, how),
        "trainer: gradients": Held(GRADIENT * count.per_rank, f"{GRADIENT} bytes x {millions}"),
    }


def _step(recipe: Recipe, shape: ModelShape) -> dict[str, Held]:
    """Return what the fullest micro-batch takes: at its loss, or in the backward pass of its last layer."""
    element = ELEMENT[recipe.model.dtype]
    # A response longer than the budget is a micro-batch alone. Almost all tokens of a full one are responses.
    tokens = max(recipe.train.tokens_per_micro_batch, _longest(recipe))
    columns = -(-shape.vocab_size // recipe.train.tensor_parallel)
    layer = _layer(recipe, shape, tokens) * element
    # Recomputation keeps the input of each layer, and computes the rest of one layer again.
    kept = tokens * shape.hidden_size * element if recipe.train.recompute else layer
    # The gradients of a layer's activations, and that of the largest weight in model.dtype.
    backward = layer * (2 if recipe.train.recompute else 1) + columns * shape.hidden_size * element
    what = "inputs of layers" if recipe.train.recompute else "layers"
    loss = loss_memory(recipe.model.dtype, tokens, columns, shape.hidden_size)
    return {
        "trainer: activations": Held(
            shape.num_hidden_layers * kept, f"{shape.num_hidden_layers} {what}, {tokens} tokens"
        ),
        "trainer: loss": max(loss, Held(backward, "a layer's backward pass"), key=lambda held: held.nbytes),
    }


def loss_memory(dtype: str, tokens: int, columns: int, hidden_size: int) -> Held:
    """Return what ``logprobs.py`` takes in its forward or backward pass, and how it was computed.

    Args:
        columns: of the vocabulary, on one rank.
    """
    element = ELEMENT[dtype]
    chunk = min(tokens, max(LOGITS_CHUNK_BYTES // (4 * columns), 1))
    states = tokens * hidden_size * element
    # Of the weight: the fp32 sum over several chunks, and a chunk's.
    total = 4 * columns * hidden_size if chunk < tokens else 0
    part = element * columns * hidden_size
    logits = chunk * columns
    how = f"the logits of {chunk} tokens x {columns} columns"
    moments = (
        Held(states + LOGITS * logits, how),
        Held(2 * states + GRAD_LOGITS[dtype] * logits + total, f"gradients of the weight and of {how}"),
        Held(2 * states + element * logits + total + part, f"gradients of the weight and of {how}"),
    )
    return max(moments, key=lambda held: held.nbytes)


def _layer(recipe: Recipe, shape: ModelShape, tokens: int) -> int:
    """Return the elements that one layer keeps for its backward pass on one rank.

    Inputs and outputs of two norms; queries and keys as projected, normalized and rotated; values; the keys
    and values of each response with those of its prompt (``attention.py``); the output of attention; gate, up
    and their product (``mlp.py``).
    """
    tensor_parallel = recipe.train.tensor_parallel
    query, key = shape.query_size // tensor_parallel, shape.key_value_size // tensor_parallel
    repeated = _longest(recipe) / recipe.rollout.max_response_tokens
    attention = 4 * shape.hidden_size + 4 * query + 4 * key + 2 * key * repeated
    return round(tokens * (attention + _mlp(recipe, shape)))


def _mlp(recipe: Recipe, shape: ModelShape) -> float:
    """Return the elements per token of gate, up and their product, and of the tokens that experts get."""
    tensor_parallel, expert_parallel = recipe.train.tensor_parallel, recipe.train.expert_parallel
    if not shape.num_experts:
        return 3 * shape.intermediate_size / tensor_parallel
    # Tokens are gathered from the replicas that share the experts; on average each rank gets an equal share.
    replicas = max(expert_parallel // tensor_parallel, 1)
    ranks = expert_parallel if expert_parallel > 1 else 1
    copies = replicas * shape.num_experts_per_tok / ranks
    width = shape.moe_intermediate_size / (1 if expert_parallel > 1 else tensor_parallel)
    return copies * (3 * width + 2 * shape.hidden_size) + 2 * replicas * shape.hidden_size


def _gathered(recipe: Recipe, shape: ModelShape) -> int:
    """Return the largest full tensor, and the shards that it is gathered from (``WeightBridge.export``)."""
    largest = max(map(prod, FAMILIES[shape.model_type].tensors(shape).values()))
    return 2 * largest * ELEMENT[recipe.model.dtype]


def _buckets(recipe: Recipe) -> dict[str, Held]:
    nbytes = recipe.sync.bucket_bytes
    return {"trainer: buckets": Held(BUCKETS * nbytes, f"{BUCKETS} of sync.bucket_bytes, kept between steps")}


def _communicators(recipe: Recipe) -> dict[str, Held]:
    """Return the buffers of HCCL's communicators, which keep them while the process runs."""
    if recipe.cluster.device == "cpu":
        return {}
    trained = int(recipe.env.get("HCCL_BUFFSIZE", HCCL_BUFFSIZE))
    trainer, engine = trainer_communicators(recipe), engine_communicators(recipe)
    return {
        "trainer: HCCL": _buffers(trainer, trained),
        "engine: HCCL": _buffers(engine, HCCL_BUFFSIZE),
    }


def _buffers(communicators: int, buffer_size: int) -> Held:
    """Return two buffers of ``buffer_size`` MB, and 1 MB, for each (hccl_communicator_host.cc of hcomm)."""
    each = 2 * buffer_size + 1
    return Held(communicators * each * 1024**2, f"{communicators} communicators x {each} MiB")


def engine_communicators(recipe: Recipe) -> int:
    """Return the number of groups in which an engine rank communicates: tensor- and expert-parallel."""
    rollout = recipe.rollout
    return (rollout.tensor_parallel > 1) * (1 + rollout.expert_parallel)


def _engine_weights(recipe: Recipe, shape: ModelShape) -> dict[str, Held]:
    count, element = ParameterCount.of(recipe, shape).total, ELEMENT[recipe.model.dtype]
    ranks = recipe.rollout.tensor_parallel
    how = f"{element} bytes x {count / 1e6:,.0f} million parameters / {ranks} ranks"
    return {"engine: weights": Held(count * element // ranks, how)}


def _kv_cache(recipe: Recipe, shape: ModelShape, device_bytes: int | None) -> dict[str, Held]:
    """Return the KV cache. vLLM subtracts the peak of its activations from it, which is used instead."""
    rollout = recipe.rollout
    if rollout.kv_cache_bytes is not None:
        return {"engine: KV cache": Held(rollout.kv_cache_bytes, "rollout.kv_cache_bytes")}
    if device_bytes is None:
        return {"engine: KV cache": Held(sequence_bytes(recipe, shape), "one longest sequence")}
    share = int(rollout.gpu_memory_utilization * device_bytes)
    rest = max(share - sum(held.nbytes for held in _engine_weights(recipe, shape).values()), 0)
    how = f"the rest of rollout.gpu_memory_utilization = {rollout.gpu_memory_utilization:g}"
    return {"engine: KV cache and activations": Held(rest, how)}
