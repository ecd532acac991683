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


def test_a_deferred_block_is_finished_first(stop: StopRequest) -> None:
    done = []

    def step() -> None:
        with stop.deferred():
            request_stop()
            done.append("the step")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["the step"]


def test_a_second_request_interrupts_a_deferred_block(stop: StopRequest) -> None:
    done = []

    def step() -> None:
        with stop.deferred():
            request_stop()
            done.append("half")
            request_stop()
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done == ["half"]


def test_a_request_does_not_hide_an_error(stop: StopRequest) -> None:
    def step() -> None:
        with stop.deferred():
            request_stop()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        step()
