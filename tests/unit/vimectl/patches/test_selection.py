from __future__ import annotations

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches.selection import describe, entry_series
from vimectl.patches.series import Series


def test_series_of_a_stack_or_package_are_described() -> None:
    everything = list(describe())
    assert {one.package for one in describe(stack="cpu-0.32")} == {"megatron-core", "vllm"}
    assert {one.package for one in describe(["vllm"])} == {"vllm"}
    assert all(patch.header.startswith(b"Description: ") for one in everything for patch in one.patches)
    (newest,) = describe(["vllm"], "ascend-0.30")
    assert list(newest.unneeded) == ["stale-async-output"]
    with pytest.raises(UsageError, match="Did you mean vllm"):
        list(describe(["vlm"]))


def test_series_for_another_package_is_refused(toy_series: Series) -> None:
    assert entry_series("toy", str(toy_series.directory)).chains == toy_series.chains
    with pytest.raises(UsageError, match="these patches are for toy, not for tool"):
        entry_series("tool", str(toy_series.directory))
