"""The supervised warm-up: teach the task, then blur it until the right answer is likely but not sure.

Reinforcement learning has nothing to learn from where all answers to a prompt are right, or
all wrong. So the policy first learns the task from right labels and then forgets its
certainty on noisy ones, until its measured accuracy lies in a given range: what is left to
learn is to prefer what it already knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vime_runtime.prepare.task import Example
from vime_runtime.spec.errors import UsageError

Report = Callable[[int, str], None]


@dataclass(frozen=True)
class Lesson:
    """One stage of the warm-up: train on ``source`` until the accuracy is in [``low``, ``high``].

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
    lessons: list[Lesson],
    held_out: list[Example],
    batch_size: int,
    max_steps: int,
    report: Report,
) -> float:
    """Teach ``model`` the lessons in order, in place. Returns the last accuracy on ``held_out``.

    ``max_steps`` bounds all lessons together; ``report`` is told of the step and what goes on.

    Raises:
        UsageError: the steps were used up before the accuracy was where it should be.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    step = 0
    accuracy = measure(model, tokenizer, held_out)
    for lesson in lessons:
        for group in optimizer.param_groups:
            group["lr"] = lesson.lr
        while not lesson.low <= accuracy <= lesson.high:
            if step == max_steps:
                raise UsageError(
                    f"the warm-up stands at accuracy {accuracy:.2f} after {step} steps of {lesson.name!r}; "
                    f"expected {lesson.low:.2f} to {lesson.high:.2f}",
                    "set another seed, or more max_steps, in [prepare.settings]",
                )
            step += 1
            _update(model, tokenizer, list(islice(lesson.source, batch_size)), optimizer)
            if step % lesson.check_every == 0:
                accuracy = measure(model, tokenizer, held_out)
                wanted = f"{lesson.low:.2f} to {lesson.high:.2f}"
                report(step, f"{lesson.name}: accuracy {accuracy:.2f}, wanted {wanted}")
    return accuracy


@torch.no_grad()
def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> float:
    """The exact-match accuracy of answers sampled at temperature 1.

    Not an estimate from samples but its expectation: the mean probability of the whole right
    answer, end included.
    """
    return float(_answer_logprobs(model, tokenizer, examples).sum(dim=1).exp().mean())


def _update(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch: list[Example],
    optimizer: torch.optim.Optimizer,
) -> None:
    optimizer.zero_grad()
    (-_answer_logprobs(model, tokenizer, batch).mean()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _answer_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, examples: list[Example]
) -> Tensor:
    """Log-probabilities of the tokens of each answer and its end, float32 [examples, answer tokens].

    All examples of a task have as many tokens as each other: nothing is padded.
    """
    texts = [example.prompt + example.label + tokenizer.eos_token for example in examples]
    ids = torch.tensor(tokenizer(texts).input_ids)
    count = len(tokenizer(examples[0].label).input_ids) + 1
    logits = model(ids[:, :-1], logits_to_keep=count).logits.float()
    return logits.log_softmax(dim=-1).gather(-1, ids[:, -count:, None]).squeeze(-1)
