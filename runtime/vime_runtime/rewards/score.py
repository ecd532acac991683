"""Scores of responses, and the groups of responses that wait for them."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from vime_runtime.batch import Response


@dataclass(frozen=True)
class RewardError:
    """Why a response could not be scored.

    Attributes:
        kind: "timeout", "exception", or "crash" if the process ended.
        message: type and message of the exception, or how the process ended.
        where: "FILE:LINE in FUNCTION" of the user's code; empty if unknown.
        traceback: the user's part of it; empty without an exception.
    """

    kind: Literal["timeout", "exception", "crash"]
    message: str
    where: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Score:
    """The reward of one response; 0 with an ``error``."""

    reward: float
    error: RewardError | None = None


@dataclass
class Group:
    """Responses to one problem, and the scores that are known.

    ``problem`` has what a function may take of the problem, by name.
    """

    set: str
    problem: dict[str, Any]
    responses: list[Response]
    future: Future[list[Score]] = field(default_factory=Future)
    scores: dict[int, Score] = field(default_factory=dict)

    def add(self, index: int, score: Score) -> None:
        """Add the score of a response; the last one completes the future."""
        self.scores[index] = score
        if len(self.scores) == len(self.responses) and not self.future.done():
            self.future.set_result([self.scores[index] for index in range(len(self.responses))])

    def fail(self, error: Exception) -> None:
        """Let the future raise an error."""
        if not self.future.done():
            self.future.set_exception(error)


@dataclass
class Job:
    """Responses of a group that one process scores. ``indices`` are those without a score, in order."""

    group: Group
    indices: list[int]

    def request(self, takes: list[str]) -> dict[str, Any]:
        """Return the message to a process, with what the function ``takes``."""
        wanted = {*takes, "response"} if "answer" in takes else set(takes)
        responses = []
        for index in self.indices:
            one = self.group.responses[index]
            fields = {"response": one.text, "finish_reason": one.finish_reason, "tokens": one.token_ids}
            responses.append({name: value for name, value in fields.items() if name in wanted})
        problem = {name: value for name, value in self.group.problem.items() if name in wanted}
        return {"set": self.group.set, "problem": problem, "responses": responses, "indices": self.indices}
