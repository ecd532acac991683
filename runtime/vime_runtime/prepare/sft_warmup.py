"""Supervised fine-tuning that teaches a task, then makes the right answer likely but not certain.

Reinforcement learning has no signal where all answers to a prompt are right, or all are wrong. So the policy
first learns the task from right labels. Then it is trained on noisy labels until its accuracy has fallen into
a given range, from which reinforcement learning can raise it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vime_runtime.spec.errors import UsageError

# Called with the step and a line for the user.
ReportProgress = Callable[[int, str], None]


@dataclass(frozen=True)
class Example:
    """A prompt and an answer, which may be wrong in a noisy example."""

    prompt: str
    label: str


@dataclass(frozen=True)
class SftStage:
    """One stage: train on ``source`` until the accuracy is in [``low``, ``high``].

    The accuracy is measured every ``check_every`` steps.
    """

    name: str
    source: Iterator[Example]
    lr: float
    low: float
    high: float
    check_every: int


def warm_up(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    stages: list[SftStage],
    held_out: list[Example],
    batch_size: int,
    max_steps: int,
    report: ReportProgress,
) -> float:
    """Train ``model`` through the stages, in place. Return the final accuracy on ``held_out``.

    Raises:
        UsageError: the accuracy was not in range after ``max_steps`` steps of all stages together.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    step = 0
    accuracy = expected_accuracy(model, tokenizer, held_out)
    for stage in stages:
        target = f"{stage.low:.2f} to {stage.high:.2f}"
        for group in optimizer.param_groups:
            group["lr"] = stage.lr
        while not stage.low <= accuracy <= stage.high:
            if step == max_steps:
                raise UsageError(
                    f"the accuracy is {accuracy:.2f} after {step} steps of warm-up, in stage {stage.name!r}; "
                    f"expected {target}",
                    "set another seed, or more max_steps, in [prepare.settings]",
                )
            step += 1
            _update(model, tokenizer, list(islice(stage.source, batch_size)), optimizer)
            if step % stage.check_every == 0:
                accuracy = expected_accuracy(model, tokenizer, held_out)
                report(step, f"{stage.name}: accuracy {accuracy:.2f}, target {target}")
    return accuracy


@torch.no_grad()
def expected_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> float:
    """Return the expected exact-match accuracy of answers sampled at temperature 1.

    This is the mean probability of the whole right answer including its end, so nothing is sampled.
    """
    return float(_answer_logprobs(model, tokenizer, examples).sum(dim=1).exp().mean())


def _update(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch: list[Example],
    optimizer: torch.optim.Optimizer,
) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(-_answer_logprobs(model, tokenizer, batch).mean())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _answer_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> Tensor:
    """Return log-probabilities of the tokens of each answer and its end, float32 [examples, answer tokens].

    All examples of a task have the same number of tokens, so there is no padding.
    """
    texts = [example.prompt + example.label + tokenizer.eos_token for example in examples]
    ids = torch.tensor(tokenizer(texts).input_ids)  # [examples, tokens]
    count = len(tokenizer(examples[0].label).input_ids) + 1
    logits: Tensor = model(ids[:, :-1], logits_to_keep=count).logits.float()
    return logits.log_softmax(dim=-1).gather(-1, ids[:, -count:, None]).squeeze(-1)
