"""The trainer against a plain reference: transformers' model, autograd, one sequence at a time."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from transformers import AutoModelForCausalLM
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.run_config import RunConfig

from harness.tolerances import of_rounding, of_sum

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# Sums of 64 and 96 terms in four matrices of two layers and in the logits, forward and backward.
TERMS = 2 * 2 * (3 * 64 + 96) + 2 * 64
# Losses are means over 40 tokens or more, of both signs, whose errors cancel for the most part.
METRICS = of_sum(torch.float32, TERMS // 4, magnitude=0.1)


def train(
    rank: int, world_size: int, store: str, config: RunConfig, batches: list[RolloutBatch]
) -> dict[str, Any]:
    """Train on the batches, offloaded before the last; return metrics, final weights and memory."""
    from vime_runtime.trainer.trainer import Trainer

    with closing(Trainer(config, rank, world_size, FileStore(store, world_size))) as trainer:
        metrics = [trainer.train_step(batch) for batch in batches[:-1]]
        active = trainer.memory_usage().resident
        trainer.pause()
        offloaded = trainer.memory_usage().resident
        trainer.resume()
        metrics.append(trainer.train_step(batches[-1]))
        trainer.save_pretrained(config.paths.run_dir / "saved")
        weights = {name: tensor.clone() for name, tensor in trainer.weights()}
        return {"metrics": metrics, "weights": weights, "active": active, "offloaded": offloaded}


def reference_logprobs(
    model: torch.nn.Module, prompt: list[int], response: list[int], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float() / temperature
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(-1, torch.tensor(response)[:, None])[:, 0], entropy


def peers(batch: RolloutBatch, response: int) -> list[float]:
    """Return the rewards of the group of a response."""
    group = batch.groups[response]
    return [r for r, g in zip(batch.rewards, batch.groups, strict=True) if g == group]


def token_metrics(algorithm: dict[str, Any]) -> list[str]:
    """Return the metrics that are means over tokens."""
    names = ["train/loss", "train/entropy", "train/clip_fraction"]
    if algorithm["kl_coefficient"]:
        names.append("train/kl")
    if algorithm["importance_sampling_cap"] is not None:
        names += ["train/importance_weight", "train/importance_capped"]
    return names


def train_reference(config: RunConfig, batches: list[RolloutBatch]) -> dict[str, Any]:
    """Do the same training in a plain way."""
    from vime_runtime.trainer.schedule import learning_rate

    recipe = config.recipe.model_dump()
    algorithm, settings = recipe["algorithm"], recipe["optimizer"]
    temperature = recipe["rollout"]["temperature"]
    model = AutoModelForCausalLM.from_pretrained(recipe["model"]["path"], dtype=torch.float32)
    frozen = AutoModelForCausalLM.from_pretrained(recipe["model"]["path"], dtype=torch.float32)
    adam = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1]},
            {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    metrics = []
    for step, batch in enumerate(batches, start=1):
        with torch.no_grad():
            pairs = list(zip(batch.prompts, batch.responses, strict=True))
            old = [reference_logprobs(model, *pair, temperature)[0] for pair in pairs]
            fixed = [reference_logprobs(frozen, *pair, temperature)[0] for pair in pairs]
        for group in adam.param_groups:
            group["lr"] = learning_rate(config.recipe.optimizer, step, config.steps)
        sums: dict[str, list[float]] = {name: [] for name in token_metrics(algorithm)}
        differences, norms = [0.0], []
        updates = algorithm["updates_per_step"]
        for update in range(updates):
            kept = [i for i, group in enumerate(batch.groups) if group % updates == update]
            if algorithm["drop_uniform_groups"]:
                kept = [i for i in kept if len(set(peers(batch, i))) > 1]
            trained = [i for i in kept if not (algorithm["mask_truncated"] and batch.truncated[i])]
            tokens = sum(len(batch.responses[i]) for i in trained)
            if tokens == 0:
                continue
            divisor = tokens
            if algorithm["loss_average"] == "constant":
                divisor = len(kept) * recipe["rollout"]["max_response_tokens"]
            adam.zero_grad()
            for i in trained:
                rewards = torch.tensor(peers(batch, i))
                advantage = batch.rewards[i] - rewards.mean()
                if algorithm["scale_advantages"]:
                    advantage = advantage / (rewards.std() + 1e-6)
                logprobs, entropy = reference_logprobs(model, *pairs[i], temperature)
                ratio = (logprobs - old[i]).exp()
                clipped = ratio.clamp(1 - algorithm["clip_low"], 1 + algorithm["clip_high"])
                loss = -torch.min(ratio * advantage, clipped * advantage)
                gap = fixed[i] - logprobs
                kl = gap.exp() - gap - 1
                difference = old[i] - torch.tensor(batch.logprobs[i])
                cap = algorithm["importance_sampling_cap"]
                weight = difference.exp() if cap is None else difference.exp().clamp(max=cap)
                if cap is not None:
                    loss = loss * weight
                loss = loss + algorithm["kl_coefficient"] * kl
                (loss.sum() / divisor).backward()
                values = {
                    "train/loss": loss * tokens / divisor,
                    "train/entropy": entropy,
                    "train/kl": kl,
                    "train/clip_fraction": clipped * advantage < ratio * advantage,
                    "train/importance_weight": weight,
                    "train/importance_capped": difference.exp() > weight,
                }
                for name in sums:
                    sums[name] += values[name].tolist()
                differences += difference.abs().tolist()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_grad"]).item())
            adam.step()
        count = len(sums["train/loss"])
        metrics.append(
            {name: sum(values) / max(count, 1) for name, values in sums.items()}
            | {
                "train/tokens": count,
                "train/grad_norm": sum(norms) / max(len(norms), 1),
                "train/lr": adam.param_groups[0]["lr"],
                "logprob/abs_diff_mean": sum(differences) / max(count, 1),
                "logprob/abs_diff_max": max(differences),
            }
        )
    return {"metrics": metrics, "weights": published(model)}


def published(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights as in checkpoints; transformers has the experts of a layer in one tensor."""
    weights = {}
    for name, parameter in model.named_parameters():
        layer, experts, kind = name.partition("mlp.experts.")
        for expert, tensor in enumerate(parameter.detach() if experts else []):
            prefix = f"{layer}mlp.experts.{expert}"
            if kind == "down_proj":
                weights[f"{prefix}.down_proj.weight"] = tensor
            else:
                weights[f"{prefix}.gate_proj.weight"], weights[f"{prefix}.up_proj.weight"] = tensor.chunk(2)
        if not experts:
            weights[name] = parameter.detach()
    return weights


