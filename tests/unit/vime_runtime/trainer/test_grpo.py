"""Advantages, loss and its gradient, against what verl and TRL return for the same inputs.

``recorded_losses.json`` has the inputs, the results, and the versions and functions that they are from.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.errors import NotFinite
from vime_runtime.trainer import grpo

from harness.run_config import make_recipe
from harness.tolerances import relative

RECORDED = json.loads((Path(__file__).parent / "recorded_losses.json").read_text())
GIVEN, VERL, TRL = RECORDED["inputs"], RECORDED["verl"], RECORDED["trl"]
# The numbers have 15 digits; TRL works with rewards, and some metrics of both are, in fp32.
EXACT = {"rel": 1e-10, "abs": 1e-14}
# Losses are sums of 20 numbers of both signs, of at most 2.
FP32 = {"rel": 1e-6, "abs": 1e-6}


def batch_of(rewards: list[float]) -> RolloutBatch:
    batch = RolloutBatch()
    for length, reward, group, truncated in zip(
        GIVEN["lengths"], rewards, GIVEN["groups"], GIVEN["truncated"], strict=True
    ):
        batch.append([1], [2] * length, [0.0] * length, reward, group, truncated)
    return batch


def loss_and_gradient(
    dtype: torch.dtype, rewards: list[float] | None = None, **algorithm: Any
) -> dict[str, Any]:
    """Return the loss of a step with one update, its gradient by the log-probabilities, and its metrics."""
    recipe = make_recipe(
        algorithm={"clip_low": GIVEN["clip_low"], "clip_high": GIVEN["clip_high"], **algorithm},
        rollout={"max_response_tokens": GIVEN["max_response_tokens"]},
    )
    settings = recipe.algorithm
    batch = batch_of(rewards or GIVEN["rewards"])
    advantages = grpo.group_advantages(batch.rewards, batch.groups, settings.scale_advantages)
    (update,) = grpo.plan_updates(batch, recipe)
    trained = {i for group in update.groups for i in group}
    responses = [i for i, length in enumerate(GIVEN["lengths"]) for _ in range(length)]
    rows = [row for row, i in enumerate(responses) if i in trained]
    assert len(rows) == update.tokens

    def tensor(values: list[float]) -> torch.Tensor:
        return torch.tensor([values[row] for row in rows], dtype=dtype)

    logprobs = torch.tensor(GIVEN["logprobs"], dtype=dtype, requires_grad=True)
    micro_batch: Any = SimpleNamespace(
        advantages=tensor([advantages[i] for i in responses]),
        old_logprobs=tensor(GIVEN["old_logprobs"]),
        rollout_logprobs=tensor(GIVEN["rollout_logprobs"]),
        reference_logprobs=tensor(GIVEN["reference_logprobs"]) if settings.kl_coefficient else None,
    )
    metrics = grpo.StepMetrics(settings, torch.device("cpu"))
    losses = grpo.token_losses(logprobs[rows], micro_batch, settings, metrics)
    assert losses.dtype == dtype
    loss = losses.sum() / update.divisor
    loss.backward()
    return {
        "loss": loss.item(),
        "gradient": logprobs.grad.tolist(),
        "metrics": metrics.reduce(update.tokens, None),
    }


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: None)


@pytest.mark.parametrize(("scale", "name"), [(True, "advantages"), (False, "advantages_without_std")])
def test_advantages_are_those_of_verl(scale, name):
    found = grpo.group_advantages(GIVEN["rewards"], GIVEN["groups"], scale)
    assert found == pytest.approx(VERL[name], **EXACT)


def test_advantages_are_those_of_trl_up_to_its_epsilon():
    found = grpo.group_advantages(GIVEN["rewards"], GIVEN["groups"], scale=False)
    assert found == pytest.approx(TRL["advantages_without_std"], **FP32)
    scaled = grpo.group_advantages(GIVEN["rewards"], GIVEN["groups"])
    # The deviation that TRL divides by has 1e-4 added to it, not 1e-6.
    deviations = [centered / advantage for centered, advantage in zip(found, scaled, strict=True)]
    theirs = [
        advantage * deviation / (deviation - grpo.STD_EPS + 1e-4)
        for advantage, deviation in zip(scaled, deviations, strict=True)
    ]
    assert theirs == pytest.approx(TRL["advantages"], **FP32)


def test_equal_rewards_give_no_advantages():
    assert grpo.group_advantages([0.1] * 3, [0] * 3) == pytest.approx([0] * 3, abs=1e-9)


MASK = {"mask_truncated": True}
CAP = {"importance_sampling_cap": GIVEN["cap"]}
CONSTANT = {"loss_average": "constant"}
UNIFORM = [1.0] * 4 + GIVEN["rewards"][4:]
# Case of verl, settings, and by how much verl's loss is larger: its constant divisor has no number of
# responses.
VERL_CASES: dict[str, tuple[dict[str, Any], float]] = {
    "tokens": ({}, 1),
    "tokens, capped": (CAP, 1),
    "tokens, masked": (MASK, 1),
    "tokens, first group dropped": ({"drop_uniform_groups": True, "rewards": UNIFORM}, 1),
    "constant": (CONSTANT, 8),
    "constant, masked, capped": (CONSTANT | MASK | CAP, 8),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, FP32)])
@pytest.mark.parametrize("name", VERL_CASES)
def test_loss_and_gradient_are_those_of_verl(name, dtype, tolerance):
    settings, factor = VERL_CASES[name]
    expected = VERL["losses"][name]
    found = loss_and_gradient(dtype, **settings)
    assert found["loss"] * factor == pytest.approx(expected["loss"], **tolerance)
    assert [x * factor for x in found["gradient"]] == pytest.approx(expected["gradient"], **tolerance)
    # verl adds 1e-8 to the number of tokens.
    assert found["metrics"]["train/clip_fraction"] == pytest.approx(expected["clip_fraction"], **FP32)


NO_STD = {"scale_advantages": False}
KL = {"kl_coefficient": GIVEN["kl_coefficient"]}
TRL_CASES: dict[str, dict[str, Any]] = {
    "dapo": {},
    "dapo, masked": MASK,
    "bnpo, masked": MASK,  # the same as dapo if there is one micro-batch
    "dapo, capped, kl": CAP | KL,
    "dr_grpo, without std": CONSTANT | NO_STD,
    "dr_grpo, without std, masked, capped, kl": CONSTANT | NO_STD | MASK | CAP | KL,
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, FP32)])
@pytest.mark.parametrize("name", TRL_CASES)
def test_loss_and_gradient_are_those_of_trl(name, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(grpo, "STD_EPS", 1e-4)  # TRL's
    expected = TRL["losses"][name]
    found = loss_and_gradient(dtype, **TRL_CASES[name])
    assert found["loss"] == pytest.approx(expected["loss"], **tolerance)
    assert found["gradient"] == pytest.approx(expected["gradient"], **tolerance)
    metrics = found["metrics"]
    assert metrics["train/clip_fraction"] == pytest.approx(expected["clip_fraction"], **FP32)
    if "importance_sampling_cap" in TRL_CASES[name]:
        assert metrics["train/importance_weight"] == pytest.approx(expected["weight_mean"], **FP32)
        assert metrics["logprob/abs_diff_mean"] == pytest.approx(expected["difference_mean"], **FP32)
        assert metrics["logprob/abs_diff_max"] == pytest.approx(expected["difference_max"], **FP32)
    if "kl_coefficient" in TRL_CASES[name]:
        assert metrics["train/kl"] == pytest.approx(expected["kl"], **FP32)


def gradient_of(function: Any, at: list[float]) -> tuple[list[float], list[float]]:
    values = torch.tensor(at, requires_grad=True)
    result = function(values)
    result.sum().backward()
    return result.tolist(), values.grad.tolist()


def test_k3_and_its_gradient_are_those_of_verl_where_they_would_overflow():
    reference = torch.tensor(GIVEN["far"])
    value, gradient = gradient_of(lambda logprobs: grpo.kl_k3(logprobs, reference), [0.0] * len(reference))
    # Differences of two fp32 numbers, of the size of the log-ratio, 1e-3 or more, and of 1.
    assert value == pytest.approx(VERL["low_var_kl"]["value"], rel=1e-6, abs=1e-9)
    assert gradient == pytest.approx(VERL["low_var_kl"]["gradient"], rel=1e-6, abs=2e-7)


@pytest.mark.parametrize(("name", "advantage"), [("far_positive", 0.5), ("far_negative", -0.5)])
def test_the_loss_and_its_gradient_are_those_of_verl_where_they_would_overflow(name, advantage):
    zeros = torch.zeros(len(GIVEN["far"]))
    clips = GIVEN["clip_low"], GIVEN["clip_high"]
    value, gradient = gradient_of(
        lambda logprobs: grpo.clipped_surrogate(logprobs, zeros, zeros + advantage, *clips)[0], GIVEN["far"]
    )
    # exp(20) in fp32 has the relative error of its argument, 20 eps.
    tolerance = relative(torch.float32, 24)
    assert value == pytest.approx(VERL[name]["value"], **tolerance)
    assert gradient == pytest.approx(VERL[name]["gradient"], **tolerance)


def test_importance_weights_are_those_of_verl():
    far = torch.tensor(GIVEN["far"])
    weights, capped = grpo.importance_weights(far, torch.zeros(len(far)), GIVEN["cap"])
    assert weights.tolist() == pytest.approx(VERL["far_weights"], **relative(torch.float32, 24))
    assert capped.tolist() == [math.exp(min(x, 20)) > GIVEN["cap"] for x in GIVEN["far"]]
    old, rollout = (torch.tensor(GIVEN[name]) for name in ("old_logprobs", "rollout_logprobs"))
    assert grpo.importance_weights(old, rollout, GIVEN["cap"])[0].tolist() == pytest.approx(
        VERL["weights"], **FP32
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "is_clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, False),
        (1.25, 2.0, -2.5, -2.5, False),  # inside the upper bound of 1.3
        (1.5, 2.0, -2.6, 0.0, True),  # above it: no gradient
        (1.5, -2.0, 3.0, 3.0, False),  # a bad token that became more likely always has a gradient
        (0.7, -2.0, 1.6, 0.0, True),  # below the lower bound of 0.8
        (0.7, 2.0, -1.4, -1.4, False),
    ],
)
def test_loss_clips_asymmetrically(ratio, advantage, loss, gradient, is_clipped):
    logprob = torch.tensor([math.log(ratio)], requires_grad=True)
    found, clipped = grpo.clipped_surrogate(logprob, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.3)
    found.sum().backward()
    # A logarithm and its exponential, then two products, in fp32.
    assert found.item() == pytest.approx(loss, **relative(torch.float32, 8))
    # d ratio / d logprob = ratio
    assert logprob.grad.item() == pytest.approx(gradient, **relative(torch.float32, 8))
    assert clipped.tolist() == [is_clipped]


def plan(**algorithm: Any) -> list[grpo.Update]:
    recipe = make_recipe(algorithm=algorithm, rollout={"max_response_tokens": 6})
    return grpo.plan_updates(batch_of(UNIFORM), recipe)


def test_an_update_has_the_responses_that_are_trained_on():
    assert plan() == [grpo.Update([[0, 1, 2, 3], [4, 5, 6, 7]], 20, 20)]
    assert plan(**MASK) == [grpo.Update([[0, 2, 3], [4, 5, 7]], 12, 12)]
    assert plan(**CONSTANT, **MASK) == [grpo.Update([[0, 2, 3], [4, 5, 7]], 12, 8 * 6)]
    assert plan(drop_uniform_groups=True) == [grpo.Update([[4, 5, 6, 7]], 10, 10)]
    assert plan(drop_uniform_groups=True, **CONSTANT) == [grpo.Update([[4, 5, 6, 7]], 10, 4 * 6)]


def test_an_update_without_responses_is_left_out():
    assert plan(updates_per_step=2) == [
        grpo.Update([[0, 1, 2, 3]], 10, 10),
        grpo.Update([[4, 5, 6, 7]], 10, 10),
    ]
    assert plan(updates_per_step=2, drop_uniform_groups=True) == [grpo.Update([[4, 5, 6, 7]], 10, 10)]


def test_numbers_that_are_not_finite_are_named():
    with pytest.raises(NotFinite) as raised:
        grpo.check_finite(7, {"train/loss": math.nan, "train/lr": 0.1, "train/grad_norm": math.inf})
    assert raised.value.message == "step 7: train/loss is nan, train/grad_norm is inf"
    assert "optimizer.lr" in raised.value.hint
    grpo.check_finite(7, {"train/loss": -1.0})
