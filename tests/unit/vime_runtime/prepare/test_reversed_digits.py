from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vime_runtime.prepare.reversed_digits import Example, all_examples, build_tokenizer, draw_examples


def test_every_prompt_once_with_the_right_answer() -> None:
    examples = all_examples(digits=2)
    assert len({example.prompt for example in examples}) == len(examples) == 100
    assert Example("reverse 37 = ", "73") in examples
    assert Example("reverse 70 = ", "07") in examples


def test_the_given_fraction_of_labels_is_right() -> None:
    pool = all_examples(digits=3)
    answers = {example.prompt: example.label for example in pool}
    drawn = list(islice(draw_examples(pool, 0.3, random.Random(0)), 4000))
    right = sum(answers[example.prompt] == example.label for example in drawn) / len(drawn)
    assert abs(right - 0.3) < 0.03  # four standard deviations
    wrong = Counter(example.label for example in drawn if answers[example.prompt] != example.label)
    assert max(wrong.values()) < 20  # no wrong answer is frequent
    assert set(islice(draw_examples(pool, 1.0, random.Random(0)), 100)) <= set(pool)


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a directory by AutoTokenizer, as a run does."""
    build_tokenizer(["a", "ab", " = ", "+", *"012"]).save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)


def test_each_word_is_one_token_and_decoding_restores_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "ab+a = 10"
    assert tokenizer.tokenize(text) == ["ab", "+", "a", " = ", "1", "0"]
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer("1<eos>").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer("1?").input_ids[-1] == tokenizer.unk_token_id
    ids = [*tokenizer("12").input_ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "12"
