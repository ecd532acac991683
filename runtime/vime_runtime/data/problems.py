"""Problems from a file or a task, tokenized, in an order that depends on nothing but seed and step."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vime_runtime.data import reasoning_gym
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable, Recipe


@dataclass(frozen=True)
class Problem:
    """One problem as the engine and the reward see it; ``prompt`` is the text behind ``prompt_ids``.

    ``entry`` is what a task's verifier knows of the problem beyond its label.
    """

    prompt_ids: list[int]
    prompt: str
    label: str
    entry: dict[str, Any] | None = None


class ProblemStream:
    """The problems of a run, shuffled anew for every pass over them."""

    def __init__(self, problems: list[Problem], per_step: int, seed: int) -> None:
        self._problems = problems
        self._per_step = per_step
        self._seed = seed

    def batch(self, step: int) -> list[Problem]:
        """The problems of ``step``, counted from 1. No state: a resumed run asks for the step it is at."""
        size = len(self._problems)
        first = (step - 1) * self._per_step
        positions = range(first, first + self._per_step)
        orders = {epoch: self._order(epoch) for epoch in {position // size for position in positions}}
        return [self._problems[orders[position // size][position % size]] for position in positions]

    def _order(self, epoch: int) -> list[int]:
        # Text as seed: unlike a tuple's hash, it gives the same order in every process.
        order = list(range(len(self._problems)))
        random.Random(f"{self._seed} {epoch}").shuffle(order)
        return order


def load_tokenizer(model_path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face directory, from the disk alone.

    Raises:
        UsageError: the directory has none that transformers can load.
    """
    try:
        return AutoTokenizer.from_pretrained(model_path, local_files_only=True)
    except (OSError, ValueError) as e:
        raise UsageError(
            f"{model_path}: no tokenizer that transformers can load: {e}",
            "model.path must hold the tokenizer files beside config.json",
        ) from e


def read(data: DataTable, tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int) -> list[Problem]:
    """Every problem of ``data.path``, in order: the lines of a file but blank ones, or the entries of a task.

    Raises:
        UsageError: naming file and line, or task and entry, for the first problem that cannot be used.
    """
    raw = _entries(data) if reasoning_gym.is_task(data.path) else _lines(data)
    problems = []
    for where, prompt, label, entry in raw:
        text = _render(prompt, data, tokenizer)
        # A chat template writes the special tokens itself.
        ids = tokenizer(text, add_special_tokens=not data.apply_chat_template).input_ids
        if not 0 < len(ids) <= max_prompt_tokens:
            raise UsageError(
                f"{where}: the prompt has {len(ids)} tokens, expected 1 to {max_prompt_tokens}",
                "shorten or remove the prompt, or raise rollout.max_prompt_tokens",
            )
        problems.append(Problem(ids, text, label, entry))
    if not problems:
        raise UsageError(f"{data.path}: no problems in it", "expected one JSON object a line")
    return problems


def read_both(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Problem], list[Problem]]:
    """Read the problems to train on and those to evaluate with, as ``[data]`` and ``[evaluation]`` say.

    Raises:
        UsageError: as ``read`` and ``split`` do.
    """
    longest = recipe.rollout.max_prompt_tokens
    problems = read(recipe.data, tokenizer, longest)
    if recipe.evaluation.every == 0:
        return problems, []
    if recipe.evaluation.path is None:
        return split(problems, recipe.evaluation.problems, recipe.algorithm.seed)
    own_file = recipe.data.model_copy(update={"path": recipe.evaluation.path})
    return problems, read(own_file, tokenizer, longest)


def split(problems: list[Problem], count: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """Hold ``count`` problems out. Which ones depends on ``seed`` alone.

    Returns:
        the problems to train on, in their order, and those held out. What is held out has no double among
        the others.

    Raises:
        UsageError: nothing would be left to train on.
    """
    chosen = random.Random(f"{seed} evaluation").sample(range(len(problems)), min(count, len(problems)))
    held_out = [problems[i] for i in sorted(chosen)]
    prompts = {problem.prompt for problem in held_out}
    rest = [problem for problem in problems if problem.prompt not in prompts]
    if not rest:
        raise UsageError(
            f"evaluation.problems = {count} leaves nothing of the {len(problems)} problems to train on",
            "lower it, or give the evaluation a file of its own: --set evaluation.path=FILE",
        )
    return rest, held_out


# Where it is from, prompt, label, what the verifier knows.
Raw = tuple[str, Any, str, dict[str, Any] | None]


def _entries(data: DataTable) -> Iterator[Raw]:
    for number, entry in enumerate(reasoning_gym.create(data.path, data.settings)):
        # A task whose puzzles have several solutions gives no answer; its verifier needs none.
        yield f"{data.path}[{number}]", entry["question"], entry["answer"] or "", entry


def _lines(data: DataTable) -> Iterator[Raw]:
    path = Path(data.path)
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _line(line, f"{path}:{number}", data)
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{path}: cannot be read: {e}", "data.path must be JSON lines in UTF-8") from e


def _line(line: str, where: str, data: DataTable) -> Raw:
    try:
        entry = json.loads(line)
        return where, entry[data.prompt_key], entry[data.label_key], None
    except json.JSONDecodeError as e:
        raise UsageError(f"{where}: not JSON: {e}", "expected one JSON object a line") from e
    except (KeyError, TypeError) as e:
        raise UsageError(
            f"{where}: expected an object with the keys {data.prompt_key!r} and {data.label_key!r}",
            "set data.prompt_key and data.label_key to the keys of the file",
        ) from e


def _render(prompt: str | list[dict[str, str]], data: DataTable, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text to tokenize for a prompt that is text or a list of chat messages."""
    if not data.apply_chat_template:
        return prompt
    if isinstance(prompt, str):
        system = [] if data.system_prompt is None else [{"role": "system", "content": data.system_prompt}]
        messages = [*system, {"role": "user", "content": prompt}]
    else:
        messages = prompt
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
