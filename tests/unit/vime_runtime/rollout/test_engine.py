"""A real engine compared with transformers, across sleep, waking and new weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from vime_runtime.rollout.cpu_norms import PROVIDER
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.trainer import hf_checkpoint
from vime_runtime.weight_sync.buckets import BucketExporter

from harness.run_config import make_run_config
from harness.tolerances import LOGPROB_FP32

STOP_TOKENS = {1, 2}
RESPONSE_TOKENS = 12
# It stretches wavelengths above 2048; a few of them are short enough to make a difference in 28 tokens.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
PROMPTS = [[3, 4, 5, 6], [7, 8, 9], [10] * 16]
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def checkpoints(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    return make_checkpoint(seed=0), make_checkpoint(seed=1)


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]) -> Any:
    return start_engine(checkpoints[0])


def load(checkpoint: Path) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def export(model: torch.nn.Module, bucket_bytes: int, **changes: torch.Tensor | None) -> BucketExporter:
    """Export the weights of a transformers model; ``changes`` replaces tensors, or omits them (None)."""

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in model.named_parameters():
            tensor = changes.get(name, parameter)
            if tensor is not None:
                yield name, tensor

    return BucketExporter(weights, bucket_bytes)


def log_probs(
    model: torch.nn.Module, prompt: list[int], response: list[int], temperature: float = TEMPERATURE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the model's log-prob of each token of the response, and the largest one in its place."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
    all_tokens = (logits / temperature).log_softmax(-1)
    return all_tokens.gather(1, torch.tensor(response)[:, None])[:, 0], all_tokens.max(-1).values


def check(responses: list[list[Any]], checkpoint: Path, greedy: bool = False) -> None:
    """Compare every log-prob with transformers; greedy tokens must be its likeliest, but for rounding."""
    model = load(checkpoint)
    for prompt, samples in zip(PROMPTS, responses, strict=True):
        for response in samples:
            expected, largest = log_probs(model, prompt, response.token_ids, 1.0 if greedy else TEMPERATURE)
            found = torch.tensor(response.logprobs)
            torch.testing.assert_close(found, expected, rtol=0, atol=LOGPROB_FP32)
            *before, last = response.token_ids
            assert STOP_TOKENS.isdisjoint(before)
            assert response.finish_reason == ("stop" if last in STOP_TOKENS else "length")
            assert last in STOP_TOKENS or len(response.token_ids) == RESPONSE_TOKENS
            if greedy:
                assert (expected >= largest - LOGPROB_FP32).all()


def test_log_probs_are_those_of_transformers(engine: Any, checkpoints: tuple[Path, Path]) -> None:
    responses = engine.sample(PROMPTS, samples=8, seed=1)
    assert [len(samples) for samples in responses] == [8, 8, 8]
    assert len({tuple(sample.token_ids) for sample in responses[0]}) > 1
    check(responses, checkpoints[0])


def test_every_stop_token_of_generation_config_stops_a_response(engine: Any) -> None:
    responses = [response for samples in engine.sample(PROMPTS, samples=64, seed=2) for response in samples]
    assert {
        response.token_ids[-1] for response in responses if response.finish_reason == "stop"
    } == STOP_TOKENS


def test_the_same_seed_samples_the_same_tokens(engine: Any) -> None:
    once = engine.sample(PROMPTS, samples=4, seed=5)
    assert engine.sample(PROMPTS, samples=4, seed=5) == once
    assert engine.sample(PROMPTS, samples=4, seed=6) != once
    assert tokens(engine.sample(PROMPTS[:1], samples=4, seed=5)) == tokens(once[:1])  # in any batch


@pytest.mark.slow
def test_without_seeds_of_requests_the_same_seed_samples_the_same_tokens_in_the_same_batch(
    start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]
) -> None:
    engine = start_engine(checkpoints[0], tensor_parallel=2, per_request_seeds=False)
    once = engine.sample(PROMPTS, samples=4, seed=5)
    check(once, checkpoints[0])  # both ranks drew the same tokens
    assert engine.sample(PROMPTS, samples=4, seed=6) != once
    assert engine.sample(PROMPTS, samples=4, seed=5) == once
    assert tokens(engine.sample(PROMPTS[:1], samples=4, seed=5)) != tokens(once[:1])


def tokens(responses: list[list[Any]]) -> list[list[list[int]]]:
    return [[response.token_ids for response in samples] for samples in responses]


def captures_graphs(config: RunConfig) -> bool:
    """Return True if an engine of this run captures graphs."""
    from vime_runtime.rollout.engine import _arguments

    return not _arguments(config)["enforce_eager"]


@pytest.mark.parametrize(
    ("device", "eager", "graphs"), [("npu", False, True), ("npu", True, False), ("cpu", False, False)]
)
def test_an_engine_on_an_npu_captures_graphs_unless_the_recipe_is_eager(
    engine: Any, device: str, eager: bool, graphs: bool
) -> None:
    config = make_run_config({"recipe": {"cluster": {"device": device}, "rollout": {"eager": eager}}})
    assert engine.process.run(captures_graphs, config) == graphs


def test_greedy_tokens_are_those_of_transformers(engine: Any, checkpoints: tuple[Path, Path]) -> None:
    check(engine.sample(PROMPTS, 1, 0, 0.0), checkpoints[0], greedy=True)


@pytest.mark.parametrize("bucket_bytes", [50_000, 300_000, 64 * 1024**2])
def test_updated_engine_is_equal_to_a_fresh_one(
    engine: Any, checkpoints: tuple[Path, Path], bucket_bytes: int
) -> None:
    fresh = engine.sample(PROMPTS, 2, seed=3), engine.sample(PROMPTS, 1, 0, 0.0)
    engine.load_checkpoint(checkpoints[1], bucket_bytes)
    check(engine.sample(PROMPTS, 1, 0, 0.0), checkpoints[1], greedy=True)
    engine.load_checkpoint(checkpoints[0], bucket_bytes)
    assert (engine.sample(PROMPTS, 2, seed=3), engine.sample(PROMPTS, 1, 0, 0.0)) == fresh


def test_sleep_releases_weights_and_kv_cache(engine: Any, checkpoints: tuple[Path, Path]) -> None:
    choices = random.Random(0)
    engine.sample([[choices.randrange(2, 64) for _ in range(16)] for _ in range(64)], 4, seed=0)
    fresh = engine.sample(PROMPTS, 2, seed=3)
    weights = sum(parameter.nbytes for parameter in load(checkpoints[0]).parameters())
    active, process = engine.memory_usage().resident, resident_bytes(engine.process.popen.pid)
    assert active >= weights + 16 * 1024**2

    engine.sleep()
    assert engine.memory_usage().resident <= 0.2 * active
    # The memory of the whole process shows the same: nothing was only moved.
    assert process - resident_bytes(engine.process.popen.pid) >= 0.8 * active

    engine.wake("weights")
    engine.load_checkpoint(checkpoints[0])
    engine.wake("kv_cache")
    assert engine.sample(PROMPTS, 2, seed=3) == fresh


def test_norms_use_the_cpp_kernels_and_kv_cache_blocks_fit_short_sequences(engine: Any) -> None:
    get = "_llm.llm_engine.vllm_config.{}.__getattribute__"
    for norm in ("rms_norm", "fused_add_rms_norm"):
        assert getattr(engine, get.format("kernel_config.ir_op_priority"))(norm)[0] == PROVIDER
    # A sequence has 28 tokens. vLLM may override the engine argument.
    assert getattr(engine, get.format("cache_config"))("block_size") == 32


def test_sleep_level_1_keeps_the_weights(engine: Any) -> None:
    fresh = engine.sample(PROMPTS, 2, seed=3)
    getattr(engine, "_llm.sleep")(level=1)
    assert engine.memory_usage().resident == 0
    getattr(engine, "_llm.wake_up")()
    assert engine.sample(PROMPTS, 2, seed=3) == fresh


def test_incomplete_update_names_the_missing_tensors_and_can_be_completed(
    engine: Any, checkpoints: tuple[Path, Path]
) -> None:
    fresh = engine.sample(PROMPTS, 2, seed=3)
    model = load(checkpoints[0])
    missing = ["model.layers.1.self_attn.k_proj.weight", "model.norm.weight"]
    engine.begin_update()
    engine.send(export(model, 1024**2, **dict.fromkeys(missing)))
    with pytest.raises(AssertionError, match=r"lacks 2 of 47 tensors") as caught:
        engine.end_update()
    assert all(name in str(caught.value) for name in missing)
    parameters = dict(model.named_parameters())
    engine.send(BucketExporter(lambda: ((name, parameters[name]) for name in missing), 1024**2))
    engine.end_update()
    assert engine.sample(PROMPTS, 2, seed=3) == fresh


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.layers.2.mlp.up_proj.weight": torch.zeros(512, 255)},
            r"model\.layers\.2\.mlp\.up_proj\.weight of the weight update has the shape \[512, 255\]; "
            r"model\.layers\.2\.mlp\.gate_up_proj\.weight is filled from \[512, 256\]",
        ),
        # Larger than expected: vLLM's loaders would use a part of it.
        ({"model.layers.0.self_attn.q_proj.weight": torch.zeros(512, 256)}, r"q_proj.*\[512, 256\]"),
    ],
)
def test_wrong_shape_names_the_tensor_and_the_update_can_begin_again(
    engine: Any, checkpoints: tuple[Path, Path], change: dict[str, torch.Tensor], message: str
) -> None:
    fresh = engine.sample(PROMPTS, 2, seed=3)
    engine.begin_update()
    with pytest.raises(AssertionError, match=message):
        engine.send(export(load(checkpoints[1]), 100_000, **change))
    # In one bucket, so that a leftover of the failed update would collide with the new one.
    engine.load_checkpoint(checkpoints[0], bucket_bytes=64 * 1024**2)
    assert engine.sample(PROMPTS, 2, seed=3) == fresh


def test_unknown_or_repeated_tensor_is_named(engine: Any, checkpoints: tuple[Path, Path]) -> None:
    tensor = torch.zeros(256)
    for names, message in (
        (["model.norm.bias"], r"model\.norm\.bias, which the model does not have"),
        (["model.norm.weight"] * 2, r"has tensor model\.norm\.weight twice"),
    ):
        engine.begin_update()
        exporter = BucketExporter(lambda names=names: ((name, tensor) for name in names), tensor.nbytes)
        with pytest.raises(AssertionError, match=message):
            engine.send(exporter)
    engine.load_checkpoint(checkpoints[0])


EXHAUSTIVE = pytest.mark.exhaustive
LLAMA_3 = {"tied": True, "num_key_value_heads": 4, "head_dim": 32, "rope_parameters": LLAMA3_ROPE}
ONE_HEAD = {"tied": False, "num_key_value_heads": 1, "vocab_size": 65}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "model", "tensor_parallel"),
    [
        pytest.param("qwen3", {"tied": True}, 1, marks=EXHAUSTIVE),
        ("qwen3", {"tied": False}, 2),
        ("llama", LLAMA_3, 1),
        pytest.param("llama", ONE_HEAD, 2, marks=EXHAUSTIVE),
        pytest.param("qwen2", {"tied": True, "vocab_size": 65}, 2, marks=EXHAUSTIVE),
        pytest.param("qwen3_moe", {"tied": True, "norm_topk_prob": False}, 1, marks=EXHAUSTIVE),
        ("qwen3_moe", {"tied": False}, 2),
    ],
    ids=["qwen3", "qwen3-tp2", "llama", "llama-tp2", "qwen2-tp2", "moe", "moe-tp2"],
)
def test_every_model_family_sleeps_and_updates(
    start_engine: Callable[..., Any],
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    model: dict[str, Any],
    tensor_parallel: int,
) -> None:
    first, second = (make_checkpoint(seed, family, **model) for seed in (2, 3))
    monkeypatch.setattr(hf_checkpoint, "SHARD_BYTES", 4 * 1024**2)
    engine = start_engine(export_directory(first, tmp_path / "exported"), tensor_parallel)
    check(engine.sample(PROMPTS, 4, seed=1), first)
    active = engine.memory_usage().resident
    engine.sleep()
    assert engine.memory_usage().resident <= 0.2 * active
    engine.wake("weights")
    engine.load_checkpoint(second, bucket_bytes=100_000)
    engine.wake("kv_cache")
    check(engine.sample(PROMPTS, 1, 0, 0.0), second, greedy=True)


def export_directory(source: Path, target: Path) -> Path:
    """Write the checkpoint as the trainer does at the end of a run."""
    tensors = load_file(source / "model.safetensors")
    checkpoint = hf_checkpoint.HFCheckpoint(source)
    hf_checkpoint.write(target, checkpoint, torch.float32, iter(tensors.items()))
    assert len(list(target.glob("*.safetensors"))) > 1
    return target


@pytest.mark.slow
def test_bf16_engine_rounds_no_more_than_transformers(
    start_engine: Callable[..., Any], checkpoints: tuple[Path, Path]
) -> None:
    engine = start_engine(checkpoints[0], dtype="bfloat16")
    exact, rounded = load(checkpoints[0]), load(checkpoints[0]).bfloat16()
    of_engine, of_transformers = [], []
    for prompt, samples in zip(PROMPTS, engine.sample(PROMPTS, 8, seed=1), strict=True):
        for response in samples:
            expected, _ = log_probs(exact, prompt, response.token_ids)
            of_engine.append((torch.tensor(response.logprobs) - expected).abs().mean())
            rough, _ = log_probs(rounded, prompt, response.token_ids)
            of_transformers.append((rough - expected).abs().mean())
    # The ratio depends on the processor's instructions for bf16, which both use differently: 1.58 with AVX2.
    assert 0 < sum(of_engine) <= 2 * sum(of_transformers)


def resident_bytes(pid: int) -> int:
    """Return the anonymous memory of a process that the kernel cannot take back."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    count = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines[1:]}
    return count["Anonymous:"] - count["LazyFree:"]
