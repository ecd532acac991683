"""Engines of the released vLLM and vllm-ascend on the released torch_npu, over stand-ins for CANN.

Scheduler, executor, worker, sleep mode, model runner, attention backend, sampler and layers are the released
ones with this project's patches. ``packages/vllm_ascend_parts`` lists the stand-ins.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from vime_runtime.batch import Response
from vime_runtime.weight_sync.transport import BucketMessage

from harness.npu.machine import Machine
from harness.run_config import make_run_config
from harness.runtime.engine_process import count_hits, hits
from harness.runtime.rank_processes import Process
from harness.tolerances import LOGPROB_BF16_MEAN
from harness.upstream import released

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs what vllm imports", allow_module_level=True)

pytestmark = [pytest.mark.needs("network"), pytest.mark.slow]

CHIP_BYTES = 4 << 30  # vllm-ascend gives a communicator buffers of 2 x 200 MiB
KV_CACHE_BYTES = 16 << 20
PAGE = 2 << 20
BUCKET_BYTES = 1 << 20
BLOCK = 128  # tokens in a block of vllm-ascend's KV cache
PROMPTS = [[3, 4, 5, 6], [7, 8, 9], [10] * 16, [3 + token * token % 59 for token in range(BLOCK + 20)]]
RESPONSE_TOKENS = 8
# As vimectl's environment table sets it for the rollout on NPUs.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VIME_COLOCATE": "1",
    "VLLM_ASCEND_ENABLE_NZ": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def start(model: str, tensor_parallel: int, expert_parallel: bool) -> None:
    """Build the engine of this process."""
    from vime_runtime.rollout import engine

    recipe = {
        "cluster": {"device": "npu", "devices_per_node": tensor_parallel},
        "model": {"path": model, "dtype": "bfloat16"},
        "rollout": {
            "tensor_parallel": tensor_parallel,
            "expert_parallel": expert_parallel,
            "max_prompt_tokens": BLOCK + 20,
            "max_response_tokens": RESPONSE_TOKENS,
            "kv_cache_bytes": KV_CACHE_BYTES,
            "eager": True,
        },
    }
    engine.started = engine.Engine(make_run_config({"recipe": recipe}))


def call(method: str, *args: Any) -> Any:
    """Call a method of the engine of this process."""
    from vime_runtime.rollout import engine

    return getattr(engine.started, method)(*args)


def generate(samples: int, seed: int, temperature: float | None) -> list[list[Response]]:
    """Return the responses to PROMPTS in order."""
    from vime_runtime.rollout import engine

    found = dict(engine.started.generate(PROMPTS, samples, [seed] * len(PROMPTS), temperature))
    return [found[index] for index in range(len(PROMPTS))]


def open_exporter(checkpoint: str) -> None:
    """Prepare to export the weights of a checkpoint from the memory of this process's NPU."""
    import torch_npu
    from safetensors.torch import load_file
    from vime_runtime.weight_sync.buckets import BucketExporter
    from vime_runtime.weight_sync.transport import BufferPlan

    device = torch.device("npu", 0)
    tensors = {
        name: weight.to(device) for name, weight in load_file(f"{checkpoint}/model.safetensors").items()
    }
    exporter = BucketExporter(
        lambda: iter(tensors.items()), BUCKET_BYTES, BufferPlan(device=True, cpu=False), device
    )
    torch_npu.exporter = exporter


def next_bucket() -> bytes:
    import torch_npu

    return pickle.dumps(torch_npu.exporter.next())


