from __future__ import annotations

from types import SimpleNamespace

import pytest
from vime_runtime.train.optimizer import learning_rate


@pytest.mark.parametrize(
    ("decay", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", [0.5, 1.0, 0.2 + 0.8 * 0.853553, 0.6, 0.2 + 0.8 * 0.146447, 0.2]),
    ],
)
def test_the_rate_warms_up_and_decays_to_the_least_at_the_last_step(decay, rates):
    settings = SimpleNamespace(lr=1.0, min_lr=0.2, warmup_steps=2, decay=decay)
    assert [learning_rate(settings, step, 6) for step in range(1, 7)] == pytest.approx(rates)


def test_a_run_of_warm_up_only_needs_no_decay():
    settings = SimpleNamespace(lr=1.0, min_lr=0.2, warmup_steps=2, decay="cosine")
    assert learning_rate(settings, 2, 2) == 1.0
