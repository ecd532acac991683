"""The trainer on the released torch_npu: the numbers of the CPU, and what it holds of a chip when."""

from __future__ import annotations

import builtins
import os
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.distributed import FileStore
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.device_layout import trainer_communicators
from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.run_config import RunConfig

from harness.npu.machine import Machine
from harness.run_config import make_run_config
from harness.runtime.rank_processes import Process, new_store, on_each
from harness.tiny_model import write_model
from harness.tolerances import LOGPROB_BF16_MEAN, of_sum

# aclrtMemcpyKind and an error code of CANN's headers.
DEVICE_TO_HOST = 2
ACL_ERROR_RT_INTERNAL_ERROR = 507000

EPS = torch.finfo(torch.bfloat16).eps
MIB = 1 << 20
BUFFSIZE = 2  # MB
# HCCL_BUFFSIZE for input, as much for output, and 1 MB; the group of all ranks has 1 MB of each.
COMMUNICATOR, WORLD = (2 * BUFFSIZE + 1) * MIB, 3 * MIB
# torch's allocator takes segments of 2 MiB for small and of 20 MiB for medium tensors; larger ones are
# rounded up to 2 MiB. So this much can be unused in a pool.
ROUNDING = (2 + 20) * MIB

# family, tensor-parallel size, ranks
CASES = [(family, *size) for family in ("qwen3", "qwen3_moe") for size in ((1, 1), (2, 2), (1, 2))]


class Results(NamedTuple):
    """Of one rank.

    Attributes:
        moves: by how much all fp32 master weights moved in two steps, flat.
        devices: where the parameters are.
        activations: classes of the activations of MLPs and experts.
        changed_by_offloading, changed_by_resuming: names of tensors of the state.
        repeated_metrics: of the second step, taken again from the restored state.
        exported: for every weight, if it is in the buckets as it is in the export.
        waited: if the device was synchronized before the export.
        built_at: when the trainer was built, in ns (CLOCK_MONOTONIC).
    """

    metrics: list[dict[str, float]]
    moves: torch.Tensor
    devices: set[str]
    activations: set[str]
    changed_by_offloading: list[str]
    changed_by_resuming: list[str]
    repeated_metrics: dict[str, float]
    exported: dict[str, bool]
    waited: bool
    built_at: int


class Trained(NamedTuple):
    """``ranks``: results on NPU and CPU. ``hccl``: (time, bytes) of chip 0's buffers after each change."""

    ranks: list[tuple[Results, Results]]
    recipe: Recipe
    hccl: list[tuple[int, int]]


def make_batch(seed: int) -> RolloutBatch:
    """Return four groups of three responses to a prompt."""
    import random

    draw = random.Random(seed)
    batch = RolloutBatch()
    for group in range(4):
        prompt = [draw.randrange(64) for _ in range(draw.randint(3, 6))]
        for _ in range(3):
            response = [draw.randrange(64) for _ in range(draw.randint(2, 7))]
            batch.append(prompt, response, [-4.0] * len(response), draw.random(), group)
    return batch


def copied_state(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in trainer._optimizer.state()}


def differing(trainer: Any, expected: dict[str, torch.Tensor]) -> list[str]:
    found = copied_state(trainer)
    return [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]


def exported(trainer: Any) -> tuple[dict[str, bool], bool]:
    """Return ``Results.exported`` and ``Results.waited``."""
    from vime_runtime.weight_sync.buckets import view_entry

    exporter = trainer.exporter()
    copies: dict[str, list[torch.Tensor]] = {}
    while (message := exporter.next()) is not None:
        (buffer,) = exporter._double_buffer[1 - exporter._current]
        for entry in message.tensors:
            copies.setdefault(entry.name, []).append(view_entry(buffer.data, entry).cpu().clone())
    device = torch.get_device_module()
    waits = []
    synchronize, device.synchronize = device.synchronize, lambda *_: waits.append(True)
    weights = trainer.weights()
    device.synchronize = synchronize
    same = {name: torch.equal(torch.cat(copies[name]), weight.cpu()) for name, weight in weights}
    return same, bool(waits)


