"""What the devices of a run are called in Ray's books, and in the environment of a process."""

from __future__ import annotations

from typing import Any

RESOURCES = {"cpu": "CPU", "npu": "NPU", "cuda": "GPU"}

# Which devices a process sees; a CPU has no such thing.
VISIBLE = {"npu": "ASCEND_RT_VISIBLE_DEVICES", "cuda": "CUDA_VISIBLE_DEVICES"}

# Through which network interface the trainer's ranks reach those on other nodes.
INTERFACE = {
    "cpu": ("GLOO_SOCKET_IFNAME",),
    "npu": ("GLOO_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME"),
    "cuda": ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),
}


def quantity(device: str, count: int) -> dict[str, Any]:
    """``count`` devices, as ``ray.init`` and an actor's options take them."""
    match device:
        case "cpu":
            return {"num_cpus": count}
        case "cuda":
            return {"num_gpus": count}
    return {"resources": {RESOURCES[device]: count}}
