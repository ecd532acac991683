from __future__ import annotations

import random
from collections import Counter
from itertools import islice

from vime_runtime.prepare import task


def test_every_prompt_once_with_the_right_answer() -> None:
    examples = task.examples(digits=2)
    assert len({example.prompt for example in examples}) == len(examples) == 100
    assert task.Example("reverse 37 = ", "73") in examples
    assert task.Example("reverse 70 = ", "07") in examples


def test_the_asked_share_of_labels_is_right() -> None:
    pool = task.examples(digits=3)
    answers = {example.prompt: example.label for example in pool}
    drawn = list(islice(task.draw(pool, 0.3, random.Random(0)), 4000))
    right = sum(answers[example.prompt] == example.label for example in drawn) / len(drawn)
    assert abs(right - 0.3) < 0.03  # four standard deviations
    wrong = Counter(example.label for example in drawn if answers[example.prompt] != example.label)
    assert max(wrong.values()) < 20  # no wrong answer stands out


def test_right_labels_are_all_right() -> None:
    pool = task.examples(digits=1)
    assert set(islice(task.draw(pool, 1.0, random.Random(0)), 100)) <= set(pool)
