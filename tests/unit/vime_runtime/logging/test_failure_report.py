from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError
from vime_runtime.logging import failure_report
from vime_runtime.logging.event_log import EventLog
from vime_runtime.logging.failure_report import describe, report_end
from vime_runtime.spec.errors import UsageError


def events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_a_full_disk_does_not_hide_the_error_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    log = EventLog(tmp_path, steps=4)
    with pytest.raises(ValueError, match="odd"), report_end(log, tmp_path):
        raise ValueError("odd")
    assert "not written: error" in capsys.readouterr().err


def test_only_the_first_error_is_recorded(tmp_path: Path) -> None:
    log = EventLog(tmp_path, steps=4)
    for message in ("bad", "a consequence"):
        with pytest.raises(UsageError), report_end(log, tmp_path):
            raise UsageError(message)
    found = [(event["kind"], event.get("error", {}).get("message")) for event in events(tmp_path)]
    assert found == [("error", "bad"), ("ending", None)]


@pytest.mark.parametrize("stopped", [False, True])
def test_the_ending_event_says_whether_the_work_is_done(tmp_path: Path, stopped: bool) -> None:
    log = EventLog(tmp_path, steps=4)
    try:
        with report_end(log, tmp_path):
            if stopped:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert [(event["kind"], event["done"]) for event in events(tmp_path)] == [("ending", not stopped)]


def caught(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as e:
        return e
    raise AssertionError


def odd() -> None:
    raise KeyError("label")


def in_a_task(cause: Exception, traceback: str) -> RayTaskError:
    """Return what ``ray.get`` raises for an error of an actor."""
    error = RayTaskError("f", traceback, cause, proctitle="ray::TrainerActor.call", pid=7, ip="127.0.0.1")
    return error.as_instanceof_cause()


REMOTE = """\
Traceback (most recent call last):
  File "/x/lib/python3.11/site-packages/vime_runtime/cluster/actors.py", line 63, in call
    return getattr(self._worker, method)(*args)
  File "/x/lib/python3.11/site-packages/vime_runtime/trainer/trainer.py", line 9, in step
    norm()
  File "/x/lib/python3.11/site-packages/megatron/core/optimizer/clip_grads.py", line 3, in norm
    raise FloatingPointError("the gradient is NaN\\nin rank 0")
FloatingPointError: the gradient is NaN
in rank 0
"""


def test_error_of_this_process_is_named_with_its_place(tmp_path: Path) -> None:
    found = describe(caught(odd), tmp_path, [])
    assert (found["kind"], found["message"]) == ("KeyError", "KeyError: 'label'")
    line = odd.__code__.co_firstlineno + 1
    assert found["where"] == f"{__file__}:{line} in odd"
    assert found["traceback"].startswith("Traceback (most recent call last):")
    assert found["traceback"].endswith("KeyError: 'label'")


def test_error_of_an_actor_is_named_as_in_the_actor(tmp_path: Path) -> None:
    found = describe(in_a_task(FloatingPointError("the gradient is NaN"), REMOTE), tmp_path, [])
    assert found["kind"] == "FloatingPointError"
    assert found["message"] == "FloatingPointError: the gradient is NaN in rank 0"
    assert found["where"].endswith("vime_runtime/trainer/trainer.py:9 in step")
    assert not found["lost_peer"]


def test_os_error_that_was_taken_out_of_its_task_error_has_the_place_in_the_actor(tmp_path: Path) -> None:
    trace = REMOTE.replace("FloatingPointError", "OSError")

    def unwrap() -> None:
        raise OSError("full") from in_a_task(OSError("full"), trace)

    found = describe(caught(unwrap), tmp_path, [])
    assert found["where"].endswith("vime_runtime/trainer/trainer.py:9 in step")


@pytest.mark.parametrize(
    "failure",
    [
        "Worker failed with error 'the weights are odd', please check the stack trace above",
        "WorkerProc initialization failed due to an exception in a background process. See stack trace.",
    ],
)
def test_error_of_an_engine_worker_is_taken_from_its_log(tmp_path: Path, failure: str) -> None:
    """The other worker only lost its peer."""
    prefix = "(Worker_TP1 pid=7) ERROR 11-30 21:08:09 [multiproc_executor.py:1063] "
    texts = (
        ("/x/site-packages/torch/a.py", "RuntimeError: [gloo/tcp/pair.cc:547] Connection closed by peer"),
        ("/home/me/plugin.py", "ValueError: the weights are odd"),
    )
    for rank, (file, text) in enumerate(texts):
        lines = [
            "Traceback (most recent call last):",
            f'  File "{file}", line 5, in load',
            "    run()",
            text,
            "",
        ]
        log = tmp_path / f"engine-0-worker-{rank}.log"
        log.write_text("start\n" + "".join(f"{prefix}{line}\n" for line in lines) + "--- 21:08:09 x: y\n")
    frame = '  File "/x/site-packages/vllm/e.py", line 3, in f'
    trace = f"Traceback (most recent call last):\n{frame}\nRuntimeError: {failure}\n"
    found = describe(in_a_task(RuntimeError(failure), trace), tmp_path, [])
    assert (found["kind"], found["message"]) == ("ValueError", "ValueError: the weights are odd")
    assert found["where"] == "/home/me/plugin.py:5 in load"


def test_exit_of_user_code_is_an_error_with_its_place(tmp_path: Path) -> None:
    log = EventLog(tmp_path, steps=4)
    with pytest.raises(SystemExit), report_end(log, tmp_path):
        sys.exit(3)
    error = events(tmp_path)[0]["error"]
    assert (error["kind"], error["message"]) == ("SystemExit", "SystemExit: 3")
    assert error["where"].startswith(__file__)
    assert "instead of calling exit()" in error["hint"]


@pytest.mark.parametrize(
    ("error", "is_loss"),
    [
        (ActorDiedError(), True),
        (OutOfMemoryError("Ray killed this worker"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:3"), True),
        (
            in_a_task(RuntimeError("cancelled"), "Traceback (most recent call last):\nRuntimeError: x"),
            True,
        ),
        (AssertionError("collective_rpc should not be called on follower node"), True),
        (RuntimeError("the shape is odd"), False),
        (ConnectionResetError("Connection reset by peer"), False),  # of a server that user code asks
        (in_a_task(KeyError("x"), "Traceback (most recent call last):\nKeyError: 'x'"), False),
    ],
)
def test_errors_about_another_process_are_recognized(
    tmp_path: Path, error: Exception, is_loss: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_report, "EXIT_SECONDS", 0.0)
    assert describe(error, tmp_path, [])["lost_peer"] is is_loss


def test_processes_that_had_exited_are_recorded_with_the_error(tmp_path: Path) -> None:
    started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    here, zombie = os.uname().nodename, started[0]
    log = EventLog(tmp_path, steps=4)
    log.processes(
        [
            {"role": "trainer rank", "rank": rank, "pid": process.pid, "node": here}
            for rank, process in enumerate(started)
        ]
    )
    log.processes([{"role": "trainer rank", "rank": 2, "pid": 2**22 + 1, "node": "elsewhere"}])
    zombie.kill()  # not collected; the error may come before the exit
    with pytest.raises(RuntimeError), report_end(log, tmp_path):
        raise RuntimeError("Connection closed by peer")
    assert events(tmp_path)[3]["error"]["exited"] == [zombie.pid]
    for process in started:
        process.kill()
        process.communicate()
