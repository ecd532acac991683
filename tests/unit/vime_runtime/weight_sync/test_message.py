from __future__ import annotations

import pytest
from vime_runtime.weight_sync.message import BucketMessage, TensorEntry

ENTRY = TensorEntry("w", "float32", (2,), offset=0, nbytes=8, full_shape=(2,))


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
