from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from vime_runtime import process_environment
from vime_runtime.logging import process_log
from vime_runtime.process_environment import EnvSpec
from vime_runtime.spec.errors import WrongEnvironment
from vime_runtime.spec.run_config import RequiredVariable

ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
SPEC = EnvSpec(
    values={ALLOCATOR: "expandable_segments:False", "HCCL_HOST_SOCKET_PORT_RANGE": "60000-60050"},
    required={
        ALLOCATOR: RequiredVariable(
            accepts=r"(.*,)?\s*expandable_segments:False\s*(,.*)?", reason="expandable segments break it"
        )
    },
)


@pytest.mark.parametrize("value", ["expandable_segments:False", "page_size:1g,expandable_segments:False"])
def test_accepted_values_pass(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {ALLOCATOR: value, "HCCL_HOST_SOCKET_PORT_RANGE": "60000-60050"}
    SPEC.require("trainer rank 0", environment)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "not set"), ("", "''"), ("expandable_segments:True", "'expandable_segments:True'")],
)
def test_a_wrong_required_value_is_an_error(value: str | None, shown: str) -> None:
    environment = {} if value is None else {ALLOCATOR: value}
    with pytest.raises(WrongEnvironment) as caught:
        SPEC.require("trainer rank 0", environment)
    assert caught.value.message == (
        f"trainer rank 0 has {ALLOCATOR} {shown}, expected 'expandable_segments:False': "
        "expandable segments break it"
    )
    assert ALLOCATOR in caught.value.hint


def test_a_value_of_the_recipe_that_is_not_accepted_is_not_what_was_expected() -> None:
    changed = SPEC.model_copy(update={"values": {ALLOCATOR: "expandable_segments:True"}})
    with pytest.raises(WrongEnvironment, match=r"expected '\(\.\*,\)\?"):
        changed.require("trainer rank 0", changed.values)


def test_other_differences_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    SPEC.require("the driver", {ALLOCATOR: "expandable_segments:False"})
    printed = capsys.readouterr().out
    assert printed == "environment: HCCL_HOST_SOCKET_PORT_RANGE is not set, expected '60000-60050'\n"


def as_worker(queue: Any, overwritten: str | None) -> None:
    """Do what a worker does first, with a changed variable; put the outcome into the queue."""
    if overwritten is not None:
        os.environ[ALLOCATOR] = overwritten
    try:
        process_environment.prepare_worker()
        process_log.mark_phase("sync", 2)
        queue.put("started")
    except WrongEnvironment as e:
        queue.put(e.message)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Make this process an engine's actor with the right environment."""
    for name, value in SPEC.values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(process_environment.VARIABLE, "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    SPEC.pass_to_workers(str(tmp_path), "engine 1")


def start_worker(overwritten: str | None = None, name: str = "VllmWorker-3") -> str:
    context = multiprocessing.get_context("spawn")  # as vLLM starts its workers
    queue = context.Queue()
    worker = context.Process(target=as_worker, args=(queue, overwritten), name=name)
    worker.start()
    outcome = queue.get(timeout=60)
    worker.join()
    return outcome


def test_workers_inherit_the_environment_of_the_engine_and_have_a_log(engine: None, tmp_path: Path) -> None:
    assert start_worker() == "started"
    assert process_environment.worker_error("engine 1") is None
    log = (tmp_path / "logs" / "engine-1-worker-3.log").read_text()
    assert re.fullmatch(r"--- \S+ engine 1 worker 3: step 2 sync\n", log)


def test_the_engine_gets_the_error_of_a_worker_until_its_next_attempt(engine: None, tmp_path: Path) -> None:
    outcome = start_worker("expandable_segments:True")
    assert outcome.startswith(f"worker 3 of engine 1 has {ALLOCATOR} 'expandable_segments:True', expected")
    error = process_environment.worker_error("engine 1")
    assert error is not None
    assert error.message == outcome
    SPEC.pass_to_workers(str(tmp_path), "engine 1")
    assert process_environment.worker_error("engine 1") is None


def test_other_processes_of_an_engine_write_to_its_log_and_are_not_checked(
    engine: None, tmp_path: Path
) -> None:
    assert start_worker("expandable_segments:True", name="Process-1") == "started"
    assert not (tmp_path / "logs").exists()
