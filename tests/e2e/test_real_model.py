"""The recipe of a real pretrained model: the reward rises, and so does that of the exported checkpoint."""

from __future__ import annotations

import re
from statistics import fmean
from typing import Any

import pytest

from harness.runs.recipe_run import RecipeRun, run_recipe
from vimectl.recipes.resolve import resolve

pytestmark = [pytest.mark.exhaustive, pytest.mark.needs("network")]

PROBLEMS = 256
BATCH = 64


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RecipeRun:
    run = run_recipe(tmp_path_factory.mktemp("real") / "run", recipe="smollm2-135m")
    assert run.code == 0, run.output
    return run


def test_reward_rises_within_40_steps(real_run: RecipeRun) -> None:
    rewards = [row["reward/mean"] for row in real_run.metrics]
    assert len(rewards) <= 40
    assert fmean(rewards[-5:]) - fmean(rewards[:5]) >= 0.25


def test_trainer_and_engine_agree_on_logprobs(real_run: RecipeRun) -> None:
    assert max(row["logprob/abs_diff_mean"] for row in real_run.metrics) <= 0.03


def test_exported_checkpoint_is_better_in_transformers(real_run: RecipeRun) -> None:
    before = resolve("smollm2-135m").recipe.model.path
    after = str(real_run.directory / "checkpoints" / "final")
    figures = {
        (name, sampled): score(path, sampled)
        for name, path in (("before", before), ("after", after))
        for sampled in (False, True)
    }
    print(figures)  # shown by pytest -s; these are the figures in the README
    assert figures["after", True] >= figures["before", True] + 0.25
    assert figures["after", False] >= figures["before", False]


def score(model: str, sampled: bool) -> float:
    """Return the mean reward of the recipe's task on problems of another seed, with transformers only."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from vime_runtime.data import reasoning_gym

    recipe = resolve("smollm2-135m").recipe
    task = reasoning_gym.create(
        recipe.data.path, recipe.data.settings | {"seed": 1_000_000, "size": PROBLEMS}
    )
    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, local_files_only=True)
    torch.manual_seed(0)
    entries = [task[number] for number in range(PROBLEMS)]
    rewards: list[float] = []
    for first in range(0, PROBLEMS, BATCH):
        asked = entries[first : first + BATCH]
        prompts = tokenizer(
            [prompt_of(entry, tokenizer, recipe.data.system_prompt) for entry in asked],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        how: dict[str, Any] = {"do_sample": False}
        if sampled:
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        out = network.generate(**prompts, **how, max_new_tokens=recipe.rollout.max_response_tokens)
        texts = tokenizer.batch_decode(out[:, prompts.input_ids.shape[1] :], skip_special_tokens=True)
        for text, entry in zip(texts, asked, strict=True):
            numbers = re.findall(r"\d+", text)
            rewards.append(task.score_answer(numbers[-1], entry) if numbers else 0.0)
    return fmean(rewards)


def prompt_of(entry: dict[str, Any], tokenizer: Any, system: str) -> str:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": entry["question"]}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
