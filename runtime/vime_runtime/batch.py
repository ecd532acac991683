"""Responses as plain lists: one of an engine, and all of a step in the form that trainer ranks get."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean, pstdev, quantiles
from typing import Literal

from vime_runtime.spec import metrics


@dataclass(frozen=True)
class Response:
    """One sampled continuation of a prompt.

    Attributes:
        logprobs: the natural log-probability of each of ``token_ids``, under the distribution that was
            sampled from (after temperature and top-p).
        finish_reason: "stop" after a stop token or text, "length" at the token limit.
        text: what the tokens decode to, without special tokens, up to a stop text.
    """

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]
    text: str = ""

    @property
    def truncated(self) -> bool:
        """True if the response reached the token limit."""
        return self.finish_reason == "length"


@dataclass
class RolloutBatch:
    """All responses of one step; entry ``i`` of every list belongs to response ``i``.

    Attributes:
        prompts: prompt token ids.
        responses: sampled token ids, including the end-of-sequence token.
        logprobs: log-probability of each sampled token from the engine, in nats, after temperature.
        rewards: one number for the whole response.
        groups: index of the prompt in the step; responses to the same prompt share it.
        truncated: True if the response reached the token limit.
    """

    prompts: list[list[int]] = field(default_factory=list)
    responses: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)

    def append(
        self,
        prompt: list[int],
        response: list[int],
        logprobs: list[float],
        reward: float,
        group: int,
        truncated: bool = False,
    ) -> None:
        """Add one response. Raises ValueError unless it has one log-probability per token."""
        if len(response) != len(logprobs):
            raise ValueError(f"{len(response)} response tokens but {len(logprobs)} log-probabilities")
        self.prompts.append(prompt)
        self.responses.append(response)
        self.logprobs.append(logprobs)
        self.rewards.append(reward)
        self.groups.append(group)
        self.truncated.append(truncated)

    def members(self) -> dict[int, list[int]]:
        """Return the responses of each group, in the order of the batch."""
        groups: dict[int, list[int]] = {}
        for response, group in enumerate(self.groups):
            groups.setdefault(group, []).append(response)
        return groups

    def uniform_groups(self) -> set[int]:
        """Return the groups whose rewards are all equal: their advantages are 0."""
        return {
            group
            for group, members in self.members().items()
            if len({self.rewards[response] for response in members}) == 1
        }

    def metrics(self) -> dict[str, float]:
        """Return the metrics of rewards, groups and lengths, over all responses."""
        lengths = [len(response) for response in self.responses]
        p10, _, _, _, p50, _, _, _, p90 = quantiles(lengths, n=10, method="inclusive")
        return {
            metrics.REWARD_MEAN: fmean(self.rewards),
            metrics.REWARD_STD: pstdev(self.rewards),
            metrics.REWARD_MIN: min(self.rewards),
            metrics.REWARD_MAX: max(self.rewards),
            metrics.GROUPS_UNIFORM: len(self.uniform_groups()) / len(self.members()),
            metrics.RESPONSE_LENGTH: fmean(lengths),
            metrics.RESPONSE_LENGTH_P10: p10,
            metrics.RESPONSE_LENGTH_P50: p50,
            metrics.RESPONSE_LENGTH_P90: p90,
            metrics.RESPONSE_TRUNCATED: fmean(self.truncated),
            metrics.ROLLOUT_TOKENS: sum(lengths),
        }

    def __len__(self) -> int:
        return len(self.responses)
