"""The feature profiler-default: every group of Megatron-core gets options with its name.

Source: functional/profiler/profiler_info.py:5.
"""

from __future__ import annotations

from typing import Any

import torch_npu
from megatron.core import parallel_state

from mindspeed.patches import replace


def apply() -> None:
    """Name the communicators, for the profiler."""
    original = parallel_state.get_nccl_options

    def options_with_name(name: str, configurations: Any) -> Any:
        options = original(name, configurations) or torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
        options.hccl_config = {**options.hccl_config, "group_name": name}
        return options

    replace(parallel_state, "get_nccl_options", options_with_name)
