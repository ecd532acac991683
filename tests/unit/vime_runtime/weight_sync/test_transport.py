from __future__ import annotations

import pytest
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.weight_sync.transport import (
    BucketMessage,
    BufferPlan,
    TensorEntry,
    WeightLocation,
    plan_buffers,
)

ENTRY = TensorEntry("w", "float32", (2,), offset=0, nbytes=8, full_shape=(2,))
ON_DEVICE, IN_CPU_MEMORY, NONE = BufferPlan(True, False), BufferPlan(False, True), BufferPlan(False, False)


def locations(*devices: str, machine: str = "m1") -> list[WeightLocation]:
    return [WeightLocation(machine, device) for device in devices]


def test_engines_on_the_trainers_devices_read_there() -> None:
    ranks = locations("d0", "d1") + locations("d2", "d3", machine="m2")
    assert plan_buffers(ranks, ranks) == [ON_DEVICE] * 4


def test_every_worker_reads_on_its_device_whatever_the_tensor_parallel_size() -> None:
    # Trainer TP=2 twice, four engines of one worker: every worker has the device of some rank.
    ranks = locations("d0", "d1", "d2", "d3")
    assert plan_buffers(ranks, [*reversed(ranks)]) == [ON_DEVICE] * 4


def test_a_device_without_a_reader_gets_no_copy() -> None:
    assert plan_buffers(locations("d0", "d1"), locations("d1")) == [NONE, ON_DEVICE]


def test_engines_on_other_devices_read_one_copy_in_cpu_memory_of_their_machine() -> None:
    ranks = locations("d0", "d1") + locations("d2", "d3", machine="m2")
    assert plan_buffers(ranks, locations("d4", "d5", machine="m2")) == [NONE, NONE, IN_CPU_MEMORY, NONE]
    mixed = plan_buffers(ranks, locations("d0", "d7") + locations("d2", machine="m2"))
    assert mixed == [BufferPlan(True, True), NONE, ON_DEVICE, NONE]


def test_unreachable_engines_are_refused() -> None:
    with pytest.raises(
        MissingRequirement, match="an engine worker on m3 has neither device nor machine in common"
    ):
        plan_buffers(locations("d0"), locations("d0") + locations("d1", machine="m3"))


def test_the_handles_of_all_ranks_are_joined() -> None:
    ranks = [BucketMessage({f"device-{rank}": rank}, (ENTRY,)) for rank in range(3)]
    joined = ranks[0].joined(ranks[1:])
    assert joined.handles == {"device-0": 0, "device-1": 1, "device-2": 2}
    assert joined.tensors == (ENTRY,)
    assert joined.payload_bytes == 8


def test_the_first_of_two_copies_on_a_device_is_used() -> None:
    assert BucketMessage({"machine": 0}, ()).joined([BucketMessage({"machine": 1}, ())]).handles == {
        "machine": 0
    }


def test_ranks_that_export_different_buckets_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="different buckets"):
        BucketMessage({}, (ENTRY,)).joined([BucketMessage({}, ())])
