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
from vime_runtime.spec.private_values import pass_on
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import RunPaths

from vimectl.recipes.resolve import ResolvedRecipe, resolve
from vimectl.runs.exit_status import ExitStatus
from vimectl.runs.plan import make_plan, write_run_directory
from vimectl.runs.process_watch import ProcessIdentity
from vimectl.runs.resume import check_resumable, finished_steps
from vimectl.runs.run_log import RunLog, append_event
from vimectl.runs.summary import summarize, write_with_report
from vimectl.runs.watch_supervisor import write_launcher
from vimectl.util.host import Host
from vimectl.util.secrets import redact_arguments


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
    check_resumable(run_dir, recipe.recipe, recipe.steps, recipe.private)


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
        '    env.SHADE: nothing -> "<secret>"',
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


SECRET_FORMS = {
    "WANDB_API_KEY": "hunter22-wandb",
    "HF_TOKEN": "hunter22-hf",
    "AWS_SECRET_ACCESS_KEY": "hunter22/aws+key",
    "COOKIE": "hunter22 of the command line",
    "OPTIONS": "--api-key hunter22-option --port 1",
    "MORE_OPTIONS": "--api-key=hunter22-equals",
    "ENDPOINT": "https://host/v1?token=hunter22-query&x=1",
    "PROXY": "http://me:hunter22-proxy@host:3128",
    "HEADERS": "Authorization: Bearer hunter22-bearer",
    "DSN": "host=db;pwd=hunter22-pwd",
    "JSON": '{"api_key": "hunter22-json", "x": "\\u00fc"}',
    "DB_PASS": "hunter22\\back",
}


def words_of(folder: Path) -> dict[str, str]:
    """Return the files that contain a secret."""
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {str(path): text.decode(errors="replace") for path, text in texts.items() if b"hunter22" in text}


def test_no_file_of_a_run_has_a_value_of_a_secret(
    begun: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VIME_SECRET_VALUES", "{}")
    _, named = begun()
    recipe_file = tmp_path / "own.toml"
    shipped = resolved().source.read_text()
    in_file = {"WANDB_API_KEY", "JSON", "PROXY"}
    lines = [f"{name} = {json.dumps(SECRET_FORMS[name])}" for name in sorted(in_file)]
    recipe_file.write_text("\n".join([shipped, "[env]", *lines]) + "\n")
    given = [f"env.{name}={json.dumps(value)}" for name, value in SECRET_FORMS.items() if name not in in_file]
    recipe = resolve(str(recipe_file), "smoke", [*named, *given])
    assert recipe.private == SECRET_FORMS
    run_dir = tmp_path / "other"
    plan = make_plan(recipe, Host(), run_dir)
    assert plan.environment["train"].items() >= SECRET_FORMS.items()
    checks = [{"found": f"{name}={value}"} for name, value in SECRET_FORMS.items()]
    write_run_directory(plan, {"checks": checks})
    pass_on(recipe.private)
    config = RunConfig.load(run_dir / "resolved.json")
    assert (config.recipe.env, config.environment) == (SECRET_FORMS, plan.environment)

    printed = "".join(f"{name}={value} {json.dumps(value)}\n" for name, value in SECRET_FORMS.items())
    (run_dir / "logs" / "driver.log").write_text(printed + "the end\n")
    append_event(run_dir, "error", error={"message": printed, "hint": "h", "traceback": printed})
    status = ExitStatus(1, f"failed: {printed}", traceback=printed)
    log = RunLog(run_dir)
    log.read()
    write_with_report(run_dir, summarize(config, log, status, 1.0, 0, []))
    write_launcher(RunPaths(run_dir), {"argv": redact_arguments(["--set", *given])})
    assert words_of(run_dir) == {}
    assert (run_dir / "logs" / "driver.log").read_text().endswith("the end\n")
    assert "&lt;secret&gt;" in (run_dir / "report.html").read_text()


def test_a_secret_is_given_again_to_resume_and_may_be_another_one(begun: Any) -> None:
    run_dir, named = begun("env.COOKIE=hunter22", "env.MODE=/a/path")
    check(run_dir, resolved(*named, "env.COOKIE=hunter23", "env.MODE=/a/path"))
    with pytest.raises(UsageError, match=r'env\.COOKIE: "<secret>" -> nothing'):
        check(run_dir, resolved(*named, "env.MODE=/a/path"))
    with pytest.raises(UsageError, match=r'env\.MODE: "/a/path" -> "/another"'):
        check(run_dir, resolved(*named, "env.COOKIE=hunter22", "env.MODE=/another"))