def assert_same_training(found: dict[str, Any], expected: dict[str, Any], config: RunConfig) -> None:
    optimizer = config.recipe.optimizer
    for step, (mine, theirs) in enumerate(zip(found["metrics"], expected["metrics"], strict=True)):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, rel=METRICS["rtol"], abs=METRICS["atol"]), (step, name)
    # AdamW passes the error of a gradient, of at most about clip_grad / 10, on to the weight in each of 3
    # steps.
    magnitude = 3 * optimizer.lr / optimizer.eps * optimizer.clip_grad / 10
    tolerance = of_rounding(torch.float32, 16) | {"atol": of_sum(torch.float32, TERMS, magnitude)["atol"]}
    for name, tensor in found["weights"].items():
        torch.testing.assert_close(tensor, expected["weights"][name], **tolerance)


TP2 = {"train__tensor_parallel": 2}
KL = {"algorithm__kl_coefficient": 3.0, "algorithm__updates_per_step": 2}
CLIP = {"algorithm__clip_low": 0.002, "algorithm__clip_high": 0.003, "optimizer__lr": 1e-2}
RECOMPUTE = {"train__recompute": True}
ONE_PACK = {"train__tokens_per_micro_batch": 10_000}
EP2 = {"train__expert_parallel": 2}
UNTIED = {"tie_word_embeddings": False}
MOE = {"family": "qwen3_moe"}
# World size, changes of the recipe, changes of the model.
CASES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "one-rank": (1, {}, {}),
    "tp2": (2, TP2, {}),
    "llama": (1, {}, {"family": "llama", "num_key_value_heads": 1}),
    "llama-tp2-llama3-rope": (2, TP2, {"family": "llama", "rope_parameters": LLAMA3}),
    "qwen2-untied-recompute": (1, RECOMPUTE, {"family": "qwen2"} | UNTIED),
    "qwen2-tp2-padded-vocabulary": (2, TP2, {"family": "qwen2", "head_dim": 32, "vocab_size": 65}),
    "dp2-untied": (2, {}, UNTIED | {"vocab_size": 65}),
    "tp2-untied-recompute-one-pack": (2, TP2 | ONE_PACK | RECOMPUTE, UNTIED | {"vocab_size": 65}),
    "tp2-kl-two-updates": (2, TP2 | KL | CLIP, {}),
    "experts-no-norm-topk-prob-recompute": (1, RECOMPUTE, MOE | {"norm_topk_prob": False}),
    "experts-tp2": (2, TP2, MOE | UNTIED),
    "experts-tp2-ep2-recompute": (2, TP2 | EP2 | RECOMPUTE, MOE),
    "experts-dp2": (2, {}, MOE),
    "experts-dp2-ep2-kl-two-updates": (2, EP2 | KL, MOE),
}


