from __future__ import annotations

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches.selection import describe


def test_series_of_a_stack_or_package_are_described() -> None:
    everything = list(describe())
    assert {one.package for one in describe(stack="cpu-0.32")} == {"megatron-core", "vllm"}
    assert {one.package for one in describe(["vllm"])} == {"vllm"}
    assert all(patch.header.startswith(b"Description: ") for one in everything for patch in one.patches)
    (newest,) = describe(["vllm"], "ascend-0.30")
    assert list(newest.unneeded) == ["stale-async-output"]
    with pytest.raises(UsageError, match="Did you mean vllm"):
        list(describe(["vlm"]))
