from __future__ import annotations

import torch
from vime_runtime.memory.arena import Arena
from vime_runtime.memory.placement import Placement


def test_results_of_operators_live_in_the_arena() -> None:
    arena = Arena()
    outside = torch.randn(4, 6)
    with Placement(arena):
        made = [
            torch.empty(3),
            torch.zeros(2, 3, dtype=torch.bfloat16),
            torch.randn(5),
            torch.arange(7),
            torch.empty_strided((2, 3), (1, 2)),
            outside @ outside.T,
            outside.T.contiguous(),
            torch.nn.Linear(3, 4).weight,
            *torch.linalg.qr(outside),
        ]
    assert all(tensor.data_ptr() in arena for tensor in made)
    assert torch.equal(made[5], outside @ outside.T)
    assert torch.equal(made[6], outside.T)
    assert made[4].stride() == (1, 2)
    assert torch.equal(made[1], torch.zeros(2, 3, dtype=torch.bfloat16))


def test_views_and_results_written_elsewhere_stay_where_they_are() -> None:
    arena = Arena()
    outside = torch.zeros(4, 6)
    with Placement(arena):
        view = outside[1:3]
        outside.add_(1)
        torch.add(outside, 1, out=outside)
    assert view.data_ptr() not in arena
    assert view.untyped_storage().data_ptr() == outside.untyped_storage().data_ptr()
    assert outside.sum().item() == 2 * outside.numel()


def test_results_that_share_a_storage_still_share_it() -> None:
    arena = Arena()
    with Placement(arena):
        parts = torch.randn(6, 2).split(2)
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert all(part.data_ptr() in arena for part in parts)


def test_temporaries_use_the_same_place_again() -> None:
    arena = Arena()
    with Placement(arena):
        for _ in range(50):
            torch.randn(1_000_000).exp().sum()
    assert list(arena.live()) == []
    assert arena.residency().mapped < 50_000_000
