"""Sampling filters, stop texts, the text of a response, and requests that an error leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.tolerances import LOGPROB_FP32

PROMPTS = [[3, 4, 5, 6], [7, 8, 9]]
# Of 64 words each is about as likely as any other, so a response has most of these in some sample.
STOP = ["t20 t2", "t3", " t41"]
RESPONSE_TOKENS = 12


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(seed=0)


@pytest.fixture(scope="module")
def plain(start_engine: Callable[..., Any], checkpoint: Path) -> Any:
    """An engine with stop texts and no filter."""
    return start_engine(checkpoint, stop=STOP)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def full_log_probs(checkpoint: Path, prompt: list[int], response: list[int], temperature: float) -> Any:
    """Return transformers' log-probs of all tokens at each position of the response."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 3}, lambda probs: probs >= probs.topk(3).values[:, -1:]),
        ({"min_p": 0.5}, lambda probs: probs >= 0.5 * probs.max(-1, keepdim=True).values),
    ],
    ids=["top_k", "min_p"],
)
def test_filtered_tokens_are_never_sampled_and_log_probs_are_those_of_the_rest(
    start_engine: Callable[..., Any],
    checkpoint: Path,
    filters: dict[str, Any],
    kept: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    engine = start_engine(checkpoint, **filters)
    for prompt, samples in zip(PROMPTS, engine.sample(PROMPTS, 8, seed=1), strict=True):
        for response in samples:
            rows = full_log_probs(checkpoint, prompt, response.token_ids, 0.7)
            expected = rows.masked_fill(~kept(rows.exp()), -torch.inf).log_softmax(-1)
            chosen = expected[range(len(response.token_ids)), response.token_ids]
            torch.testing.assert_close(torch.tensor(response.logprobs), chosen, rtol=0, atol=LOGPROB_FP32)
    # Greedy decoding has no filter: its log-probs are of the whole distribution.
    for prompt, (response,) in zip(PROMPTS, engine.sample(PROMPTS, 1, 0, 0.0), strict=True):
        rows = full_log_probs(checkpoint, prompt, response.token_ids, 1.0)
        torch.testing.assert_close(torch.tensor(response.logprobs), rows.amax(-1), rtol=0, atol=LOGPROB_FP32)


def test_a_stop_text_ends_a_response_and_is_in_its_tokens_only(plain: Any, tokenizer: Any) -> None:
    responses = [response for samples in plain.sample(PROMPTS, 48, seed=1) for response in samples]
    reasons = set()
    for response in responses:
        assert len(response.token_ids) == len(response.logprobs)
        whole = tokenizer.decode(response.token_ids, skip_special_tokens=True)
        before = tokenizer.decode(response.token_ids[:-1], skip_special_tokens=True)
        assert not any(text in before for text in STOP)  # it ended as soon as there was one
        found = [text for text in STOP if text in whole]
        if found:
            assert response.finish_reason == "stop"
            assert response.text in {whole[: whole.index(text)] for text in found}
        else:
            assert response.text == whole
        reasons |= set(found)
    assert reasons >= {"t3", " t41"}
    assert any(response.finish_reason == "length" for response in responses)


def leave_requests() -> None:
    """Begin to generate and stop after the first prompt."""
    from vime_runtime.rollout import engine

    generating = engine.started.generate([[3, 4], [5, 6], [7, 8]], 4, [1, 2, 3])
    next(generating)
    generating.close()


def unfinished() -> tuple[int, int]:
    """Return the requests that vLLM's front end and its scheduler have."""
    from vime_runtime.rollout import engine

    front = engine.started._llm.llm_engine
    return (
        front.get_num_unfinished_requests(),
        front.engine_core.engine_core.scheduler.get_num_unfinished_requests(),
    )


def break_step() -> None:
    """Let the second step of a generation fail."""
    from vime_runtime.rollout import engine

    front = engine.started._llm.llm_engine
    step, calls = front.step, []

    def failing() -> Any:
        calls.append(None)
        if len(calls) == 2:
            front.step = step
            raise RuntimeError("injected")
        return step()

    front.step = failing
    with pytest.raises(RuntimeError, match="injected"):
        list(engine.started.generate([[3, 4], [5, 6]], 4, [1, 2]))


@pytest.mark.parametrize("interrupt", [leave_requests, break_step])
def test_requests_of_an_interrupted_generation_are_aborted(plain: Any, interrupt: Callable[[], None]) -> None:
    expected = plain.sample(PROMPTS, 4, seed=2)
    plain.process.run(interrupt)
    assert plain.process.run(unfinished) == (0, 0)
    assert plain.sample(PROMPTS, 4, seed=2) == expected
