from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vime_runtime.prepare import tokenizer


@pytest.fixture
def loaded(tmp_path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as a user's run gets it: from a directory, by AutoTokenizer."""
    tokenizer.build(["a", "ab", " = ", "+", *"012"]).save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)


def test_one_token_for_each_word_and_the_longest_wins(loaded: PreTrainedTokenizerFast) -> None:
    assert loaded.tokenize("ab+a = 10") == ["ab", "+", "a", " = ", "1", "0"]


def test_decoding_gives_the_text_back(loaded: PreTrainedTokenizerFast) -> None:
    text = "ab+a = 10"
    assert loaded.decode(loaded(text).input_ids) == text


def test_special_tokens(loaded: PreTrainedTokenizerFast) -> None:
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id) == (0, 1, 2)
    assert loaded("1<eos>").input_ids[-1] == loaded.eos_token_id
    assert loaded("1?").input_ids[-1] == loaded.unk_token_id
    ids = [*loaded("12").input_ids, loaded.eos_token_id, loaded.pad_token_id]
    assert loaded.decode(ids, skip_special_tokens=True) == "12"