def train(rank: int, world_size: int, store: str, config: RunConfig, device: str) -> Results:
    """Take two steps, offloaded between them; restore the state after the first and repeat the second."""
    from vime_runtime import device as devices

    devices.get(device).before_megatron()
    from vime_runtime.trainer.trainer import Trainer

    if device == "npu":
        # A process has one trainer, and so may the saver be set up only once. Its pool must not be freed.
        import torch_memory_saver as library

        builtins.savers = [*getattr(builtins, "savers", []), library.torch_memory_saver]
        library.torch_memory_saver = library.TorchMemorySaver()
    trainer = Trainer(config, rank, world_size, FileStore(store, world_size))
    built_at = time.monotonic_ns()
    try:
        start = copied_state(trainer)
        metrics = [trainer.train_step(make_batch(0))]
        first = copied_state(trainer)
        trainer.pause()
        trainer.resume()
        changed_by_offloading = differing(trainer, first)
        part = trainer.write_state(config.paths.run_dir)
        metrics.append(trainer.train_step(make_batch(1)))
        second = copied_state(trainer)
        trainer.read_state(config.paths.run_dir, 1, part.random)
        repeated_metrics = trainer.train_step(make_batch(1))
        modules = [one for one in trainer._model.modules() if hasattr(one, "activation_func")]
        return Results(
            metrics,
            torch.cat([(second[name] - start[name]).flatten() for name in start if "master/" in name]),
            {parameter.device.type for parameter in trainer._model.parameters()},
            {type(module.activation_func).__name__ for module in modules},
            changed_by_offloading,
            differing(trainer, second),
            repeated_metrics,
            *(exported(trainer) if device == "npu" else ({}, False)),
            built_at,
        )
    finally:
        trainer.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=2, chip_bytes=1 << 30)