@pytest.mark.parametrize(("world_size", "changes", "model"), CASES.values(), ids=CASES)
def test_training_equals_the_reference(ranks, make_model, make_batch, run_file, world_size, changes, model):
    config = run_file(make_model(**model), **changes)
    batches = [make_batch(seed) for seed in range(3)]
    expected = train_reference(config, batches)
    for found in ranks.run(train, world_size, config, batches):
        assert_same_training(found, expected, config)
        assert found["offloaded"] < found["active"] / 10
    saved = AutoModelForCausalLM.from_pretrained(config.paths.run_dir / "saved", dtype="auto")
    for name, parameter in published(saved).items():
        torch.testing.assert_close(parameter, found["weights"][name], rtol=0, atol=0)


MASK = {"algorithm__mask_truncated": True}
DROP = {"algorithm__drop_uniform_groups": True}
DR_GRPO = {"algorithm__scale_advantages": False, "algorithm__loss_average": "constant"}
# About half of the weights are above it: the engine's log-probabilities are between -6 and -2, the trainer's
# near -4.
CAPPED = {"algorithm__importance_sampling_cap": 1.2}
SWITCHES: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "mask-truncated-dp2": (2, MASK, {}),
    "drop-uniform-kl-two-updates-dp2": (2, DROP | KL, {}),
    "dr-grpo-tp2": (2, TP2 | DR_GRPO, {}),
    "capped-weights-kl-two-updates": (1, CAPPED | KL | CLIP, {}),
    "all-experts-dp2-ep2": (2, EP2 | KL | MASK | DROP | DR_GRPO | CAPPED, MOE),
}


@pytest.mark.parametrize(("world_size", "changes", "model"), SWITCHES.values(), ids=SWITCHES)
def test_training_with_switches_equals_the_reference(
    ranks, make_model, make_batch, run_file, world_size, changes, model
):
    config = run_file(make_model(**model), **{"optimizer__warmup_steps": 0} | changes)
    batches = [make_batch(seed) for seed in range(3)]
    for batch in batches:
        # Group 1 is uniform; of groups 0 and 2 half of the responses are truncated, of group 3 all.
        batch.rewards[4:8] = [0.5] * 4
        batch.truncated = [group == 3 or (i % 2 == 0 and group != 1) for i, group in enumerate(batch.groups)]
    expected = train_reference(config, batches)
    for found in ranks.run(train, world_size, config, batches):
        assert_same_training(found, expected, config)


