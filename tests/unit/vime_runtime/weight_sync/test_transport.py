from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.transport import (
    BucketMessage,
    BufferPlan,
    TensorEntry,
    WeightLocation,
    plan_buffers,
)

# Joins pickled messages as the driver does, in a process that can import neither torch nor torch_npu.
DRIVER = """
import pickle, sys
sys.modules |= dict.fromkeys(["torch", "torch_npu"])  # importing them is an error
first, *others = pickle.load(sys.stdin.buffer)
pickle.dump(first.joined(others), sys.stdout.buffer)
"""
ENTRY = TensorEntry("w", "float32", (2,), offset=0, nbytes=8, full_shape=(2,))
ON_DEVICE, IN_CPU_MEMORY, NONE = BufferPlan(True, False), BufferPlan(False, True), BufferPlan(False, False)


def locations(*devices: str, machine: str = "m1") -> list[WeightLocation]:
    return [WeightLocation(machine, device) for device in devices]


TWO_MACHINES = locations("d0", "d1") + locations("d2", "d3", machine="m2")


@pytest.mark.parametrize(
    ("ranks", "readers", "plan"),
    [
        (TWO_MACHINES, TWO_MACHINES, [ON_DEVICE] * 4),
        # Trainer TP=2 twice, four engines of one worker: every worker has the device of some rank.
        (locations("d0", "d1", "d2"), locations("d2", "d1", "d0"), [ON_DEVICE] * 3),
        # A device without a reader gets no copy.
        (locations("d0", "d1"), locations("d1"), [NONE, ON_DEVICE]),
        # Engines on other devices read one copy in CPU memory of their machine.
        (TWO_MACHINES, locations("d4", "d5", machine="m2"), [NONE, NONE, IN_CPU_MEMORY, NONE]),
        (
            TWO_MACHINES,
            locations("d0", "d7") + locations("d2", machine="m2"),
            [BufferPlan(True, True), NONE, ON_DEVICE, NONE],
        ),
    ],
)
def test_every_worker_reads_on_its_device_or_else_on_its_machine(
    ranks: list[WeightLocation], readers: list[WeightLocation], plan: list[BufferPlan]
) -> None:
    assert plan_buffers(ranks, readers) == plan


def test_unreachable_engines_are_refused() -> None:
    with pytest.raises(
        MissingRequirement, match="an engine worker on m3 has neither device nor machine in common"
    ):
        plan_buffers(locations("d0"), locations("d0") + locations("d1", machine="m3"))


@pytest.mark.parametrize(
    ("ranks", "readers", "message"),
    [
        (locations("d0", "d1", "d0"), locations("d0"), "trainer ranks 0 and 2 have the same device: d0"),
        (locations("d0", "d1"), locations("d1", "d1"), "engine workers 0 and 1 have the same device: d1"),
    ],
)
def test_two_processes_with_the_same_device_are_refused(
    ranks: list[WeightLocation], readers: list[WeightLocation], message: str
) -> None:
    with pytest.raises(MissingRequirement, match=message):
        plan_buffers(ranks, readers)


def test_workers_without_a_device_may_share_a_machine() -> None:
    on_cpu = [WeightLocation("m1", None)] * 2
    assert plan_buffers(locations("d0"), on_cpu) == [IN_CPU_MEMORY]


def test_the_handles_of_all_ranks_are_joined() -> None:
    ranks = [BucketMessage({f"device-{rank}": bytes([rank])}, (ENTRY,)) for rank in range(3)]
    joined = ranks[0].joined(ranks[1:])
    assert joined.handles == {"device-0": b"\0", "device-1": b"\1", "device-2": b"\2"}
    assert joined.tensors == (ENTRY,)
    assert joined.payload_bytes == 8
    # The first of two copies in the memory of a machine is used.
    assert joined.joined([BucketMessage({"device-0": b"\3"}, (ENTRY,))]) == joined


def test_a_driver_without_torch_passes_messages_on() -> None:
    weight = torch.ones(2)
    messages = [BucketExporter(lambda: iter([("w", weight)]), 64).next() for _ in range(2)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], input=pickle.dumps(messages), stdout=subprocess.PIPE, check=True
    )
    assert pickle.loads(done.stdout) == messages[0]


def test_ranks_that_export_different_buckets_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="different buckets"):
        BucketMessage({}, (ENTRY,)).joined([BucketMessage({}, ())])
