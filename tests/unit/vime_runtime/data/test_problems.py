from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase
from vime_runtime.data.problems import Problem, ProblemStream, load_tokenizer, read, read_problems, split
from vime_runtime.prepare.reversed_digits import build_tokenizer
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

from harness.run_config import make_recipe

WORDS = [*"abcdef ", "user", "assistant", ": "]
CHAT = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer(WORDS)


def _data(path: Path, *lines: Any, **keys: Any) -> DataTable:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return DataTable.model_validate({"path": str(path)} | keys)


def test_text_prompts_are_tokenized_in_file_order(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lines = {"q": "ab", "a": "c"}, "", {"q": "fed", "a": "x"}
    data = _data(tmp_path / "d.jsonl", *lines, prompt_key="q", label_key="a")
    problems = read(data, tokenizer, max_prompt_tokens=3)
    assert [(problem.prompt, problem.label) for problem in problems] == [("ab", "c"), ("fed", "x")]
    assert [tokenizer.decode(problem.prompt_ids) for problem in problems] == ["ab", "fed"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"prompt": "a"}', "no key 'label'"),
        ('{"prompt": "abcdef", "label": "a"}', "the prompt has 6 tokens, expected 1 to 5"),
        ('{"prompt": "", "label": "a"}', "the prompt has 0 tokens"),
    ],
)
def test_an_error_names_file_and_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, bad: str, message: str
) -> None:
    path = tmp_path / "d.jsonl"
    with pytest.raises(UsageError) as error:
        read(_data(path, {"prompt": "a", "label": "b"}, "", bad), tokenizer, max_prompt_tokens=5)
    assert error.value.message.startswith(f"{path}:3: ")
    assert message in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(("system", "before"), [(None, ""), ("f", "system: f ")])
def test_chat_template_wraps_text_with_the_system_prompt_and_renders_messages(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, system: str | None, before: str
) -> None:
    tokenizer.chat_template = CHAT
    turns = [
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    ]
    lines = {"prompt": "ab", "label": ""}, {"prompt": turns, "label": ""}
    data = _data(tmp_path / "d.jsonl", *lines, apply_chat_template=True, system_prompt=system)
    assert [problem.prompt for problem in read(data, tokenizer, 99)] == [
        f"{before}user: ab assistant: ",
        "user: a assistant: b user: c assistant: ",
    ]


SUMS = {"operators": ["+"], "min_terms": 2, "max_terms": 2, "max_digits": 1, "allow_parentheses": False}


def test_the_seed_of_a_task_determines_its_problems(tokenizer: PreTrainedTokenizerBase) -> None:
    def problems(seed: int) -> list[Problem]:
        settings = SUMS | {"size": 20, "seed": seed}
        return read(DataTable(path="reasoning_gym:basic_arithmetic", settings=settings), tokenizer, 99)

    first = problems(1)
    assert len(first) == 20
    assert first == problems(1)
    assert first != problems(2)
    for problem in first:
        assert problem.entry is not None
        assert problem.prompt == f"Calculate {problem.entry['metadata']['expression']}."
        assert int(problem.label) == sum(map(int, problem.entry["metadata"]["expression"].split(" + ")))


def test_an_error_names_the_entry_of_a_task(tokenizer: PreTrainedTokenizerBase) -> None:
    data = DataTable(path="reasoning_gym:basic_arithmetic", settings=SUMS)
    with pytest.raises(UsageError, match=r"^reasoning_gym:basic_arithmetic\[0\]: the prompt has \d+ tokens"):
        read(data, tokenizer, 3)


def test_a_directory_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))


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


def test_held_out_prompts_are_not_trained_on() -> None:
    problems = [Problem([i % 20], str(i % 20), "") for i in range(25)]  # five are duplicates
    to_train, held_out = split(problems, 8, seed=3)
    assert len(held_out) == 8
    assert not {p.prompt for p in to_train} & {p.prompt for p in held_out}
    assert {p.prompt for p in to_train} | {p.prompt for p in held_out} == {p.prompt for p in problems}
    assert split(problems, 8, seed=3) == (to_train, held_out)
    assert split(problems, 8, seed=4)[1] != held_out


def test_holding_out_every_problem_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"evaluation.problems = 64 leaves none of the 3 problems"):
        split([Problem([i], str(i), "") for i in range(3)], 64, seed=0)


def test_evaluation_uses_its_file_or_a_part_of_the_data(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    data = _data(tmp_path / "d.jsonl", *({"prompt": text, "label": ""} for text in "abcde"))
    _data(tmp_path / "e.jsonl", {"prompt": "f", "label": "x"})

    def both(**evaluation: Any) -> tuple[str, str]:
        table = {"every": 1, "problems": 2, "path": None} | evaluation
        recipe = make_recipe(data=data.model_dump(), evaluation=table)
        train, held_out = read_problems(recipe, tokenizer)
        return "".join(p.prompt for p in train), "".join(p.prompt for p in held_out)

    assert both(every=0) == ("abcde", "")
    assert both(path=str(tmp_path / "e.jsonl")) == ("abcde", "f")
    train, held_out = both()
    assert (len(train), len(held_out), sorted(train + held_out)) == (3, 2, list("abcde"))
