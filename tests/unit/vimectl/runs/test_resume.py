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

from vimectl.recipes.resolve import ResolvedRecipe, resolve
from vimectl.runs.plan import make_plan, write_run_directory
from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.resume import check_resumable, finished_steps
from vimectl.util.host import Host


def resolved(*assignments: str, mode: str = "smoke") -> ResolvedRecipe:
    return resolve("qwen3-tiny-tp2", mode, list(assignments))


@pytest.fixture
def begun(tmp_path: Path, write_model: Callable[..., Path]) -> Callable[..., tuple[Path, list[str]]]:
    """Write a run directory; return it and the assignments of its model and data."""
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "1 2", "label": "2"}\n')
    named = [f"model.path={write_model()}", f"data.path={data}"]

    def begin(*assignments: str) -> tuple[Path, list[str]]:
        run_dir = tmp_path / "run"
        write_run_directory(make_plan(resolved(*named, *assignments), Host(), run_dir), {})
        return run_dir, named

    return begin


def check(run_dir: Path | None, recipe: ResolvedRecipe) -> None:
    check_resumable(run_dir, recipe.recipe, recipe.steps)


def test_same_settings_resume(begun: Any) -> None:
    run_dir, named = begun("optimizer.lr=1e-3")
    check(run_dir, resolved(*named, "optimizer.lr=0.001"))
    made = make_plan(resolved(*named, "optimizer.lr=0.001"), Host(), run_dir, resume=True)
    assert made.run_dir == run_dir
    (run_dir / "summary.json").write_text("{}")
    write_run_directory(made, {"later": True})
    assert json.loads((run_dir / "doctor.json").read_text()) == {"later": True}
    assert not (run_dir / "summary.json").exists()


@pytest.mark.parametrize(
    "free",
    [
        "modes.smoke.steps=99",
        "checkpoint.every=3",
        "memory.offload_dir=/var/tmp",
        "memory.host_bytes=1",
        "data.reward_timeout=60",
        "data.reward_processes=1",
        "data.reward_isolated=false",
        "data.max_reward_failures=1",
        "algorithm.max_logprob_difference=1",
        "train.epochs=2",
    ],
)
def test_settings_that_do_not_change_the_results_may_differ(begun: Any, free: str) -> None:
    run_dir, named = begun()
    check(run_dir, resolved(*named, free))
    check(run_dir, resolved(*named, mode="long"))


def test_every_difference_is_listed(begun: Any) -> None:
    run_dir, named = begun()
    changed = resolved(*named, "optimizer.lr=1e-3", "rollout.top_p=0.5", "env.SHADE=green")
    with pytest.raises(UsageError) as caught:
        check(run_dir, changed)
    assert caught.value.message.splitlines() == [
        f"{run_dir} is a run with other settings:",
        '    env.SHADE: nothing -> "green"',
        "    optimizer.lr: 5e-05 -> 0.001",
        "    rollout.top_p: 1.0 -> 0.5",
    ]


def test_other_length_is_refused_if_the_learning_rate_depends_on_it(begun: Any) -> None:
    run_dir, named = begun("optimizer.decay=cosine")
    check(run_dir, resolved(*named, "optimizer.decay=cosine"))
    with pytest.raises(UsageError, match=r"a run of 4 steps, but 5 are requested; with optimizer\.decay"):
        check(run_dir, resolved(*named, "optimizer.decay=cosine", "modes.smoke.steps=5"))


def test_directory_must_hold_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no --run-dir was given"):
        check(None, resolved())
    with pytest.raises(UsageError, match="is not a run directory"):
        check(tmp_path, resolved())


@pytest.mark.parametrize("owner", ["launcher.json", "supervisor.json"])
def test_running_run_is_refused(begun: Any, owner: str) -> None:
    run_dir, named = begun()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = asdict(ProcessIdentity.of(other.pid))
    try:
        (run_dir / owner).write_text(json.dumps(identity))
        with pytest.raises(UsageError, match=f"is running: process {other.pid}"):
            check(run_dir, resolved(*named))
        # Another process has the id.
        (run_dir / owner).write_text(json.dumps(identity | {"started": identity["started"] - 1}))
        check(run_dir, resolved(*named))
    finally:
        other.communicate()
    (run_dir / owner).write_text(json.dumps(identity))
    check(run_dir, resolved(*named))


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
    made = make_plan(resolved(*assignments), Host(), run_dir, resume=True)
    change(tmp_path)
    with pytest.raises(UsageError, match=f"changed since the run in .* began: {named}"):
        write_run_directory(made, {})


def test_finished_run_needs_a_training_state(begun: Any) -> None:
    run_dir, named = begun()
    (run_dir / "summary.json").write_text('{"ok": true, "steps": 4}')
    assert finished_steps(run_dir) == 4
    check(run_dir, resolved(*named))
    with pytest.raises(UsageError, match="without a training state"):
        check(run_dir, resolved(*named, "modes.smoke.steps=5"))
    (run_dir / "checkpoints" / "step-000004").mkdir()
    (run_dir / "checkpoints" / "step-000004" / "manifest.json").touch()
    check(run_dir, resolved(*named, "modes.smoke.steps=5"))


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_run_directory_is_an_error_that_names_the_file(begun: Any, content: str) -> None:
    run_dir, named = begun()
    (run_dir / "resolved.json").write_text(content)
    with pytest.raises(UsageError, match=r"resolved\.json"):
        check(run_dir, resolved(*named))
