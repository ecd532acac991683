from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from vime_runtime import process_environment
from vime_runtime.process_environment import EnvSpec
from vime_runtime.spec.errors import WrongEnvironment

ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
WANTED = EnvSpec(
    values={ALLOCATOR: "expandable_segments:False", "HCCL_HOST_SOCKET_PORT_RANGE": "60000-60050"},
    required={ALLOCATOR: (r"(.*,)?\s*expandable_segments:False\s*(,.*)?", "expandable segments break it")},
)


@pytest.mark.parametrize("value", ["expandable_segments:False", "page_size:1g,expandable_segments:False"])
def test_a_process_with_what_it_needs_starts(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {ALLOCATOR: value, "HCCL_HOST_SOCKET_PORT_RANGE": "60000-60050"}
    WANTED.require("trainer rank 0", environment)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "not set"), ("", "''"), ("expandable_segments:True", "'expandable_segments:True'")],
)
def test_a_process_with_the_wrong_allocator_configuration_refuses_to_start(value, shown):
    environment = {} if value is None else {ALLOCATOR: value}
    with pytest.raises(WrongEnvironment) as caught:
        WANTED.require("trainer rank 0", environment)
    assert caught.value.message == (
        f"trainer rank 0 has {ALLOCATOR} {shown}, decided was 'expandable_segments:False': "
        "expandable segments break it"
    )
    assert ALLOCATOR in caught.value.hint


def test_what_is_not_required_is_told_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    WANTED.require("the driver", {ALLOCATOR: "expandable_segments:False"})
    told = capsys.readouterr().out
    assert told == "environment: HCCL_HOST_SOCKET_PORT_RANGE is not set, decided was '60000-60050'\n"


def as_worker(queue: Any, overwritten: str | None) -> None:
    """What an engine's worker does first, and what it says; something may have changed what it inherited."""
    if overwritten is not None:
        os.environ[ALLOCATOR] = overwritten
    try:
        process_environment.require_in_worker()
        queue.put("started")
    except WrongEnvironment as e:
        queue.put(e.message)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process is an engine's actor with the environment that it should have."""
    for name, value in WANTED.values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(process_environment.VARIABLE, "")
    WANTED.tell_workers(tmp_path, "engine 1")


def start_worker(overwritten: str | None = None, name: str = "VllmWorker-3") -> str:
    context = multiprocessing.get_context("spawn")  # as vLLM starts its workers
    queue = context.Queue()
    worker = context.Process(target=as_worker, args=(queue, overwritten), name=name)
    worker.start()
    said = queue.get(timeout=60)
    worker.join()
    return said


def test_engine_workers_inherit_the_environment_of_their_actor(engine: None) -> None:
    assert start_worker() == "started"
    assert process_environment.worker_refusal() is None


def test_an_engine_worker_that_has_lost_it_refuses_to_start_and_its_engine_learns_why(engine: None) -> None:
    said = start_worker("expandable_segments:True")
    assert said.startswith(f"worker 3 of engine 1 has {ALLOCATOR} 'expandable_segments:True', decided was")
    refusal = process_environment.worker_refusal()
    assert refusal is not None
    assert refusal.message == said


def test_another_attempt_is_not_told_of_a_refusal_before_it(engine: None, tmp_path: Path) -> None:
    start_worker("expandable_segments:True")
    WANTED.tell_workers(tmp_path, "engine 1")
    assert process_environment.worker_refusal() is None


def test_other_processes_of_an_engine_are_not_its_workers(engine: None) -> None:
    assert start_worker("expandable_segments:True", name="Process-1") == "started"
