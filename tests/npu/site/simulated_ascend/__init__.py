"""Simulate the parts of vllm-ascend that are compiled, generated, or compute on the device.

Everything else of vllm-ascend is the released one. ``torch_npu`` puts them in their places.
"""

from __future__ import annotations

# The name of each module, and the module that replaces it, whether the release has it or not.
INSTEAD = {
    "vllm_ascend.vllm_ascend_C": "simulated_ascend.camem",
    "vllm_ascend.worker.model_runner_v1": "simulated_ascend.model_runner",
    "vllm_ascend.patch.worker.patch_npugraph_ex_triton": None,  # it patches torchair's sources
}
# Imported by vllm-ascend, or a model that it patches, at module level, and never called here. A build of
# vllm-ascend writes _build_info.
MISSING = ("acl", "torchvision", "torchair", "fla_npu", "scipy", "vllm_ascend._build_info")
