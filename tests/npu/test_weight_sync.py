"""Buckets of weights from process to process on the released torch_npu, through a driver without it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from vime_runtime.weight_sync.transport import BufferPlan, WeightLocation, plan_buffers

from harness.npu import cann
from harness.npu.machine import Machine
from harness.runtime.rank_processes import Process
from vimectl.recipes.environment import environment
from vimectl.recipes.resolve import resolve
from vimectl.util.host import Host

MIB = 1 << 20
BUCKET = 16 * MIB
# torch_npu allocates at least 32 bytes more, and segments from 10 MiB on in multiples of 2 MiB.
SEGMENT = BUCKET + 2 * MIB
# What the driver does with messages, in a process that can import neither torch nor torch_npu ...
WITHOUT_TORCH = """
import pickle, sys
sys.modules |= dict.fromkeys(["torch", "torch_npu"])  # importing them is an error
messages = pickle.load(sys.stdin.buffer)
pickle.dump([message.joined([message]) for message in messages], sys.stdout.buffer)
"""
# ... with everything that the driver imports.
DRIVER = """
import pickle, sys
import vime_runtime.__main__
messages = pickle.load(sys.stdin.buffer)
assert "torch" not in sys.modules and "torch_npu" not in sys.modules
pickle.dump([message.joined([message]) for message in messages], sys.stdout.buffer)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=2, chip_bytes=512 * MIB)


