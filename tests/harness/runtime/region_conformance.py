"""Cases that every implementation of OffloadableRegion must pass, in any process.

Run as a script, this is the process for torch_memory_saver's region on a GPU: one that has the library
preloaded.
"""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from vime_runtime.memory.region import OffloadableRegion

MIB = 1024**2
CASES: dict[str, Callable[[OffloadableRegion, torch.device], None]] = {}


def case(check: Callable[[OffloadableRegion, torch.device], None]) -> Callable[..., None]:
    """Add a case under its own name."""
    CASES[check.__name__] = check
    return check


@contextmanager
def refuses(word: str) -> Iterator[None]:
    """Expect a RuntimeError whose message contains ``word``."""
    try:
        yield
    except RuntimeError as e:
        if word in str(e):
            return
        raise
    raise AssertionError("no RuntimeError was raised")


@case
def addresses_and_bytes_survive_offloading(region: OffloadableRegion, device: torch.device) -> None:
    with region.allocating():
        tensors = [torch.randn(size, device=device) for size in (1, 1000, MIB, 3 * MIB + 1)]
    addresses = [tensor.data_ptr() for tensor in tensors]
    for _ in range(3):
        expected = [tensor.clone() for tensor in tensors]
        region.pause()
        region.resume()
        assert [tensor.data_ptr() for tensor in tensors] == addresses
        assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, expected, strict=True))
        for tensor in tensors:
            tensor.add_(1)


@case
def pause_frees_the_memory(region: OffloadableRegion, device: torch.device) -> None:
    before = region.memory_usage().resident
    with region.allocating():
        kept = torch.ones(32 * MIB // 4, device=device)
    active = region.memory_usage().resident
    region.pause()
    offloaded = region.memory_usage().resident
    assert active - offloaded >= kept.nbytes
    assert offloaded - before <= 0.1 * (active - before)
    region.resume()
    assert region.memory_usage().resident - offloaded >= kept.nbytes
    assert kept.sum().item() == kept.numel()


@case
def tensors_outside_the_region_are_not_affected(region: OffloadableRegion, device: torch.device) -> None:
    before = torch.ones(MIB, device=device)
    with region.allocating():
        inside = torch.zeros(MIB, device=device)
        before.add_(1)
    after = torch.ones(MIB, device=device)
    region.pause()
    assert before.sum().item() == 2 * MIB
    assert after.add_(1).sum().item() == 2 * MIB
    region.resume()
    assert inside.sum().item() == 0


@case
def offloading_does_not_change_training(region: OffloadableRegion, device: torch.device) -> None:
    def build() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 64))
        model.to(device)
        return model, torch.optim.AdamW(model.parameters(), lr=1e-2)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.linspace(-1, 1, 64, device=device)).square().sum().backward()
        optimizer.step()

    reference = build()
    with region.allocating():
        offloaded = build()
    for _ in range(3):
        step(*reference)
        with region.allocating():  # the optimizer allocates its state in the first step
            step(*offloaded)
        region.pause()
        region.resume()
    for expected, parameter in zip(reference[0].parameters(), offloaded[0].parameters(), strict=True):
        assert torch.equal(parameter, expected)


@case
def pause_and_resume_must_alternate(region: OffloadableRegion, device: torch.device) -> None:
    assert not region.offloaded
    with refuses("not offloaded"):
        region.resume()
    region.pause()
    assert region.offloaded
    with refuses("offloaded"):
        region.pause()
    with refuses("offloaded"), region.allocating():
        torch.zeros(1, device=device)
    region.resume()
    assert not region.offloaded


@case
def contents_survive_any_history_of_allocations(region: OffloadableRegion, device: torch.device) -> None:
    choices = random.Random(0)
    tensors: dict[int, torch.Tensor] = {}
    for number in range(300):
        what = choices.random()
        if what < 0.55:
            with region.allocating():
                tensors[number] = torch.full((choices.randint(1, 50_000),), float(number), device=device)
        elif what < 0.9 and tensors:
            del tensors[choices.choice(list(tensors))]
        else:
            region.pause()
            if tensors and choices.random() < 0.5:
                del tensors[choices.choice(list(tensors))]  # freed while its memory is offloaded
            region.resume()
        for value, tensor in tensors.items():
            assert tensor.min().item() == tensor.max().item() == value


def torch_memory_saver_failures(device: str, hook_mode: str) -> dict[str, str]:
    """Run every case on the region of torch_memory_saver; return the traceback of each, or ""."""
    if device == "npu":
        import torch_npu  # noqa: F401
    from vime_runtime.memory.torch_memory_saver_region import TorchMemorySaverRegion

    region = TorchMemorySaverRegion(hook_mode)
    return {name: _failure(check, region, torch.device(device)) for name, check in CASES.items()}


def _failure(check: Callable[..., None], region: OffloadableRegion, device: torch.device) -> str:
    try:
        check(region, device)
    except (AssertionError, RuntimeError):
        return traceback.format_exc()
    finally:
        if region.offloaded:
            region.resume()
    return ""


if __name__ == "__main__":
    print(json.dumps(torch_memory_saver_failures("cuda", "preload")))
