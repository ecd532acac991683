"""recipe: model, data and reward are usable, and the model fits the devices and the memory."""

from __future__ import annotations

from collections.abc import Mapping

from vime_runtime.spec import metrics
from vime_runtime.spec.device_memory import MARGIN, Held, device_memory, held_memory, sequence_bytes
from vime_runtime.spec.model_shape import check_context

from vimectl.doctor.check import CheckList, CheckResult, result, warn_unless
from vimectl.doctor.checks.npu import IDLE_MIB
from vimectl.doctor.facts import Facts, Unavailable, inputs, limits
from vimectl.doctor.facts.npu_smi import read_listing
from vimectl.doctor.stack_requirements import PACKAGE_READS
from vimectl.recipes import check_inputs
from vimectl.util.units import size

CHECKS = CheckList(recipe=True)

# `vimectl run` checks these inputs itself, with another exit code.
INPUTS = (
    "recipe.model",
    "recipe.tensor-parallel",
    "recipe.context",
    "recipe.chat-template",
    "recipe.data",
    "recipe.evaluation-data",
)
# What is read for the shape of the model: its config.json; under an image's root the directory itself.
_SHAPE = ("*/config.json", "*")
_MEMORY = (*_SHAPE, "npu-smi info", "/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup/*")
# The distributions of the rewards that have a name.
_REWARD_PACKAGES = {"math-verify": "math-verify", "verifier": "reasoning-gym"}
_MORE_RANKS = "a larger train.tensor_parallel (or train.expert_parallel, for a model with experts)"


@CHECKS.add(
    "recipe.model",
    source="vime_runtime/spec/model_directory.py; safetensors: README, section Format",
    reads=("*.json", "*.safetensors", "*"),
    expected="a complete Hugging Face directory of a known family",
)
def model(facts: Facts) -> str:
    """Every tensor of config.json must exist with its shape, and a tokenizer."""
    return facts.read(inputs.read_model, facts.recipe)


@CHECKS.add(
    "recipe.tensor-parallel",
    source="Megatron-core: transformer_config.py and vLLM: config/model.py, verify_with_parallel_config",
    reads=_SHAPE,
    after=("recipe.model",),
    expected="a model that fits the recipe",
)
def tensor_parallel(facts: Facts) -> str:
    """Ranks share heads, key/value heads and MLP columns: each rank gets the same number."""
    recipe, shape = facts.recipe, facts.read(inputs.read_model_shape, facts.recipe)
    check_inputs.check_splits(recipe, shape)
    return (
        f"{shape.num_attention_heads} heads, {shape.num_key_value_heads} key/value heads; TP "
        f"{recipe.train.tensor_parallel} (trainer) and {recipe.rollout.tensor_parallel} (engine)"
    )


@CHECKS.add(
    "recipe.context",
    source="vLLM: config/model.py, max_model_len is at most max_position_embeddings",
    reads=_SHAPE,
    after=("recipe.model",),
    expected="a model that fits the recipe",
)
def context(facts: Facts) -> str:
    """Prompt and response are one sequence, and the model must have that many positions."""
    rollout, shape = facts.recipe.rollout, facts.read(inputs.read_model_shape, facts.recipe)
    check_context(facts.recipe, shape)
    tokens = rollout.max_prompt_tokens + rollout.max_response_tokens
    return f"{tokens} tokens of {shape.max_position_embeddings}"


@CHECKS.add(
    "recipe.chat-template",
    source="transformers: chat_template.jinja, or the key in tokenizer_config.json",
    reads=("*/chat_template.jinja", "*/tokenizer_config.json", "*"),
    after=("recipe.model",),
    expected="a chat template",
)
def chat_template(facts: Facts) -> str:
    """data.apply_chat_template needs the template of the model."""
    if not facts.recipe.data.apply_chat_template:
        raise Unavailable("the recipe applies none")
    return facts.read(inputs.read_chat_template, facts.recipe)


@CHECKS.add(
    "recipe.data",
    source="DataTable of the recipe; vime_runtime/spec/data_lines.py",
    reads=("*",),
    expected="JSON lines with the keys data.prompt_key and data.label_key",
)
def data(facts: Facts) -> str:
    """A line without a prompt or a label ends the run when it is read."""
    table = facts.recipe.data
    if table.task:
        raise Unavailable(f"{table.path} is not a file: see recipe.task, which imports the library")
    return facts.read(inputs.read_data, facts.recipe, table)


