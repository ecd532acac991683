"""One buffer in device memory that a process on the same device maps by an IPC handle.

torch makes and opens the handles (``torch.multiprocessing.reductions``; torch_npu extends it to NPUs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import reduce_tensor

from vime_runtime.weight_sync.device_identity import chip_id
from vime_runtime.weight_sync.ipc import BUFFERS

DeviceHandle = tuple[Callable[..., torch.Tensor], tuple[Any, ...]]

# Where the device's index stands among the arguments that reduce_tensor gives for a device tensor.
DEVICE_ARGUMENT = 6


class DeviceBuffer:
    """The owner's side; the same bounded buffer serves bucket after bucket and stays allocated."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        self.data = torch.empty(0, dtype=torch.uint8, device=device)
        self._handles: dict[str, DeviceHandle] = {}

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, a uint8 tensor, at least ``nbytes`` long. What it held is lost when it grows."""
        if nbytes > self.data.numel():
            self.data = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
            self._handles = {chip_id(self._device): reduce_tensor(self.data)}

    def wait_for_producers(self) -> None:
        """Let what is packed next see the weights as they are: other streams may still compute them."""
        self._module.synchronize()

    def handles(self) -> dict[str, DeviceHandle]:
        """What a peer on this device needs; everything written before is in the buffer by now.

        The peer is another process: nothing orders its streams after this one's but waiting here.
        """
        self._module.current_stream().synchronize()
        return self._handles


class DevicePeer:
    """The reader's side; buffers that take turns are mapped once, and used until others come."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._mapped: list[tuple[tuple[Any, ...], torch.Tensor]] = []

    def open(self, handles: dict[str, DeviceHandle]) -> torch.Tensor:
        """Map the buffer on this process's device: uint8, one dimension. Only to be read.

        Raises:
            RuntimeError: no rank of the trainer holds the bucket on this device.
        """
        own = chip_id(self._device)
        if own not in handles:
            raise RuntimeError(f"no weight buffer on device {own}; there are some on {', '.join(handles)}")
        rebuild, arguments = handles[own]
        for known, data in self._mapped:
            if known == arguments:
                return data
        # The trainer may number its devices otherwise.
        local = self._device.index
        if local is None:
            local = torch.get_device_module(self._device).current_device()
        data = rebuild(*arguments[:DEVICE_ARGUMENT], local, *arguments[DEVICE_ARGUMENT + 1 :])
        self._mapped = [*self._mapped, (arguments, data)][-BUFFERS:]
        return data

    def close(self) -> None:
        """Unmap the buffers as soon as no tensor looks into them."""
        self._mapped.clear()
