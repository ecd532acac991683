"""Problems from a file or a task, tokenized, in an order that depends only on seed and step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vime_runtime.data import reasoning_gym
from vime_runtime.spec.data_lines import DataLine, read_lines
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable, Recipe


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        prompt_ids: the tokens that the engine gets.
        prompt: the text of these tokens.
        entry: what the verifier of a task needs in addition to the label; None for a file.
    """

    prompt_ids: list[int]
    prompt: str
    label: str
    entry: dict[str, Any] | None = None


class ProblemStream:
    """The problems of a run, shuffled again for every epoch."""

    def __init__(self, problems: list[Problem], per_step: int, seed: int) -> None:
        self._problems = problems
        self._per_step = per_step
        self._seed = seed

    def batch(self, step: int) -> list[Problem]:
        """Return the problems of ``step``, counted from 1. They depend on nothing else but the seed."""
        size = len(self._problems)
        first = (step - 1) * self._per_step
        positions = range(first, first + self._per_step)
        orders = {epoch: self._order(epoch) for epoch in {position // size for position in positions}}
        return [self._problems[orders[position // size][position % size]] for position in positions]

    def _order(self, epoch: int) -> list[int]:
        # A seed that is text gives the same order in every process, unlike the hash of a tuple.
        order = list(range(len(self._problems)))
        random.Random(f"{self._seed} {epoch}").shuffle(order)
        return order


def load_tokenizer(model_path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face directory, without network access.

    Raises:
        UsageError: the directory has no tokenizer that transformers can load.
    """
    try:
        return AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    except (OSError, ValueError) as e:
        raise UsageError(
            f"{model_path}: no tokenizer that transformers can load: {e}",
            "put the tokenizer files next to config.json in model.path",
        ) from e


def read_problems(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Problem], list[Problem]]:
    """Return the problems to train on and those held out for the evaluation.

    Raises:
        UsageError: as ``read`` and ``split``.
    """
    max_tokens = recipe.rollout.max_prompt_tokens
    problems = read(recipe.data, tokenizer, max_tokens)
    if recipe.evaluation.every == 0:
        return problems, []
    if recipe.evaluation.path is None:
        return split(problems, recipe.evaluation.problems, recipe.algorithm.seed)
    held_out = recipe.data.model_copy(update={"path": recipe.evaluation.path})
    return problems, read(held_out, tokenizer, max_tokens)


def read(data: DataTable, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int) -> list[Problem]:
    """Read and tokenize every problem of ``data.path``, in order.

    Raises:
        UsageError: names file and line, or task and entry, of the first problem that cannot be used.
    """
    problems = []
    for line, entry in _task_lines(data) if data.task else ((line, None) for line in read_lines(data)):
        text = _render(line.prompt, data, tokenizer)
        # A chat template writes the special tokens itself.
        ids = tokenizer(text, add_special_tokens=not data.apply_chat_template).input_ids
        if not 0 < len(ids) <= max_prompt_tokens:
            raise UsageError(
                f"{line.where}: the prompt has {len(ids)} tokens, expected 1 to {max_prompt_tokens}",
                "shorten or remove the prompt, or raise rollout.max_prompt_tokens",
            )
        problems.append(Problem(ids, text, line.label, entry))
    return problems


def split(problems: list[Problem], count: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Hold out ``count`` problems, chosen by ``seed``.

    Returns:
        the problems to train on and those held out, each in the order of ``problems``. Problems with the
        prompt of a held-out one are in neither.

    Raises:
        UsageError: no problem would be left to train on.
    """
    chosen = random.Random(f"{seed} evaluation").sample(range(len(problems)), min(count, len(problems)))
    held_out = [problems[i] for i in sorted(chosen)]
    prompts = {problem.prompt for problem in held_out}
    rest = [problem for problem in problems if problem.prompt not in prompts]
    if not rest:
        raise UsageError(
            f"evaluation.problems = {count} leaves none of the {len(problems)} problems to train on",
            "lower it, or evaluate with another file: --set evaluation.path=FILE",
        )
    return rest, held_out


def _task_lines(data: DataTable) -> Iterator[tuple[DataLine, dict[str, Any]]]:
    for number, entry in enumerate(reasoning_gym.create(data.path, data.settings)):
        # A puzzle with several solutions has no answer; its verifier does not need one.
        yield DataLine(f"{data.path}[{number}]", entry["question"], entry["answer"] or ""), entry


def _render(prompt: str | list[dict[str, str]], data: DataTable, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text to tokenize for a prompt that is text or a list of chat messages."""
    if isinstance(prompt, str):
        if not data.apply_chat_template:
            return prompt
        system = [] if data.system_prompt is None else [{"role": "system", "content": data.system_prompt}]
        prompt = [*system, {"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return str(rendered)