@pytest.fixture(scope="module")
def npus(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    folder = tmp_path_factory.mktemp("npus")
    processes = [machine.start(folder, chip, HCCL_BUFFSIZE=str(BUFFSIZE)) for chip in "01"]
    yield processes
    for process in processes:
        process.close()


@pytest.fixture(scope="module")
def cpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    folder = tmp_path_factory.mktemp("cpus")
    processes = [Process(folder, os.environ) for _ in range(2)]
    yield processes
    for process in processes:
        process.close()


def make_config(
    model: Path, folder: Path, device: str = "npu", tensor_parallel: int = 1, ranks: int = 1
) -> RunConfig:
    recipe = {
        "train": {"tensor_parallel": tensor_parallel, "recompute": True},
        "model": {"path": str(model), "dtype": "bfloat16"},
        "rollout": {"temperature": 0.7},
        "optimizer": {"eps": 1e-2, "clip_grad": 0.5},
        "sync": {"bucket_bytes": 20_000},
        "memory": {"offload_dir": str(folder)},
        "cluster": {"device": device, "devices_per_node": ranks},
    }
    return make_run_config({"recipe": recipe, "steps": 2, "run_dir": str(folder)})


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-tp{case[1]}-dp{case[2] // case[1]}"
)
def trained(
    request: pytest.FixtureRequest,
    machine: Machine,
    npus: list[Process],
    cpus: list[Process],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Train on NPUs and on CPUs."""
    family, tensor_parallel, ranks = request.param
    folder = tmp_path_factory.mktemp("trained")
    model = write_model(folder / "model", family)
    began = time.monotonic_ns()
    results = []
    for device, processes in (("cpu", cpus), ("npu", npus)):
        (folder / device).mkdir()
        config = make_config(model, folder / device, device, tensor_parallel, ranks)
        results.append(on_each(processes[:ranks], train, config, device))
    held = [event for event in machine.events("held") if event["kind"] == "hccl" and event["chip"] == 0]
    hccl = [(event["at"], event["nbytes"]) for event in held if event["at"] > began]
    cpu, npu = results
    return Trained(list(zip(npu, cpu, strict=True)), config.recipe, hccl)


def test_ranks_train_on_npus_as_on_cpus(trained: Trained) -> None:
    for npu, cpu in trained.ranks:
        assert (npu.devices, npu.activations) == ({"npu"}, {"NpuSwiGLU"})
        for ours, theirs in zip(npu.metrics, cpu.metrics, strict=True):
            # Every layer rounds to bf16; the fused activation and attention round less often.
            expected = {
                name: pytest.approx(value, rel=2 * EPS)
                for name, value in theirs.items()
                if "abs_diff" not in name
            }
            # A sum of advantages, which is 0 but for rounding in fp32.
            expected["train/loss"] = pytest.approx(
                theirs["train/loss"], abs=of_sum(torch.float32, 84)["atol"]
            )
            # The mean over tokens, and a single token's, of log-probabilities of 4 nats.
            mean = theirs["logprob/abs_diff_mean"]
            expected["logprob/abs_diff_mean"] = pytest.approx(mean, abs=LOGPROB_BF16_MEAN)
            expected["logprob/abs_diff_max"] = pytest.approx(theirs["logprob/abs_diff_max"], abs=4 * EPS * 4)
            assert ours == expected
        # Compare what was learned: the weights would agree without any training. Gradients in bf16 differ by
        # a few percent, with experts by 7 % on a processor with bf16 instructions, where a token may choose
        # another expert; without one of the larger matrices the difference is 10 to 50 %.
        assert (npu.moves - cpu.moves).norm() < 12 * EPS * cpu.moves.norm()


def test_offloading_and_resuming_change_no_bit(trained: Trained) -> None:
    for npu, _ in trained.ranks:
        assert npu.changed_by_offloading == []
        assert npu.changed_by_resuming == []
        assert npu.repeated_metrics == npu.metrics[1]


def test_weights_are_exported_after_all_streams_have_finished(trained: Trained) -> None:
    assert all(npu.waited for npu, _ in trained.ranks)


def test_groups_of_the_same_ranks_share_buffers_which_are_allocated_first(trained: Trained) -> None:
    expected = trainer_communicators(trained.recipe) * COMMUNICATOR
    expected += WORLD if len(trained.ranks) > 1 else 0
    assert max((nbytes for _, nbytes in trained.hccl), default=0) == expected
    built_at = trained.ranks[0][0].built_at
    grown = [at for (_, before), (at, nbytes) in pairwise([(0, 0), *trained.hccl]) if nbytes > before]
    assert all(at < built_at for at in grown)


def test_buckets_have_the_exported_weights(trained: Trained) -> None:
    """MindSpeed's ``Tensor.view`` copies a tensor that is not contiguous, and a write to the copy is lost."""
    for npu, _ in trained.ranks:
        assert all(npu.exported.values())


def gradient_of_a_row_taken_often() -> list[float]:
    """Take a row of ones 300 times and another one once; return the gradient of their sum."""
    import torch_npu  # noqa: F401
    from vime_runtime.trainer.attention import take_rows

    rows = torch.ones(3, 1, dtype=torch.bfloat16, device="npu", requires_grad=True)
    taken = take_rows(rows, torch.tensor([1] * 300 + [2], device="npu"))
    taken.sum().backward()
    return rows.grad.flatten().tolist()


def test_gradients_of_a_row_that_was_taken_often_are_added_in_fp32(npus: list[Process]) -> None:
    # In bf16, 256 + 1 is 256.
    assert npus[0].run(gradient_of_a_row_taken_often) == [0, 300, 1]


class Account(NamedTuple):
    """The device memory of a trainer of one rank.

    Attributes:
        lasting, gradients: bytes of the tensors.
        held: bytes of the chip by kind: the most until the end of a step, at its end, and while offloaded.
        copied: bytes that the first pause copied to CPU memory.
        too_little_memory: the error of a resume when half of the margin was free.
        zero_gradients: if all gradients were zero after a resume.
        failed_copy: the error of a resume of which a copy failed.
    """

    lasting: int
    gradients: int
    held: dict[str, dict[str, int]]
    copied: int
    too_little_memory: str
    zero_gradients: bool
    failed_copy: str


def build(config: RunConfig, store: str) -> tuple[int, int]:
    """Build a trainer that stays; return the bytes of its lasting tensors and of its gradients."""
    from vime_runtime import device as devices

    devices.get("npu").before_megatron()
    from vime_runtime.trainer.trainer import Trainer

    builtins.trainer = Trainer(config, 0, 1, FileStore(store, 1))
    optimizer = builtins.trainer._optimizer
    lasting = sum(tensor.nbytes for _, tensor in optimizer.state() if tensor.device.type == "npu")
    return lasting, sum(tensor.nbytes for tensor in optimizer.gradients())


def step() -> None:
    builtins.trainer.train_step(make_batch(0))


def pause() -> None:
    builtins.trainer.pause()


def error_of_resume(free: int | None = None) -> str:
    """Return the error of a resume, with no more than so many bytes of the chip free.

    Without an error offload again and return "".
    """
    from vime_runtime.spec.errors import DeviceMemoryError

    filler = None
    if free is not None:
        filler = torch.empty(torch.npu.mem_get_info()[0] - free, dtype=torch.uint8, device="npu")
    try:
        builtins.trainer.resume()
    except DeviceMemoryError as e:
        return f"{e.message}; {e.hint}"
    finally:
        del filler
        torch.npu.empty_cache()
    builtins.trainer.pause()
    return ""


def gradients_are_zero_after_resume() -> bool:
    """Resume when the memory that torch will give to the gradients has other values."""
    gradients = builtins.trainer._optimizer.gradients()
    for _, nbytes in builtins.trainer._region._zeros:
        torch.full((nbytes,), 1, dtype=torch.uint8, device="npu")
    builtins.trainer.resume()
    return not any(tensor.any() for tensor in gradients)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Account:
    """Offload a trainer of a model that is mostly vocabulary, and resume in three ways."""
    folder = tmp_path_factory.mktemp("account")
    machine = Machine(folder / "npus", chips=1, chip_bytes=1 << 30)
    model = write_model(
        folder / "model",
        vocab_size=24576,
        hidden_size=384,
        intermediate_size=128,
        num_hidden_layers=1,
        tie_word_embeddings=False,
    )
    process = machine.start(folder, "0")

    def held() -> dict[str, int]:
        return {kind: nbytes for (_, kind), nbytes in machine.holders(0).items()}

    try:
        lasting, gradients = process.run(build, make_config(model, folder), new_store(folder))
        process.run(step)
        # From the start: the step uses what the build has left in the cache.
        changes = [event["nbytes"] for event in machine.events("held") if event["kind"] == "malloc"]
        phases = {"step": {"malloc": max(changes)}, "stepped": held()}
        copies = len(machine.events("aclrtMemcpy"))
        process.run(pause)
        phases["offloaded"] = held()
        to_host = [e for e in machine.events("aclrtMemcpy")[copies:] if e["kind"] == DEVICE_TO_HOST]
        needed = phases["stepped"]["physical"] + gradients
        too_little_memory = process.run(error_of_resume, needed + (1 << 30) // 32 // 2)
        zero_gradients = process.run(gradients_are_zero_after_resume)
        process.run(pause)
        machine.fail("aclrtMemcpy", ACL_ERROR_RT_INTERNAL_ERROR)
        failed_copy = process.run(error_of_resume)
    finally:
        process.close()
    copied = sum(event["nbytes"] for event in to_host)
    return Account(lasting, gradients, phases, copied, too_little_memory, zero_gradients, failed_copy)


def test_only_lasting_tensors_are_in_the_region(account: Account) -> None:
    mapped = account.held["stepped"]["physical"]
    assert account.lasting <= mapped <= account.lasting + ROUNDING
    assert "physical" not in account.held["offloaded"]


def test_gradients_are_neither_kept_nor_copied(account: Account) -> None:
    assert account.gradients > 2 * ROUNDING
    assert account.copied <= account.lasting + ROUNDING
    assert account.zero_gradients


def test_cached_memory_is_returned_after_a_step_and_a_pause(account: Account) -> None:
    assert account.held["step"]["malloc"] > account.gradients + 2 * ROUNDING
    assert account.held["stepped"]["malloc"] < account.held["step"]["malloc"] - ROUNDING
    # The mask of the fused attention stays.
    assert account.held["offloaded"]["malloc"] <= ROUNDING


def test_a_resume_needs_the_trainers_memory_and_a_margin(account: Account) -> None:
    assert "needs" in account.too_little_memory
    assert "npu-smi info" in account.too_little_memory


def test_a_failed_copy_is_noticed_and_the_tensor_named(account: Account) -> None:
    assert re.match(r"(model|master|exp_avg\w*)/\S+ has other values", account.failed_copy)
