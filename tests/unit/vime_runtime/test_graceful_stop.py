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


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_request_breaks_off_what_can_be_lost(stop: StopRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask()
    assert stop.requested


def test_what_is_deferred_is_finished_first(stop: StopRequest) -> None:
    done = []

    def step() -> None:
        with stop.deferred():
            ask()
            done.append("the step")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["the step"]


def test_a_second_request_does_not_wait(stop: StopRequest) -> None:
    done = []

    def step() -> None:
        with stop.deferred():
            ask()
            done.append("half")
            ask()
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["half"]


def test_an_error_inside_is_not_hidden(stop: StopRequest) -> None:
    def step() -> None:
        with stop.deferred():
            ask()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        step()