@CHECKS.add(
    "recipe.evaluation-data",
    source="EvaluationTable of the recipe; vime_runtime/spec/data_lines.py",
    reads=("*",),
    expected="JSON lines with the keys data.prompt_key and data.label_key",
)
def evaluation_data(facts: Facts) -> str:
    """[evaluation] path is read like the data."""
    sets = {} if facts.recipe.holds_out_problems else facts.recipe.evaluation_sets()
    tables = [table for table in sets.values() if not table.task]
    if not tables:
        raise Unavailable("the recipe has no separate file for evaluations")
    return "; ".join(facts.read(inputs.read_data, facts.recipe, table) for table in tables)


@CHECKS.add(
    "recipe.task",
    source="reasoning-gym 0.1.25: create_dataset",
    reads=("* -m vime_runtime.data.reasoning_gym *",),
    running=True,
    imports=True,
    expected="a task with these settings",
)
def task(facts: Facts) -> str:
    """The library of tasks must have the task and accept its settings."""
    if not facts.recipe.data.task:
        raise Unavailable("the data is a file")
    return facts.read(inputs.read_task, facts.recipe)


@CHECKS.add(
    "recipe.reward",
    source="vime_runtime/rewards/functions.py",
    reads=("*.py", *PACKAGE_READS),
    expected="a module with the function of data.reward",
)
def reward(facts: Facts) -> CheckResult | str:
    """The package or function that scores the responses must exist ([data] reward)."""
    name = facts.recipe.data.reward or "exact-match"
    module, colon, function = name.partition(":")
    if colon:
        return facts.read(inputs.read_reward_function, module, function)
    if name not in _REWARD_PACKAGES:
        return CheckResult("pass", f"{name}, which needs no package", name)
    package = _REWARD_PACKAGES[name]
    found = facts.installed.get(package)
    return result(
        bool(found),
        f"{package} {found[0].version}" if found else f"{package} is not installed",
        f"{package}, for the reward {name}",
        f"python -m pip install --no-deps {package}, or another data.reward",
    )


@CHECKS.add(
    "recipe.trainer-memory",
    source="vime_runtime/spec/device_memory.py, with the source of each term",
    reads=_MEMORY,
    after=("recipe.tensor-parallel", "device.chip"),
)
def trainer_memory(facts: Facts) -> CheckResult:
    """In a training step a device holds weights, master weights, moments and gradients, and what the fullest
    micro-batch takes. Buckets of weights and communicators are held all the time.
    """
    fix = f"{_MORE_RANKS}, train.recompute=true, or a smaller train.tokens_per_micro_batch"
    return _fits(facts, metrics.TRAIN, fix)


@CHECKS.add(
    "recipe.engine-memory",
    source="vime_runtime/spec/device_memory.py; vLLM: check_enough_kv_cache_memory in kv_cache_utils.py",
    reads=_MEMORY,
    after=("recipe.tensor-parallel", "device.chip"),
)
def engine_memory(facts: Facts) -> CheckResult:
    """vLLM starts only if weights and the KV cache of one longest sequence fit into its share. Next to it the
    device has what the offloaded trainer keeps.
    """
    recipe, rollout = facts.recipe, facts.recipe.rollout
    shape = facts.read(inputs.read_model_shape, recipe)
    sequence = sequence_bytes(recipe, shape)
    if rollout.kv_cache_bytes is not None:
        return result(
            rollout.kv_cache_bytes >= sequence,
            f"KV cache of {size(rollout.kv_cache_bytes)} a rank ([rollout] kv_cache_bytes); a longest "
            f"sequence takes {size(sequence)}",
            f"{size(sequence)} or more",
            f"--set rollout.kv_cache_bytes={sequence}, or more for several at once",
        )
    weights = device_memory(recipe, shape)[metrics.ROLLOUT]["engine: weights"]
    text = f"weights {size(weights)}, a longest sequence {size(sequence)} a rank"
    total = _device_bytes(facts, text)
    share = int(rollout.gpu_memory_utilization * total)
    if share < weights + sequence:
        return CheckResult(
            "fail",
            f"{text}; the engine's share is {size(share)} of {size(total)}",
            f"{size(weights + sequence)} or more",
            "a larger rollout.gpu_memory_utilization or rollout.tensor_parallel, or shorter responses",
        )
    return _fits(facts, metrics.ROLLOUT, "a smaller rollout.gpu_memory_utilization or sync.bucket_bytes")