@dataclass
class Engine:
    """An engine after a sync of new weights, and what it did: the two checkpoints and their responses."""

    machine: Machine
    chips: int
    trainers: list[int]
    checkpoints: tuple[Path, Path]
    responses: list[list[list[Response]]] = field(default_factory=list)
    sampled: list[list[list[list[int]]]] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)  # of each generation: tokens found in the prefix cache
    held: dict[str, list[int]] = field(default_factory=dict)  # by moment: mapped bytes of each chip

    def note(self, moment: str) -> None:
        holders = [self.machine.holders(chip) for chip in range(self.chips)]
        self.held[moment] = [
            sum(nbytes for (_, kind), nbytes in holder.items() if kind == "physical") for holder in holders
        ]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python sources of the stack's vLLM packages with our patches."""
    return released.patched_sources("ascend-0.22", tmp_path_factory.mktemp("patched"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("qwen3", 1), id="dense-1", marks=pytest.mark.exhaustive),
        pytest.param(("qwen3", 2), id="dense-2"),
        pytest.param(("qwen3_moe", 2), id="moe-2"),
    ],
)
def engine(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    sources: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    """Generate, sleep, receive other weights from processes on the same chips, and generate again."""
    family, chips = request.param
    first, second = (
        make_model(family, torch.bfloat16, seed=seed, head_dim=128, tie_word_embeddings=False)
        for seed in (0, 1)
    )
    folder = tmp_path_factory.mktemp("engine")
    machine = Machine(folder / "machine", chips, CHIP_BYTES)
    visible = ",".join(map(str, range(chips)))
    environment = ENVIRONMENT | {"VLLM_RPC_BASE_PATH": str(folder)}
    process = Process(folder, machine.environment(sources, ASCEND_RT_VISIBLE_DEVICES=visible, **environment))
    trainers = [machine.start(folder, str(chip)) for chip in range(chips)]
    try:
        process.run(start, str(first), chips, family == "qwen3_moe")
        engine = Engine(machine, chips, [trainer.popen.pid for trainer in trainers], (first, second))
        engine.note("started")
        process.run(count_hits)

        def sample(samples: int, seed: int, temperature: float | None = None) -> list[list[Response]]:
            responses = process.run(generate, samples, seed, temperature)
            engine.hits.append(process.run(hits))
            return responses

        engine.responses.append(sample(1, 0, 0.0))
        sample(1, 0, 0.0)
        process.run(call, "sleep")
        engine.note("asleep")
        process.run(call, "wake", "weights")
        engine.note("weights")
        send(process, trainers, second)
        process.run(call, "wake", "kv_cache")
        engine.note("resident")
        engine.responses.append(sample(1, 0, 0.0))
        for _ in range(2):
            engine.sampled.append([[response.token_ids for response in group] for group in sample(2, 7)])
        yield engine
        process.run(call, "close")
    finally:
        for one in (process, *trainers):
            one.close()


def send(engine: Process, trainers: list[Process], checkpoint: Path) -> None:
    """Send the weights of a checkpoint bucket by bucket, each with the handles of all trainers."""
    for trainer in trainers:
        trainer.run(open_exporter, str(checkpoint))
    engine.run(call, "begin_update")
    while True:
        first, *others = (pickle.loads(trainer.run(next_bucket)) for trainer in trainers)
        if first is None:
            break
        message: BucketMessage = first.joined(others)
        engine.run(call, "update", message)
    engine.run(call, "end_update")


@pytest.mark.parametrize("weights", [0, 1], ids=["loaded", "received"])
def test_greedy_responses_are_those_of_transformers(engine: Engine, weights: int) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(engine.checkpoints[weights], dtype=torch.float32)
    differences, regrets = [], []
    for prompt, (response,) in zip(PROMPTS, engine.responses[weights], strict=True):
        tokens = response.token_ids
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        chosen = expected[range(len(tokens)), tokens]
        differences.append((chosen - torch.tensor(response.logprobs)).abs())
        regrets.append(expected.amax(-1) - chosen)
    assert torch.cat(differences).mean() < LOGPROB_BF16_MEAN
    assert torch.cat(regrets).mean() < LOGPROB_BF16_MEAN  # another token only where two are as likely
    assert engine.responses[0] != engine.responses[1]


def test_sleeping_engine_holds_no_physical_memory(engine: Engine) -> None:
    held = engine.held
    assert all(nbytes > KV_CACHE_BYTES for nbytes in held["started"])
    assert held["asleep"] == [0] * engine.chips
    assert held["resident"] == held["started"]
    for weights, everything in zip(held["weights"], held["resident"], strict=True):
        assert weights > 0
        assert everything - weights == pytest.approx(
            KV_CACHE_BYTES, abs=4 * PAGE
        )  # whole pages for each layer


def test_weights_are_read_in_the_memory_of_the_chip_that_has_them(engine: Engine) -> None:
    imports = engine.machine.events("aclrtIpcMemImportByKey")
    assert {(event["chip"], event["owner"]) for event in imports} == set(enumerate(engine.trainers))


def test_same_seed_gives_the_same_responses(engine: Engine) -> None:
    assert engine.sampled[0] == engine.sampled[1]
    assert len({tuple(tokens) for group in engine.sampled[0] for tokens in group}) > len(PROMPTS)


def test_prefixes_are_cached_until_the_engine_has_other_weights(engine: Engine) -> None:
    # One prompt has a whole block. Greedy before, greedy again, greedy with new weights, two samples, again.
    assert engine.hits == [0, BLOCK, 0, 2 * BLOCK, 2 * BLOCK]