@pytest.fixture(scope="module")
def trainer(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process whose only chip is 1."""
    process = machine.start(tmp_path_factory.mktemp("trainer"), "1")
    yield process
    process.close()


@pytest.fixture(scope="module")
def worker(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process that sees chip 1 as its device 1."""
    process = machine.start(tmp_path_factory.mktemp("worker"), "0,1")
    yield process
    process.close()


def plan_buckets(rows: int, columns: int, bucket_bytes: int) -> int:
    """Plan buckets for a weight of fp32 on the one chip; return the bytes that this takes of the chip."""
    from vime_runtime.weight_sync import buckets

    device = torch.device("npu", 0)
    buckets.exporter = buckets.small = None
    # What a training step leaves in the cache: a large segment with one small tensor in it.
    large = torch.empty(100 * MIB, dtype=torch.uint8, device=device)
    del large
    buckets.small = torch.empty(2 * MIB, dtype=torch.uint8, device=device)
    torch.npu.empty_cache()
    assert torch.npu.memory_reserved() > 100 * MIB
    buckets.weight = torch.empty(rows, columns, device=device)
    buckets.exporter = buckets.BucketExporter(
        lambda: iter([("weight", buckets.weight)]), bucket_bytes, BufferPlan(False, False), device
    )
    free = torch.npu.mem_get_info()[0]
    buckets.exporter.set_plan(BufferPlan(device=True, cpu=False))
    return free - torch.npu.mem_get_info()[0]


def export(first: float) -> bytes:
    """Fill row i of the weight with ``first`` + i; return the pickled messages of a pass."""
    from vime_runtime.weight_sync import buckets

    buckets.weight.copy_(first + torch.arange(len(buckets.weight))[:, None].expand(buckets.weight.shape))
    messages = []
    while (message := buckets.exporter.next()) is not None:
        messages.append(message)
    return pickle.dumps(messages)


def receive(messages: bytes, rows: int, columns: int, index: int) -> list[float]:
    """Load buckets into a model on a device; return the value of each row."""
    import_without_vllm()
    from vime_runtime.weight_sync.receiver import Receiver

    torch.npu.set_device(index)
    model = torch.nn.Linear(columns, rows, bias=False, device=f"npu:{index}")
    receiver = Receiver(model)
    receiver.begin()
    for message in pickle.loads(messages):
        receiver.receive(message)
    receiver.finish()
    weight = model.weight.detach().cpu()
    assert (weight == weight[:, :1]).all()
    return weight[:, 0].tolist()


def import_without_vllm() -> None:
    """Replace the loader of the receiver, which imports vLLM, by one that copies whole parameters."""
    from harness.runtime.copying_loader import CopyingLoader

    module: Any = SimpleNamespace(DirectLoader=CopyingLoader)
    sys.modules["vime_runtime.weight_sync.direct_loader"] = module


def pass_on(messages: bytes, driver: str = WITHOUT_TORCH, **changes: Any) -> bytes:
    """Send messages through a process that runs ``driver``."""
    return subprocess.run(
        [sys.executable, "-c", driver], input=messages, stdout=subprocess.PIPE, check=True, **changes
    ).stdout


def test_buckets_cross_a_driver_without_torch_and_are_read_on_the_same_chip(
    machine: Machine, trainer: Process, worker: Process
) -> None:
    rows, columns = 20, MIB // 4  # 20 MiB, in two buckets
    trainer.run(plan_buckets, rows, columns, BUCKET)
    before = len(machine.events())
    for first in (1.0, 50.0):
        messages = pass_on(trainer.run(export, first))
        assert worker.run(receive, messages, rows, columns, 1) == [first + i for i in range(rows)]
    events = machine.events()[before:]
    imports = [event for event in events if event["name"] == "aclrtIpcMemImportByKey"]
    assert {(event["chip"], event["owner"]) for event in imports} == {(1, trainer.popen.pid)}
    exports = [event for event in events if event["name"] == "aclrtIpcMemGetExportKey"]
    assert [event["chip"] for event in exports] == [1, 1]  # each buffer once, for both passes


def test_buckets_are_allocated_with_the_plan_and_export_nothing_but_themselves(
    machine: Machine, trainer: Process
) -> None:
    before = len(machine.events("aclrtIpcMemGetExportKey"))
    assert trainer.run(plan_buckets, 20, MIB // 4, BUCKET) == 2 * SEGMENT
    trainer.run(export, 0.0)
    exports = machine.events("aclrtIpcMemGetExportKey")[before:]
    assert [event["nbytes"] for event in exports] == [SEGMENT, SEGMENT]


def test_a_row_larger_than_a_bucket_has_a_segment_of_its_own_size(
    machine: Machine, trainer: Process, worker: Process
) -> None:
    rows, columns = 2, 6 * MIB  # 24 MiB each
    trainer.run(plan_buckets, rows, columns, BUCKET)
    before = len(machine.events("aclrtIpcMemGetExportKey"))
    messages = trainer.run(export, 7.0)
    exports = machine.events("aclrtIpcMemGetExportKey")[before:]
    assert [event["nbytes"] for event in exports] == [26 * MIB, 26 * MIB]
    assert worker.run(receive, messages, rows, columns, 1) == [7.0, 8.0]


def error_of_receiving(messages: bytes, index: int) -> str:
    """Return the error of a worker on a device for the messages of a weight of 4 x 4."""
    try:
        receive(messages, 4, 4, index)
    except RuntimeError as e:
        return str(e)
    return ""


def test_buckets_of_a_trainer_that_has_exited_are_an_error(
    machine: Machine, worker: Process, tmp_path: Path
) -> None:
    trainer = machine.start(tmp_path, "1")
    trainer.run(plan_buckets, 4, 4, BUCKET)
    messages = trainer.run(export, 0.0)
    trainer.popen.send_signal(signal.SIGKILL)
    trainer.popen.wait()
    error = worker.run(error_of_receiving, messages, 1)
    assert "cannot map the weight buffer of the trainer on npu:1 (the trainer may have exited): " in error
    assert "AclrtIpcMemImportByKey" in error


def test_a_worker_on_another_chip_does_not_map_a_bucket(
    machine: Machine, trainer: Process, worker: Process
) -> None:
    trainer.run(plan_buckets, 4, 4, BUCKET)
    messages = trainer.run(export, 0.0)
    before = len(machine.events("aclrtIpcMemImportByKey"))
    assert "the trainer has no weights on this engine's device (npu " in worker.run(
        error_of_receiving, messages, 0
    )
    assert len(machine.events("aclrtIpcMemImportByKey")) == before


def locate() -> list[WeightLocation]:
    """Return the location of weights on each device of the process."""
    from vime_runtime.weight_sync.device_identity import location_of

    return [location_of(torch.device("npu", index)) for index in range(torch.npu.device_count())]


def check_locations(trainer: Process, worker: Process) -> None:
    """Check that a process that sees chip 1 and one that sees both agree, and that each chip is read."""
    (second,), (first, same) = trainer.run(locate), worker.run(locate)
    assert second == same
    assert plan_buffers([first, second], [second, first]) == [BufferPlan(device=True, cpu=False)] * 2


def test_chips_are_told_apart_by_trainer_and_engine_alike(trainer: Process, worker: Process) -> None:
    check_locations(trainer, worker)


@pytest.mark.parametrize("uuid", ["shared", "none"])
def test_chips_are_told_apart_without_a_uuid_of_their_own(
    uuid: Literal["shared", "none"], tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "npus", chips=2, uuid=uuid)
    processes = [machine.start(tmp_path, chips) for chips in ("1", "0,1")]
    check_locations(*processes)
    for process in processes:
        process.close()


def test_the_driver_runs_where_torch_npu_cannot_be_imported(trainer: Process) -> None:
    recipe = resolve("qwen3-4b-tp2").recipe
    decided = environment(recipe, "driver", Host(environment={}), Path("/scratch"))
    paths = {"PYTHONPATH": os.pathsep.join(map(str, [cann.torch_npu(), *sys.path]))}
    trainer.run(plan_buckets, 4, 4, BUCKET)
    messages = trainer.run(export, 0.0)
    # Without the stand-ins for CANN, as on a head node.
    own = {name: setting.value for name, setting in decided.items() if name != "PYTHONPATH"}
    assert pass_on(messages, DRIVER, env={**os.environ, **own, **paths}) == messages


def sample(seed: int) -> list[float]:
    """Seed as an engine does before a rollout, and draw what vllm-ascend's sampler draws for two requests."""
    import_without_vllm()
    from vime_runtime.rollout.worker import WorkerExtension

    WorkerExtension().seed_sampler(seed)
    return torch.empty(2, 4, device="npu").exponential_().flatten().tolist()


def test_the_ranks_of_an_engine_draw_the_same_tokens_from_the_generators_of_their_chips(
    trainer: Process, worker: Process
) -> None:
    assert trainer.run(sample, 5) == worker.run(sample, 5) != worker.run(sample, 6)
