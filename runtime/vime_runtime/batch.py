"""One step's rollout as plain lists, the form in which it travels from the loop to the trainer ranks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RolloutBatch:
    """Everything that was sampled in one step; entry ``i`` of every list belongs to response ``i``.

    Attributes:
        prompts: prompt token ids.
        responses: sampled token ids, the end-of-sequence token included.
        logprobs: log-probability of each sampled token as the engine saw it, in nats, after temperature.
        rewards: one number for the whole response.
        groups: index of the prompt within the step; responses to the same prompt share it.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    logprobs: list[list[float]]
    rewards: list[float]
    groups: list[int]

    @classmethod
    def empty(cls) -> RolloutBatch:
        """A batch with no responses yet."""
        return cls([], [], [], [], [])

    def append(
        self, prompt: list[int], response: list[int], logprobs: list[float], reward: float, group: int
    ) -> None:
        """Add one response. Raises ValueError when it has not exactly one log-probability per token."""
        if len(response) != len(logprobs):
            raise ValueError(f"{len(response)} response tokens but {len(logprobs)} log-probabilities")
        self.prompts.append(prompt)
        self.responses.append(response)
        self.logprobs.append(logprobs)
        self.rewards.append(reward)
        self.groups.append(group)

    def __len__(self) -> int:
        return len(self.responses)
