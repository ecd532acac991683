"""A pool of processes that score responses.

One thread starts, feeds and ends all processes. A process that hangs or ends costs only the response that it
was scoring: another process replaces it and scores the others. What a process sends is only data, because it
runs code that may be hostile.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vime_runtime.batch import Response
from vime_runtime.rewards.client import DamagedReply, Disconnected, RewardProcess
from vime_runtime.rewards.functions import MAX_REWARD
from vime_runtime.rewards.output_log import OutputLog, printable
from vime_runtime.rewards.score import Group, Job, RewardError, Score
from vime_runtime.rewards.user_error import stack_place
from vime_runtime.spec.errors import RewardFailed, UsageError, VimeError
from vime_runtime.spec.recipe import DataTable

if TYPE_CHECKING:
    from vime_runtime.data.problems import Problem

# Name of the set of problems to train on.
TRAINING_SET = "train"
# Seconds to import the functions of the user.
START_SECONDS = 300.0
# Seconds for a process to end everything that it has started.
END_SECONDS = 10.0
# The pool gives up when so many processes end one after the other before they are ready.
MAX_FAILED_STARTS = 3


def check_rewards(sets: Mapping[str, DataTable], env: Mapping[str, str] | None = None) -> None:
    """Import and inspect the functions of all sets in a reward process.

    Raises:
        UsageError: with the type, message, file and line of an exception while the user's module is imported.
    """
    one_process = {name: data.model_copy(update={"reward_processes": 1}) for name, data in sets.items()}
    with tempfile.TemporaryDirectory(prefix="vime-check-") as folder:
        pool = RewardPool(one_process, Path(folder), Path(os.devnull), env)
        try:
            pool.wait_ready()
        finally:
            pool.close()


class _Member(RewardProcess):
    """A process of the pool: what it does, and the time until which it may do that."""

    ready = False
    ending = False
    job: Job | None = None
    deadline = math.inf
    # Why it was ended, if it did not exit by itself.
    failure: RewardError | None = None


class RewardPool:
    """The reward processes of a run."""

    def __init__(
        self,
        sets: Mapping[str, DataTable],
        scratch_dir: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start the processes and return at once; see ``wait_ready``.

        Args:
            sets: how the problems of each set are scored. The first set decides about the processes.
            scratch_dir: where each process gets a temporary folder.
            log: file for what the processes print.
            env: environment variables in addition to those that the processes inherit.
        """
        self._sets = dict(sets)
        self._settings = next(iter(sets.values()))
        self._scratch_dir = scratch_dir
        self._log = OutputLog(log)
        self._env = env or {}
        self._count = min(self._settings.reward_processes, len(os.sched_getaffinity(0)))
        self._members: list[_Member] = []
        self._jobs: deque[Job] = deque()
        self._functions: dict[str, dict[str, Any]] = {}  # name of the set: form and arguments
        self._failed_starts = 0
        self._ready: Future[list[str]] = Future()
        self._broken: VimeError | None = None
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._on_wake)
        # It starts all processes, and the kernel ends them when it exits: PR_SET_PDEATHSIG(2const).
        self._thread = threading.Thread(target=self._run, name="rewards", daemon=True)
        self._thread.start()

    def wait_ready(self) -> list[str]:
        """Wait for the first process; return what it could do because the platform refused to restrict it.

        Raises:
            UsageError: a function cannot be imported, or not be called as documented.
        """
        return self._ready.result()

    def submit(self, name: str, problem: Problem, responses: list[Response]) -> Future[list[Score]]:
        """Start to score the responses to a problem of the set ``name``.

        The future raises VimeError if no process can be started any more.
        """
        fields = {
            "label": problem.label,
            "prompt": problem.prompt,
            "row": problem.row,
            "index": problem.index,
        }
        group = Group(name, fields, responses)
        if self._broken:
            group.future.set_exception(self._broken)
            return group.future
        self._jobs.append(Job(group, list(range(len(responses)))))
        self._wake_sender.send(b"\0")
        return group.future

    def close(self) -> None:
        """End the processes and everything that they have started."""
        self._closing = True
        with contextlib.suppress(OSError):  # closed before
            self._wake_sender.send(b"\0")
        self._thread.join()
        self._wake_sender.close()
        self._wake_receiver.close()

    def _run(self) -> None:
        """Serve until the pool is closed and all processes have exited."""
        try:
            while self._members or not self._closing:
                self._step()
        except Exception as e:  # the main thread must not wait for ever
            self._give_up(RewardFailed(f"the reward processes cannot be served: {type(e).__name__}: {e}"))
            raise
        finally:
            for member in self._members:
                member.kill()
            self._give_up(RewardFailed("the reward processes were closed"))
            self._selector.close()

    def _step(self) -> None:
        """Handle what has happened, or wait for something to happen."""
        if self._closing or self._broken:
            self._fail_jobs()
            for member in self._members:
                self._end(member)
        else:
            while sum(not member.ending for member in self._members) < self._count:
                self._start()
            self._dispatch()
        deadline = min((member.deadline for member in self._members), default=math.inf)
        wait = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        for key, events in self._selector.select(wait):
            if key.fd in self._selector.get_map():  # an event before this one may have removed it
                key.data(events)
        now = time.monotonic()
        for member in [member for member in self._members if now > member.deadline]:
            self._on_deadline(member)

    def _start(self) -> None:
        member = _Member(self._env, self._scratch_dir, self._settings.reward_isolated)
        member.deadline = time.monotonic() + START_SECONDS
        self._members.append(member)
        handlers: dict[Any, Callable[[_Member, int], None]] = {
            member.socket: self._on_socket,
            member.output: self._on_output,
            member.exit: self._on_exit,
        }
        for source, handler in handlers.items():
            self._selector.register(source, selectors.EVENT_READ, partial(handler, member))
        self._send(member, {"sets": {name: data.model_dump() for name, data in self._sets.items()}})

    def _dispatch(self) -> None:
        """Give the waiting jobs to idle processes. Idle processes share a group that can be split."""
        idle = [one for one in self._members if one.ready and not one.job and not one.ending]
        while idle and self._jobs:
            job = self._jobs.popleft()
            if self._form(job) == "single":
                share = math.ceil(len(job.indices) / len(idle))
                if rest := job.indices[share:]:
                    self._jobs.appendleft(Job(job.group, rest))
                job = Job(job.group, job.indices[:share])
            member = idle.pop()
            member.job = job
            self._allow_time(member, job)
            self._send(member, job.request(self._functions[job.group.set]["takes"]))

    def _form(self, job: Job) -> str:
        return str(self._functions[job.group.set]["form"])

    def _allow_time(self, member: _Member, job: Job) -> None:
        """Set the deadline of the response that is scored now, or of a whole batch."""
        seconds = self._sets[job.group.set].reward_timeout
        calls = len(job.indices) if self._form(job) == "batch" else 1
        member.deadline = time.monotonic() + seconds * calls

    def _send(self, member: _Member, message: dict[str, Any]) -> None:
        member.send(message)
        self._watch(member)

    def _watch(self, member: _Member) -> None:
        data = self._selector.get_key(member.socket).data
        self._selector.modify(member.socket, member.events, data)

    def _on_wake(self, _events: int) -> None:
        self._wake_receiver.recv(4096)

    def _on_output(self, member: _Member, _events: int) -> None:
        printed = member.read_output()
        self._log.write(printed)
        if not printed:
            self._selector.unregister(member.output)

    def _on_socket(self, member: _Member, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            member.flush()
            self._watch(member)
        if not events & selectors.EVENT_READ:
            return
        try:
            for message in member.receive():
                self._on_message(member, message)
        except Disconnected:
            self._selector.unregister(member.socket)
            self._end(member)
        except (DamagedReply, LookupError, TypeError, ValueError):
            self._selector.unregister(member.socket)
            self._end(member, RewardError("crash", "the reward process sent a damaged reply"))

    def _on_message(self, member: _Member, message: dict[str, Any]) -> None:
        """Handle a reply. A forged one raises DamagedReply, LookupError, TypeError or ValueError."""
        if not member.ready:
            self._on_hello(member, message)
            return
        job, index = member.job, message["index"]
        if job is None:
            raise DamagedReply
        if "error" in message:
            fields = {name: printable(message["error"][name]) for name in ("message", "where", "traceback")}
            score = Score(0.0, RewardError("exception", **fields))
        else:
            score = Score(float(message["reward"]))
            if not abs(score.reward) <= MAX_REWARD:
                raise DamagedReply
        job.indices.remove(index)  # after the reply was checked: otherwise the response would be forgotten
        job.group.add(index, score)
        if job.indices:
            if self._form(job) == "single":
                self._allow_time(member, job)
        else:
            member.job, member.deadline = None, math.inf

    def _on_hello(self, member: _Member, message: dict[str, Any]) -> None:
        if "refused" in message:
            refused = message["refused"]
            self._give_up(UsageError(printable(refused["message"]), refused["hint"]))
            return
        self._functions = {name: message["ready"][name] for name in self._sets}
        self._failed_starts = 0
        member.ready, member.deadline = True, math.inf
        if not self._ready.done():
            self._ready.set_result([printable(str(one)) for one in message["possible"]])

    def _on_deadline(self, member: _Member) -> None:
        if member.ending:
            member.kill()
            member.deadline = math.inf
        elif member.job:
            limit = self._sets[member.job.group.set].reward_timeout
            self._end(member, RewardError("timeout", f"no reward within {limit:g} s"))
        else:
            self._end(member, RewardError("timeout", f"not started within {START_SECONDS:g} s"))

    def _end(self, member: _Member, failure: RewardError | None = None) -> None:
        """Let the guard of a process end everything. ``failure`` is what happened to its response."""
        if not member.ending:
            member.ending, member.failure = True, failure
            member.deadline = time.monotonic() + END_SECONDS
            member.end(with_stack=failure is not None and failure.kind == "timeout")

    def _on_exit(self, member: _Member, _events: int) -> None:
        """Score what a process that has exited was scoring as 0, and let others score the rest."""
        for _ in range(16):  # no more than is in a pipe
            self._log.write(member.read_output())
        for source in (member.socket, member.output, member.exit):
            if source in self._selector.get_map():
                self._selector.unregister(source)
        self._members.remove(member)
        how = member.close()
        error = member.failure or RewardError("crash", how)
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts == MAX_FAILED_STARTS:
                self._give_up(
                    UsageError(f"a reward process did not start: {error.message}", f"see {self._log.path}")
                )
        if member.job:
            where = printable(stack_place(member.last_output))
            job, error = member.job, replace(error, where=where)
            lost = 1 if self._form(job) == "single" else len(job.indices)
            for index in job.indices[:lost]:
                job.group.add(index, Score(0.0, error))
            if rest := job.indices[lost:]:
                self._jobs.appendleft(Job(job.group, rest))

    def _give_up(self, error: VimeError) -> None:
        """Let every result that is waited for raise an error. Only the first error counts."""
        self._broken = self._broken or error
        if not self._ready.done():
            self._ready.set_exception(self._broken)
        self._fail_jobs()

    def _fail_jobs(self) -> None:
        groups = [member.job.group for member in self._members if member.job]
        while self._jobs:
            groups.append(self._jobs.popleft().group)
        for group in groups:
            group.fail(self._broken or RewardFailed("the reward processes were closed"))