@pytest.mark.parametrize(
    ("changes", "model"), [({}, {}), (EP2 | KL, MOE)], ids=["replicas", "experts-two-updates"]
)
def test_a_step_without_trained_tokens_changes_nothing(
    ranks, make_model, make_batch, run_file, changes, model
):
    config = run_file(make_model(**model), **MASK | DROP | {"optimizer__warmup_steps": 0} | changes)
    ordinary, nothing = make_batch(0), make_batch(1)
    nothing.rewards[:8] = [1.0] * 8
    nothing.truncated[8:] = [True] * 8
    for found in ranks.run(train, 2, config, [ordinary, nothing, nothing]):
        expected = train_reference(config, [ordinary, nothing, nothing])
        assert_same_training(found, expected, config)
        skipped = found["metrics"][1]
        assert {name for name, value in skipped.items() if value != 0} == {"train/lr"}
        assert skipped.keys() == found["metrics"][0].keys()
    once = ranks.run(train, 2, config, [ordinary, nothing])[0]["weights"]
    assert all(torch.equal(tensor, found["weights"][name]) for name, tensor in once.items())


@pytest.mark.slow
def test_experts_distributed_over_replicas_train_as_the_reference(
    start_ranks, make_model, make_batch, run_file
):
    """As on sixteen NPUs: the dense part is split in each replica, the experts over all replicas."""
    changes = {"train__tensor_parallel": 2, "train__expert_parallel": 4, "train__recompute": True}
    config = run_file(make_model("qwen3_moe", tie_word_embeddings=False), **changes)
    # Three groups for two replicas, one of which has fewer micro-batches.
    batches = [make_batch(seed, groups=3) for seed in range(3)]
    expected = train_reference(config, batches)
    for found in start_ranks(4).run(train, 4, config, batches):
        assert_same_training(found, expected, config)


def test_bf16_trains_as_far_as_fp32_although_one_step_is_below_its_resolution(
    ranks, make_model, make_batch, run_file
):
    model = make_model(dtype=torch.bfloat16)
    batches = [make_batch()] * 10
    moves = {}
    for dtype in ("float32", "bfloat16"):
        config = run_file(
            model,
            model__dtype=dtype,
            train__tensor_parallel=2,
            optimizer__lr=1e-4,
            optimizer__eps=1e-8,
            optimizer__warmup_steps=0,
            optimizer__decay="constant",
        )
        result = ranks.run(train, 2, config, batches)[0]
        before = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict()
        moves[dtype] = torch.cat(
            [
                (tensor.float() - before[name]).flatten()[before[name].abs().flatten() > 0.06]
                for name, tensor in result["weights"].items()
            ]
        )
        assert {tensor.dtype for tensor in result["weights"].values()} == {getattr(torch, dtype)}
    # Above 1/16 the numbers of bf16 are 2**-11 apart or more: a single step of 1e-4 rounds to nothing.
    along = (moves["bfloat16"] @ moves["float32"]) / (moves["float32"] @ moves["float32"])
    # Without an fp32 copy of the weights it would be 0. Gradients in bf16 have 8 bits, so it is not exactly
    # 1.
    assert along == pytest.approx(1, abs=0.1)


def test_a_gradient_that_is_not_finite_raises(ranks, make_model, make_batch, run_file):
    batch = make_batch()
    batch.rewards[0] = float("nan")
    with pytest.raises(AssertionError, match="NotFinite: step 1: train/loss is nan, train/grad_norm is nan"):
        ranks.run(train, 2, run_file(make_model(), train__tensor_parallel=2), [batch])


def test_a_rate_that_destroys_the_weights_ends_in_an_error_that_names_it(
    ranks, make_model, make_batch, run_file
):
    config = run_file(make_model(), optimizer__lr=1e38, optimizer__warmup_steps=0)
    with pytest.raises(AssertionError, match=r"NotFinite: step \d: .*train/grad_norm is (nan|inf)"):
        ranks.run(train, 1, config, [make_batch(seed) for seed in range(3)])
