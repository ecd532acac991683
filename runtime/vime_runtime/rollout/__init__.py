"""Sampling with vLLM. Imports no vLLM: the driver uses this module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Response:
    """One sampled continuation of a prompt.

    Attributes:
        logprobs: the natural log-probability of each of ``token_ids``, under the distribution that was
            sampled from (after temperature and top-p).
        finish_reason: "stop" after a stop token, "length" at the token limit.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
