from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerBase
from vime_runtime.data.problems import Problem
from vime_runtime.data.tokenize import BATCH, ProblemReader, load_tokenizer
from vime_runtime.prepare.reversed_digits import build_tokenizer
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

WORDS = [*"abcdef ", "user", "assistant", "system", "off", ": "]
CHAT = (
    "{% if think is defined and not think %}off {% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ m.role }}: {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = build_tokenizer(WORDS)
    tokenizer.chat_template = CHAT
    return tokenizer


def _data(path: Path, *lines: Any, **keys: Any) -> DataTable:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return DataTable.model_validate({"path": str(path)} | keys)


def _read(data: DataTable, tokenizer: PreTrainedTokenizerBase, limit: int = 99) -> list[Problem]:
    return list(ProblemReader(data, tokenizer, limit))


def test_text_prompts_are_tokenized_in_file_order(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lines = {"q": "ab", "a": "c"}, "", {"q": "fed", "a": "x", "more": 1}
    data = _data(tmp_path / "d.jsonl", *lines, prompt_key="q", label_key="a")
    problems = _read(data, tokenizer)
    assert [(problem.prompt, problem.label, problem.index) for problem in problems] == [
        ("ab", "c", 0),
        ("fed", "x", 1),
    ]
    assert [tokenizer.decode(problem.prompt_ids) for problem in problems] == ["ab", "fed"]
    assert problems[1].row == lines[2]


def test_parquet_gives_the_problems_of_json_lines(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"prompt": "abc"[i % 3] * 3, "label": str(i)} for i in range(BATCH + 3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    problems = _read(DataTable(path=str(tmp_path / "d.parquet")), tokenizer)
    assert problems == _read(_data(tmp_path / "d.jsonl", *rows), tokenizer)
    assert problems[-1].index == BATCH + 2


@pytest.mark.parametrize(("system", "before"), [(None, ""), ("f", "system: f ")])
def test_the_system_prompt_is_for_all_prompts_without_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, system: str | None, before: str
) -> None:
    turns = [
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    ]
    own = [{"role": "system", "content": "d"}, *turns]
    lines = [{"prompt": prompt, "label": ""} for prompt in ("ab", turns, own)]
    data = _data(tmp_path / "d.jsonl", *lines, apply_chat_template=True, system_prompt=system)
    assert [problem.prompt for problem in _read(data, tokenizer)] == [
        f"{before}user: ab assistant: ",
        f"{before}user: a assistant: b user: c assistant: ",
        "system: d user: a assistant: b user: c assistant: ",
    ]


def test_a_chat_template_gets_its_variables(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    keys = {"apply_chat_template": True, "chat_template_kwargs": {"think": False}}
    (problem,) = _read(_data(tmp_path / "d.jsonl", {"prompt": "a", "label": ""}, **keys), tokenizer)
    assert problem.prompt == "off user: a assistant: "


def test_a_refusal_of_the_chat_template_names_the_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = tmp_path / "d.jsonl"
    messages = [{"role": role, "content": "a"} for role in ("user", "tool")]
    data = _data(
        path, {"prompt": "a", "label": ""}, {"prompt": messages, "label": ""}, apply_chat_template=True
    )
    with pytest.raises(UsageError) as error:
        _read(data, tokenizer)
    assert error.value.message == f"{path}:2: the model's chat template refuses the prompt: no tools here"
    assert "roles of the prompt: user, tool" in error.value.hint


def test_prompts_that_are_too_long_are_skipped_and_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    lines = [{"prompt": "a" * length, "label": str(length)} for length in (7, 2, 6, 5, 9)]
    reader = ProblemReader(_data(tmp_path / "d.jsonl", *lines), tokenizer, 5)
    assert [(problem.label, problem.index) for problem in reader] == [("2", 1), ("5", 3)]
    counts = reader.counts
    assert (counts.problems, counts.skipped, counts.shortest_skipped, counts.longest_skipped) == (2, 3, 6, 9)


def test_prompts_that_are_too_long_can_be_an_error(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    lines = [{"prompt": "a" * length, "label": ""} for length in (2, 6)]
    data = _data(tmp_path / "d.jsonl", *lines, overlong="error")
    with pytest.raises(
        UsageError, match=r"d\.jsonl:2: the prompt has 6 tokens, more than rollout\.max_prompt"
    ):
        _read(data, tokenizer, 5)


def test_an_error_says_which_limit_lets_all_prompts_in(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    lines = [{"prompt": "a" * length, "label": ""} for length in (8, 6)]
    with pytest.raises(
        UsageError, match=r"all 2 prompts have more .* = 5 tokens; the shortest has 6"
    ) as error:
        _read(_data(tmp_path / "d.jsonl", *lines), tokenizer, 5)
    assert error.value.hint == "--set rollout.max_prompt_tokens=8"


def test_a_prompt_without_tokens_is_an_error(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{# nothing #}"
    data = _data(tmp_path / "d.jsonl", {"prompt": "a", "label": ""}, apply_chat_template=True)
    with pytest.raises(UsageError, match=r"d\.jsonl:1: the prompt has no tokens"):
        _read(data, tokenizer)


SUMS = {"operators": ["+"], "min_terms": 2, "max_terms": 2, "max_digits": 1, "allow_parentheses": False}


def test_the_seed_of_a_task_determines_its_problems(tokenizer: PreTrainedTokenizerBase) -> None:
    def problems(seed: int) -> list[Problem]:
        settings = SUMS | {"size": 20, "seed": seed}
        return _read(DataTable(path="reasoning_gym:basic_arithmetic", settings=settings), tokenizer)

    first = problems(1)
    assert [problem.index for problem in first] == list(range(20))
    assert first == problems(1)
    assert first != problems(2)
    for problem in first:
        assert problem.row is None
        terms = problem.prompt.removeprefix("Calculate ").removesuffix(".").split(" + ")
        assert int(problem.label) == sum(map(int, terms))


def test_an_error_names_the_entry_of_a_task(tokenizer: PreTrainedTokenizerBase) -> None:
    data = DataTable(path="reasoning_gym:basic_arithmetic", settings=SUMS, overlong="error")
    with pytest.raises(UsageError, match=r"^reasoning_gym:basic_arithmetic\[0\]: the prompt has \d+ tokens"):
        _read(data, tokenizer, 3)


def test_a_directory_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="no tokenizer"):
        load_tokenizer(str(tmp_path))
