from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from vime_runtime.graceful_stop import StopRequest


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = signal.getsignal(signal.SIGTERM)
    request = StopRequest()
    request.listen()
    yield request
    signal.signal(signal.SIGTERM, before)


def request_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_interrupts_by_default(stop: StopRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        request_stop()
    assert stop.requested


@pytest.mark.parametrize(("requests", "done"), [(1, ["half", "whole"]), (2, ["half"])])
def test_a_deferred_block_is_finished_unless_there_is_a_second_request(
    stop: StopRequest, requests: int, done: list[str]
) -> None:
    found = []

    def step() -> None:
        with stop.deferred():
            request_stop()
            found.append("half")
            if requests == 2:
                request_stop()
            found.append("whole")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert found == done


def test_a_request_does_not_hide_an_error(stop: StopRequest) -> None:
    def step() -> None:
        with stop.deferred():
            request_stop()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        step()
