from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from vime_runtime.data.problems import Counts, Problem, ProblemFile, ProblemStream


def _stream(count: int, per_step: int, seed: int) -> ProblemStream:
    return ProblemStream([Problem([n], str(n), "") for n in range(count)], per_step, seed)


def test_each_epoch_has_every_problem_in_a_new_order() -> None:
    stream = _stream(count=10, per_step=4, seed=0)
    asked = [problem.prompt for step in range(1, 6) for problem in stream.batch(step)]
    first, second = asked[:10], asked[10:]
    assert sorted(first, key=int) == sorted(second, key=int) == [str(n) for n in range(10)]
    assert first != second


def test_a_batch_depends_only_on_seed_and_step() -> None:
    stream = _stream(count=100, per_step=4, seed=1)
    ahead = [stream.batch(step) for step in range(1, 40)]
    assert _stream(count=100, per_step=4, seed=1).batch(33) == ahead[32]
    assert _stream(count=100, per_step=4, seed=2).batch(33) != ahead[32]


def test_a_step_larger_than_the_data_repeats_it() -> None:
    counts = Counter(problem.prompt for problem in _stream(count=3, per_step=6, seed=0).batch(1))
    assert set(counts.values()) == {2}


def test_a_file_of_problems_is_read_in_any_order(tmp_path: Path) -> None:
    problems = [Problem([n, n + 1], f"é{n}", str(n), n, {"prompt": "é\n"}) for n in range(5)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(vars(problem)) + "\n" for problem in problems))
    file = ProblemFile(path)
    assert (len(file), list(file), file[3], file[-1]) == (5, problems, problems[3], problems[4])
    assert file[1:3] == problems[1:3]
    with pytest.raises(IndexError):
        file[5]


def test_skipped_prompts_are_a_warning() -> None:
    counts = Counts(problems=7)
    assert counts.warning("d.jsonl", 48) == ""
    for tokens in (60, 49, 51):
        counts.skip(tokens)
    assert counts.shortest_skipped == 49
    assert counts.warning("d.jsonl", 48) == (
        "d.jsonl: skipped 3 of 10 prompts, which have more than rollout.max_prompt_tokens = 48 tokens, "
        "up to 60"
    )


def test_problems_are_read_without_torch() -> None:
    """The driver reads them, and needs torch for nothing else."""
    program = "import sys, vime_runtime.__main__; print(*{'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
