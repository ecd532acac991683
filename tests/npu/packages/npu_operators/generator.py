"""Random numbers of the device: drawn on the CPU, determined by the state of torch_npu's generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

# By how much an operator advances the generator: op-plugin asks for 10, which NPUGeneratorImpl::
# philox_engine_inputs rounds up to a multiple of 4 (torch_npu/csrc/aten/NPUGeneratorImpl.cpp).
_ADVANCE = 12
# An odd 64-bit constant: consecutive offsets shall have seeds that are far from each other.
_SPREAD = 0x9E3779B97F4A7C15


def draw(generator: torch.Generator | None) -> torch.Generator:
    """Advance a generator of the device, or the current device's own; return one of the CPU for its state."""
    if generator is None:
        generator = torch.npu.default_generators[torch.npu.current_device()]
    offset = generator.get_offset()
    generator.set_offset(offset + _ADVANCE)
    seed = (generator.initial_seed() + offset * _SPREAD) % (1 << 63)
    return torch.Generator().manual_seed(seed)


def seeded(operator: Callable[..., Any], takes_generator: bool) -> Callable[..., Any]:
    """Return a CPU operator that draws its random numbers from the device's generator."""

    def function(*args: Any, **named: Any) -> Any:
        given = [value for value in args if isinstance(value, torch.Generator)]
        if takes_generator and not given:
            return operator(*args, **named | {"generator": draw(named.get("generator"))})
        if given:
            replaced = draw(given[0])
            return operator(*(replaced if value is given[0] else value for value in args), **named)
        with _cpu_state(draw(None)):
            return operator(*args, **named)

    return function


def on_current_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Make the device of a kernel's first tensor, or of its argument, the current one during a call."""

    def guarded(*args: Any, **named: Any) -> Any:
        tensor = next((value for value in args if isinstance(value, torch.Tensor)), None)
        device = named.get("device") if tensor is None else tensor.device
        with torch.npu.device(device):
            return kernel(*args, **named)

    return guarded


@contextmanager
def _cpu_state(generator: torch.Generator) -> Iterator[None]:
    """Let operators without an argument for a generator draw from this one."""
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
