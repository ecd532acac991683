"""What the engine answers. Imports no vLLM: the driver reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Response:
    """One sampled continuation of a prompt.

    ``logprobs`` has one natural-log probability for each token of ``token_ids``, under the distribution
    that was sampled from (after temperature and top-p). ``finish_reason`` is "stop" at an end-of-text
    token and "length" at the token limit.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
