from __future__ import annotations

import pytest
from vime_runtime.weight_sync.message import BucketMessage, TensorEntry

ENTRY = TensorEntry("w", "float32", (2,), offset=0, nbytes=8, full=(2,))


def test_the_copies_of_several_ranks_join_into_one_message() -> None:
    ranks = [BucketMessage({f"chip-{rank}": rank}, (ENTRY,)) for rank in range(3)]
    joined = ranks[0].joined(ranks[1:])
    assert joined.handles == {"chip-0": 0, "chip-1": 1, "chip-2": 2}
    assert joined.tensors == (ENTRY,)
    assert joined.payload_bytes == 8


def test_of_copies_on_the_same_device_the_first_counts() -> None:
    assert BucketMessage({"host": 0}, ()).joined([BucketMessage({"host": 1}, ())]).handles == {"host": 0}


def test_ranks_that_export_different_buckets_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="different buckets"):
        BucketMessage({}, (ENTRY,)).joined([BucketMessage({}, ())])
