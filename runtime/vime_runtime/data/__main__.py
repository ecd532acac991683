"""``python -m vime_runtime.data RECIPE_JSON OUT_DIR``: read, render and tokenize all problems of a run.

Writes ``OUT_DIR/SET.jsonl`` for the training set and each evaluation set, a ``Problem`` on each line, and
``OUT_DIR/counts.json``. It also checks the reward functions. Progress and errors are JSON objects
on stdout, one per line. Exit codes: 0 read; 1 failed; 2 bad input; 3 disk full.
"""

from __future__ import annotations

import errno
import json
import random
import signal
import sys
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vime_runtime.data.problems import Counts, Problem, problem_file
from vime_runtime.data.tokenize import ProblemReader, load_tokenizer
from vime_runtime.gc_pause import gc_paused
from vime_runtime.graceful_stop import signal_when_parent_exits
from vime_runtime.rewards.pool import TRAINING_SET, check_rewards
from vime_runtime.spec import events
from vime_runtime.spec.errors import MissingRequirement, UsageError, VimeError
from vime_runtime.spec.recipe import HELD_OUT_SET, Recipe
from vime_runtime.spec.run_paths import COUNTS_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Seconds between two reports of progress. The first one says that reading has begun.
REPORT_SECONDS = 5.0


def main(argv: list[str]) -> int:
    """Read the data of the recipe on the command line and return the exit code."""
    recipe_file, out_dir = Path(argv[1]), Path(argv[2])
    try:
        read_data(Recipe.model_validate_json(recipe_file.read_bytes()), out_dir)
        return 0
    except VimeError as e:
        error = e
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        error = MissingRequirement(
            f"no space left in {out_dir.parent} for the tokenized problems",
            "free some space, or name another run directory with --run-dir",
        )
    _emit(events.ERROR, error={"kind": error.kind, "message": error.message, "hint": error.hint})
    return error.exit_code


def read_data(recipe: Recipe, out_dir: Path) -> dict[str, Counts]:
    """Write the files of all sets, and return the counts by set.

    Raises:
        UsageError: data, chat template, or a reward function that cannot be used.
    """
    _report("loading the tokenizer")
    sets = recipe.evaluation_sets()
    with ThreadPoolExecutor(1) as executor:
        # It waits for another process.
        rewards = executor.submit(check_rewards, {TRAINING_SET: recipe.data, **sets}, recipe.env)
        with gc_paused():
            tokenizer = load_tokenizer(recipe.model.path)
        counts = _write_sets(recipe, tokenizer, out_dir)
        _report("checking the rewards")
        rewards.result()
    text = json.dumps({name: asdict(found) for name, found in counts.items()}, indent=2)
    (out_dir / COUNTS_FILE).write_text(text + "\n", encoding="utf-8")
    return counts


def _write_sets(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, out_dir: Path) -> dict[str, Counts]:
    out_dir.mkdir(parents=True, exist_ok=True)
    train, limit = problem_file(out_dir, TRAINING_SET), recipe.rollout.max_prompt_tokens
    reader = ProblemReader(recipe.data, tokenizer, limit)
    prompts = _write(reader, train, recipe.data.path)
    counts = {TRAINING_SET: reader.counts}
    if recipe.holds_out_problems:
        held_out, count = problem_file(out_dir, HELD_OUT_SET), recipe.evaluation.problems
        counts[TRAINING_SET].problems = split(train, held_out, prompts, count, recipe.algorithm.seed)
        return counts | {HELD_OUT_SET: Counts(count)}
    for name, data in recipe.evaluation_sets().items():
        reader = ProblemReader(data, tokenizer, limit)
        first = islice(reader, recipe.evaluation.sets[name].problems)
        _write(first, problem_file(out_dir, name), data.path)
        counts[name] = reader.counts
    return counts


def _write(problems: Iterable[Problem], path: Path, source: str) -> array[int]:
    """Write problems, one a line. Return a hash of each prompt."""
    hashes = array("q")
    next_report = time.monotonic()
    with path.open("w", encoding="utf-8") as file:
        for problem in problems:
            # A column of parquet may have values that JSON has not, such as times.
            file.write(json.dumps(vars(problem), default=str) + "\n")
            hashes.append(hash(problem.prompt))
            if time.monotonic() >= next_report:
                _report(f"reading {source}" + f": {len(hashes):,} problems" * (len(hashes) > 1))
                next_report = time.monotonic() + REPORT_SECONDS
    return hashes


def split(train: Path, held_out: Path, prompts: array[int], count: int, seed: int) -> int:
    """Move ``count`` problems, chosen by ``seed``, to another file. Return how many are left to train on.

    The order in both files stays. Problems with the prompt of a held-out one are in neither.

    Args:
        prompts: a hash of each prompt, in the order of the file.

    Raises:
        UsageError: no problem would be left to train on.
    """
    lines = len(prompts)
    # The seed has to give the same sample again; it is no secret.
    chosen = set(random.Random(f"{seed} evaluation").sample(range(lines), min(count, lines)))  # nosec B311
    held_prompts = {prompts[i] for i in chosen}
    rest = sum(prompt not in held_prompts for prompt in prompts)
    if not rest or count >= lines:
        raise UsageError(
            f"evaluation.problems = {count} leaves none of the {lines} problems to train on",
            "lower it, or evaluate with another file: --set evaluation.path=FILE",
        )
    whole = train.rename(train.with_suffix(".all"))
    with whole.open("rb") as source, train.open("wb") as to_train, held_out.open("wb") as to_hold:
        for number, line in enumerate(source):
            if number in chosen:
                to_hold.write(line)
            elif prompts[number] not in held_prompts:
                to_train.write(line)
    whole.unlink()
    return rest


def _report(detail: str) -> None:
    _emit(events.PHASE, phase=events.PREPARE, step=0, steps=0, detail=detail)


def _emit(kind: str, **fields: Any) -> None:
    print(json.dumps({"time": time.time(), "kind": kind, **fields}), flush=True)


def _hide_torch() -> None:
    """Let transformers be imported as if torch were not installed, whose import takes most of the time."""
    # importlib.util.find_spec, which transformers asks, takes None for a missing module.
    sys.modules["torch"] = None  # type: ignore[assignment]


if __name__ == "__main__":
    _hide_torch()  # tokenizers do not need it
    signal_when_parent_exits(signal.SIGKILL)  # nothing else would use the result
    sys.exit(main(sys.argv))
