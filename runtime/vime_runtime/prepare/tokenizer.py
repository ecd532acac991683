"""A tokenizer whose tokens are the words of a task."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"


def build(words: list[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token for each of ``words``.

    Text made of the words comes back from decoding as it was; any other character becomes ``<unk>``.
    """
    vocabulary = {word: number for number, word in enumerate([PAD, EOS, UNKNOWN, *words])}
    # Longest first: a word that another one begins with must not hide it.
    longest_first = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(f"{longest_first}|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
