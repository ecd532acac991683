from __future__ import annotations

import json
import random

import numpy
import torch
from vime_runtime.checkpoint import random_state


def draw() -> list[float]:
    return [
        random.gauss(0, 1),
        random.random(),
        numpy.random.standard_normal(),
        numpy.random.random(),
        torch.rand(1).item(),
    ]


def test_every_generator_is_restored_through_json() -> None:
    random.gauss(0, 1), numpy.random.standard_normal()  # each caches the second of a pair
    states = json.loads(json.dumps(random_state.capture()))
    drawn = draw()
    draw()
    random_state.restore(states)
    assert draw() == drawn
