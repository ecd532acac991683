"""Problems of a file or a task as the engine gets them: rendered with the chat template and tokenized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.data import parquet, reasoning_gym
from vime_runtime.data.problems import Counts, Problem
from vime_runtime.spec import data_lines
from vime_runtime.spec.data_lines import DataLine, Prompt
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Prompts that are tokenized at a time.
BATCH = 512


def load_tokenizer(model_path: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a Hugging Face directory, without network access.

    Raises:
        UsageError: the directory has no tokenizer that transformers can load.
    """
    from transformers import AutoTokenizer

    try:
        # Without trust_remote_code=False transformers asks on stdin whether to run code of the directory.
        return AutoTokenizer.from_pretrained(  # nosec B615 # local files
            model_path, local_files_only=True, trust_remote_code=False
        )
    except Exception as e:  # the tokenizers library raises bare exceptions for a damaged file
        raise UsageError(
            f"{model_path}: no tokenizer that transformers can load: {e}",
            "put the tokenizer files next to config.json in model.path",
        ) from e


@dataclass
class ProblemReader:
    """Read the problems of one set, in order.

    Attributes:
        counts: complete when all problems have been read.
    """

    data: DataTable
    tokenizer: PreTrainedTokenizerBase
    max_prompt_tokens: int
    counts: Counts = field(default_factory=Counts)

    def __iter__(self) -> Iterator[Problem]:
        """Yield the problems whose prompts are not too long.

        Raises:
            UsageError: names file and line, or task and entry, of the first problem that cannot be used.
        """
        lines = enumerate(_task_lines(self.data) if self.data.task else _file_lines(self.data))
        while batch := list(islice(lines, BATCH)):
            yield from self._problems(batch)
        if not self.counts.problems:
            raise UsageError(
                f"{self.data.path}: all {self.counts.skipped} prompts have more than "
                f"rollout.max_prompt_tokens = {self.max_prompt_tokens} tokens; the shortest has "
                f"{self.counts.shortest_skipped}, the longest {self.counts.longest_skipped}",
                f"--set rollout.max_prompt_tokens={self.counts.longest_skipped}",
            )

    def _problems(self, batch: list[tuple[int, DataLine]]) -> Iterable[Problem]:
        texts = [self._render(line) for _, line in batch]
        # A chat template writes the special tokens itself.
        special = not self.data.apply_chat_template
        token_ids = self.tokenizer(texts, add_special_tokens=special, verbose=False).input_ids
        for (index, line), text, ids in zip(batch, texts, token_ids, strict=True):
            if not ids:
                raise UsageError(f"{line.where}: the prompt has no tokens", "write the prompt, or remove it")
            if len(ids) <= self.max_prompt_tokens:
                self.counts.problems += 1
                yield Problem(list(ids), text, line.label, index, line.row)
                continue
            self.counts.skip(len(ids))
            if self.data.overlong == "error":
                raise UsageError(
                    f"{line.where}: the prompt has {len(ids)} tokens, more than rollout.max_prompt_tokens = "
                    f"{self.max_prompt_tokens}",
                    "shorten or remove it, raise rollout.max_prompt_tokens, or set data.overlong = 'skip'",
                )

    def _render(self, line: DataLine) -> str:
        """Return the text to tokenize."""
        data, prompt = self.data, line.prompt
        if not data.apply_chat_template:
            assert isinstance(prompt, str)  # parse_row refuses messages
            return prompt
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if data.system_prompt is not None and all(message["role"] != "system" for message in messages):
            messages = [{"role": "system", "content": data.system_prompt}, *messages]
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **data.chat_template_kwargs
            )
        except Exception as e:  # a template is a program of the model's authors
            raise UsageError(
                f"{line.where}: the model's chat template refuses the prompt: {e or type(e).__name__}",
                f"roles of the prompt: {_roles(messages)}; see chat_template.jinja or tokenizer_config.json "
                "in model.path",
            ) from e
        return str(rendered)


def _roles(messages: list[dict[str, str]]) -> str:
    return ", ".join(message["role"] for message in messages)


def _file_lines(data: DataTable) -> Iterator[DataLine]:
    if data_lines.is_parquet(Path(data.path)):
        return parquet.read_rows(data)
    return data_lines.read_lines(data)


def _task_lines(data: DataTable) -> Iterator[DataLine]:
    for number, entry in enumerate(reasoning_gym.create(data.path, data.settings)):
        prompt: Prompt = entry["question"]
        # A puzzle with several solutions has no answer; its verifier does not need one.
        yield DataLine(f"{data.path}[{number}]", prompt, entry["answer"] or "")