@CHECKS.add(
    "recipe.sync-memory",
    source="vime_runtime/spec/device_memory.py, with the source of each term",
    reads=_MEMORY,
    after=("recipe.trainer-memory", "recipe.engine-memory", "device.chip"),
)
def sync_memory(facts: Facts) -> CheckResult:
    """During a weight sync the device holds all of the trainer, and the engine's weights."""
    fix = f"{_MORE_RANKS} or rollout.tensor_parallel, or a smaller sync.bucket_bytes"
    return _fits(facts, metrics.SYNC, fix)


def _fits(facts: Facts, phase: str, fix: str) -> CheckResult:
    """Compare what a device holds in a phase with its memory. Ranks on a CPU share that of the machine."""
    recipe, shape = facts.recipe, facts.read(inputs.read_model_shape, facts.recipe)
    if recipe.cluster.device != "cpu":
        total = _device_bytes(facts, _account(held_memory(recipe, shape)[phase]))
        holders = held_memory(recipe, shape, total)[phase]
        needed, margin = sum(held.nbytes for held in holders.values()), int(total * MARGIN)
        return result(
            needed <= total - margin,
            f"{_account(holders)}, of {size(total)}",
            f"at most {size(total - margin)}: {size(margin)} are left for drivers, kernels and graphs",
            fix,
            "fail" if needed > total else "warn",
        )
    holders = held_memory(recipe, shape)[phase]
    ranks, (available, _) = recipe.cluster.devices_per_node, facts.read(limits.read_memory)
    needed = sum(held.nbytes for held in holders.values()) * ranks
    return result(
        needed <= available,
        f"{_account(holders)}; {size(needed)} for {ranks} ranks, of {size(available)} available",
        f"{size(needed)} available",
        "end what uses the memory, or use a larger machine",
    )


def _account(holders: Mapping[str, Held]) -> str:
    """Return the sum of what is held of a device, and each part with how it was computed."""
    parts = [f"{name} {size(held.nbytes)} ({held.how})" for name, held in holders.items() if held.nbytes]
    return f"{size(sum(held.nbytes for held in holders.values()))} a device: {', '.join(parts)}"


def _device_bytes(facts: Facts, text: str) -> int:
    """Return the memory of the smallest device that processes can have, from npu-smi.

    An idle chip of 65536 MiB uses 3000 to 3400 MiB itself; torch reports about 61 GiB in total.

    Raises:
        Unavailable: with ``text``; the memory is not known.
    """
    chips = facts.read(read_listing).chips if facts.stack.stack.device == "npu" else ()
    usable = [
        chip.total - min(IDLE_MIB if chip.used is None else chip.used, IDLE_MIB)
        for chip in chips
        if chip.total
    ]
    if not usable:
        raise Unavailable(f"{text}; the memory of the devices is not known")
    return min(usable) * 1024**2


@CHECKS.add(
    "recipe.host-memory",
    source="vime_runtime/spec/device_memory.py; MemoryTable.host_bytes of the recipe",
    reads=_SHAPE,
    device="npu",
)
def host_memory(facts: Facts) -> CheckResult:
    """Offloaded trainers of devices are in the host's memory ([memory] host_bytes), without gradients."""
    recipe = facts.recipe
    ranks, declared = recipe.cluster.devices_per_node, recipe.memory.host_bytes
    shape = facts.read(inputs.read_model_shape, recipe)
    needed = device_memory(recipe, shape)[metrics.TRAIN]["trainer: region"] * ranks
    return warn_unless(
        needed <= declared,
        f"{ranks} offloaded ranks: {size(needed)}; host_bytes is {size(declared)}",
        f"host_bytes of {size(needed)} or more, which host.memory then checks",
        f"--set memory.host_bytes={needed}",
    )
