from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.recipes.resolve import Resolved, resolve
from vimectl.runs import plan, resume
from vimectl.runs.process_identity import Identity
from vimectl.util.host import Host


def asked(*assignments: str, mode: str = "smoke") -> Resolved:
    return resolve("qwen3-tiny-tp2", mode, list(assignments))


@pytest.fixture
def begun(tmp_path: Path, write_model: Callable[..., Path]) -> Callable[..., tuple[Path, list[str]]]:
    """Write the directory of a run; returns it and the assignments that name its inputs."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "1 2", "label": "2"}\n')
    named = [f"model.path={write_model()}", f"data.path={data}"]

    def begin(*assignments: str) -> tuple[Path, list[str]]:
        run_dir = tmp_path / "run"
        plan.write(plan.make(asked(*named, *assignments), Host(), run_dir), {})
        return run_dir, named

    return begin


def check(run_dir: Path | None, resolved: Resolved) -> None:
    resume.check(run_dir, resolved.recipe, resolved.steps)


def test_the_same_settings_go_on(begun: Any) -> None:
    run_dir, named = begun("optimizer.lr=1e-3")
    check(run_dir, asked(*named, "optimizer.lr=0.001"))
    made = plan.make(asked(*named, "optimizer.lr=0.001"), Host(), run_dir, resume=True)
    assert made.run_dir == run_dir
    (run_dir / "summary.json").write_text("{}")
    plan.write(made, {"later": True})
    assert json.loads((run_dir / "doctor.json").read_text()) == {"later": True}
    assert not (run_dir / "summary.json").exists()


@pytest.mark.parametrize(
    "free",
    ["modes.smoke.steps=99", "checkpoint.every=3", "memory.offload_dir=/var/tmp", "memory.host_bytes=1"],
)
def test_what_does_not_change_the_results_may_differ(begun: Any, free: str) -> None:
    run_dir, named = begun()
    check(run_dir, asked(*named, free))
    check(run_dir, asked(*named, mode="long"))


def test_every_difference_is_listed(begun: Any) -> None:
    run_dir, named = begun()
    changed = asked(*named, "optimizer.lr=1e-3", "rollout.top_p=0.5", "env.COLOUR=green")
    with pytest.raises(UsageError) as caught:
        check(run_dir, changed)
    assert caught.value.message.splitlines() == [
        f"{run_dir} is a run with other settings:",
        '    env.COLOUR: nothing -> "green"',
        "    optimizer.lr: 5e-05 -> 0.001",
        "    rollout.top_p: 1.0 -> 0.5",
    ]


def test_another_length_is_refused_when_the_learning_rate_depends_on_it(begun: Any) -> None:
    run_dir, named = begun("optimizer.decay=cosine")
    check(run_dir, asked(*named, "optimizer.decay=cosine"))
    with pytest.raises(UsageError, match=r"a run of 4 steps, asked for are 5; with optimizer\.decay"):
        check(run_dir, asked(*named, "optimizer.decay=cosine", "modes.smoke.steps=5"))


def test_there_must_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no --run-dir was given"):
        check(None, asked())
    with pytest.raises(UsageError, match="holds no run"):
        check(tmp_path, asked())


@pytest.mark.parametrize("owner", ["launcher.json", "supervisor.json"])
def test_a_run_that_goes_on_is_left_alone(begun: Any, owner: str) -> None:
    run_dir, named = begun()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = asdict(Identity.of(other.pid))
    try:
        (run_dir / owner).write_text(json.dumps(identity))
        with pytest.raises(UsageError, match=f"goes on: process {other.pid}"):
            check(run_dir, asked(*named))
        # The id was given to another process since.
        (run_dir / owner).write_text(json.dumps(identity | {"started": identity["started"] - 1}))
        check(run_dir, asked(*named))
    finally:
        other.communicate()
    (run_dir / owner).write_text(json.dumps(identity))
    check(run_dir, asked(*named))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: (d / "data.jsonl").write_text('{"prompt": "1 3", "label": "3"}\n'), "data.path"),
        (lambda d: (d / "model/config.json").write_text("{}"), "model.path/config.json"),
        (lambda d: os.truncate(d / "model/model.safetensors", 20), "model.path/model.safetensors"),
    ],
)
def test_changed_inputs_are_refused(begun: Any, tmp_path: Path, change: Any, named: str) -> None:
    run_dir, assignments = begun()
    made = plan.make(asked(*assignments), Host(), run_dir, resume=True)
    change(tmp_path)
    with pytest.raises(UsageError, match=f"changed since the run in .* began: {named}"):
        plan.write(made, {})


def test_a_finished_run_goes_on_from_its_state_alone(begun: Any) -> None:
    run_dir, named = begun()
    (run_dir / "summary.json").write_text('{"ok": true, "steps": 4}')
    assert resume.finished_steps(run_dir) == 4
    check(run_dir, asked(*named))
    with pytest.raises(UsageError, match="kept no training state"):
        check(run_dir, asked(*named, "modes.smoke.steps=5"))
    (run_dir / "checkpoints" / "step-000004").mkdir()
    (run_dir / "checkpoints" / "step-000004" / "manifest.json").touch()
    check(run_dir, asked(*named, "modes.smoke.steps=5"))


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_run_directory_is_an_error_that_names_the_file(begun: Any, content: str) -> None:
    run_dir, named = begun()
    (run_dir / "resolved.json").write_text(content)
    with pytest.raises(UsageError, match=r"resolved\.json"):
        check(run_dir, asked(*named))
