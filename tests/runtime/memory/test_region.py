"""What every implementation of the training region must do. A new one adds a line to IMPLEMENTATIONS."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from vime_runtime.memory.host import HostRegion
from vime_runtime.memory.region import Residency, TrainingRegion
from vime_runtime.memory.saver import SaverRegion

no_saver = not torch.cuda.is_available() or importlib.util.find_spec("torch_memory_saver") is None

IMPLEMENTATIONS = {
    "host": (HostRegion, torch.device("cpu")),
    "saver": (lambda directory: SaverRegion(hook_mode="torch"), torch.device("cuda")),
}
MIB = 1024**2


@pytest.fixture(
    params=[
        "host",
        pytest.param(
            "saver", marks=pytest.mark.skipif(no_saver, reason="needs a GPU and torch_memory_saver")
        ),
    ]
)
def implementation(request: pytest.FixtureRequest) -> tuple[Callable[[Path], TrainingRegion], torch.device]:
    return IMPLEMENTATIONS[request.param]


@pytest.fixture
def region(
    implementation: tuple[Callable[[Path], TrainingRegion], torch.device], disk: Path
) -> TrainingRegion:
    return implementation[0](disk)


@pytest.fixture
def device(implementation: tuple[Callable[[Path], TrainingRegion], torch.device]) -> torch.device:
    return implementation[1]


def test_addresses_and_bytes_survive_any_number_of_pauses(
    region: TrainingRegion, device: torch.device
) -> None:
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


def test_pausing_really_gives_the_memory_back(region: TrainingRegion, device: torch.device) -> None:
    with region.allocating():
        kept = torch.ones(32 * MIB // 4, device=device)
    active = region.residency().resident
    assert active >= kept.nbytes
    region.pause()
    assert region.residency().resident <= 0.1 * active
    region.resume()
    assert region.residency().resident >= kept.nbytes
    assert kept.sum().item() == kept.numel()


def test_tensors_from_outside_are_left_alone(region: TrainingRegion, device: torch.device) -> None:
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


def test_allocating_may_be_nested(region: TrainingRegion, device: torch.device) -> None:
    with region.allocating():
        with region.allocating():
            inner = torch.ones(4 * MIB, device=device)
        outer = torch.ones(4 * MIB, device=device)
    assert region.residency().resident >= inner.nbytes + outer.nbytes
    region.pause()
    region.resume()
    assert inner.sum().item() == outer.sum().item() == 4 * MIB


def test_a_model_trains_on_as_if_it_had_never_been_paused(
    region: TrainingRegion, device: torch.device
) -> None:
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
        paused = build()
    for _ in range(3):
        step(*reference)
        with region.allocating():  # the optimizer makes its state in the first step
            step(*paused)
        region.pause()
        region.resume()
    for expected, parameter in zip(reference[0].parameters(), paused[0].parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_pausing_and_resuming_alternate(region: TrainingRegion, device: torch.device) -> None:
    assert not region.paused
    with pytest.raises(RuntimeError, match="not paused"):
        region.resume()
    region.pause()
    assert region.paused
    with pytest.raises(RuntimeError, match="paused"):
        region.pause()
    with pytest.raises(RuntimeError, match="paused"), region.allocating():
        torch.zeros(1, device=device)
    region.resume()
    assert not region.paused


def test_any_history_of_tensors_keeps_their_contents(region: TrainingRegion, device: torch.device) -> None:
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
                del tensors[choices.choice(list(tensors))]  # freed while its memory is away
            region.resume()
        for value, tensor in tensors.items():
            assert tensor.min().item() == tensor.max().item() == value


def test_residencies_add_up() -> None:
    assert Residency.total(Residency(mapped=2, resident=1) for _ in range(3)) == Residency(6, 3)
