"""Names that are taken for misspelled ones."""

from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.checks.variable_names import is_misspelled

# Real variables of CANN, NCCL, vLLM, vllm-ascend, torch_npu and the tools, close to those that are known.
REAL = [
    "NCCL_SOCKET_IFNAME",
    "NCCL_BUFFSIZE",
    "NCCL_IB_DISABLE",
    "MKL_NUM_THREADS",
    "OMP_PROC_BIND",
    "HTTPS_PROXY",
    "https_proxy",
    "ASCEND_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "ASCEND_DEVICE_ID",
    "ASCEND_AICPU_PATH",
    "ASCEND_DRIVER_HOME",
    "ASCEND_GLOBAL_LOG_LEVEL",
    "ASCEND_SLOG_PRINT_TO_STDOUT",
    "HCCL_CONNECT_TIMEOUT",
    "HCCL_EXEC_TIMEOUT",
    "HCCL_WHITELIST_DISABLE",
    "HCCL_INTRA_PCIE_ENABLE",
    "HCCL_INTRA_ROCE_ENABLE",
    "HCCL_DETERMINISTIC",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "VLLM_HOST_IP",
    "VLLM_PORT",
    "VLLM_USE_V1",
    "VLLM_CONFIGURE_LOGGING",
    "VLLM_LOGGING_LEVEL",
    "VLLM_ASSETS_CACHE",
    "VLLM_TARGET_DEVICE",
    "VLLM_ASCEND_ENABLE_MLAPO",
    "VLLM_CPU_KVCACHE_SPACE",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "TRITON_DUMP_DIR",
    "TRITON_HOME",
    "HF_HUB_OFFLINE",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "RAY_TMPDIR",
    "RAY_ADDRESS",
    "LD_BIND_NOW",
    "PYTHONUNBUFFERED",
    "ATB_STREAM_SYNC_EVERY_KERNEL_ENABLE",
    "ATB_COMPARE_TILING_EVERY_KERNEL",
    "TORCHINDUCTOR_FORCE_DISABLE_CACHES",
    "MASTER_ADDR",
    "MASTER_PORT",
    "RANK_ID",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "ROCR_VISIBLE_DEVICES",
    "TASK_QUEUE_ENABLE",
    "CPU_AFFINITY_CONF",
]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("ASCEBD_RT_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", True),
        ("ASCEND_RT_VISIBLE_DEVICE", "ASCEND_RT_VISIBLE_DEVICES", True),
        ("HCCL_BUFSIZE", "HCCL_BUFFSIZE", True),
        ("HCCL_BUFFISZE", "HCCL_BUFFSIZE", True),  # two neighbors are swapped
        ("NCCL_BUFFSIZE", "HCCL_BUFFSIZE", False),
        ("HTTPS_PROXY", "HTTP_PROXY", False),
        ("ASCEND_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES", False),
        ("HOMES", "HOME", False),
    ],
)
def test_close_names(name: str, right: str, wrong: bool) -> None:
    assert is_misspelled(name, right) is wrong


def test_real_variables_are_not_misspelled(npu: Machine) -> None:
    npu.environment |= dict.fromkeys(REAL, "1")
    result = npu.check("environment.misspelled")
    assert result.status == "pass", result.found


def test_misspelled_name_beside_the_right_one_does_no_harm(npu: Machine) -> None:
    npu.environment |= {"ASCEBD_RT_VISIBLE_DEVICES": "0", "ASCEND_RT_VISIBLE_DEVICES": "0"}
    assert npu.check("environment.misspelled").status == "pass"
