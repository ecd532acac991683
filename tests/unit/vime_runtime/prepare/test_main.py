from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from vime_runtime.prepare.__main__ import prepare
from vime_runtime.spec.errors import UsageError

# Stops after a few steps, as soon as the model is better than at random.
SHORT = {"known_accuracy": 0.0001, "accuracy_low": 0.0, "accuracy_high": 1.0}


def _run(kind: str, out_dir: Path, settings: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """Prepare in a separate process, offline; return its exit code and its lines."""
    done = subprocess.run(
        [sys.executable, "-m", "vime_runtime.prepare", kind, str(out_dir), json.dumps(settings)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


# Two digits take half the time of the default recipe's three.
QUICK = {"digits": 2, "problems": 40}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Return a prepared folder and the lines that were printed while it was made."""
    out_dir = tmp_path_factory.mktemp("prepared")
    code, lines = _run("reversed-digits", out_dir, QUICK)
    assert code == 0
    return out_dir, lines


def test_progress_is_reported_as_phase_events(made: tuple[Path, list[dict[str, Any]]]) -> None:
    _, lines = made
    steps = [line["step"] for line in lines]
    assert all((line["kind"], line["phase"]) == ("phase", "prepare") for line in lines)
    assert steps == sorted(steps)
    assert steps[-1] < lines[-1]["steps"]
    assert lines[-1]["detail"].startswith("noisy labels")


def test_the_model_is_a_qwen3_of_three_million_parameters(made: tuple[Path, Any]) -> None:
    model = AutoModelForCausalLM.from_pretrained(made[0] / "model", local_files_only=True)
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert model.dtype == torch.bfloat16
    assert 3.0e6 < model.num_parameters() < 3.4e6
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_sampled_answers_have_the_target_accuracy(made: tuple[Path, Any]) -> None:
    out_dir, _ = made
    tokenizer = AutoTokenizer.from_pretrained(out_dir / "model", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(out_dir / "model", dtype=torch.float32)
    problems = [json.loads(line) for line in (out_dir / "problems.jsonl").read_text().splitlines()]
    assert len(problems) == QUICK["problems"]
    torch.manual_seed(0)
    problems *= 16
    prompts = tokenizer([problem["prompt"] for problem in problems], return_tensors="pt", padding=True)
    # temperature 1 and no truncation, as the recipe samples
    sampled = model.generate(**prompts, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=5)
    answers = tokenizer.batch_decode(sampled[:, prompts.input_ids.shape[1] :], skip_special_tokens=True)
    right = sum(answer == problem["label"] for answer, problem in zip(answers, problems, strict=True))
    # 640 samples: the target range of 0.25 to 0.38, three standard deviations wider
    assert 0.19 < right / len(problems) < 0.44


def test_generation_stops_at_the_end_token(made: tuple[Path, Any]) -> None:
    generation = GenerationConfig.from_pretrained(made[0] / "model")
    tokenizer = AutoTokenizer.from_pretrained(made[0] / "model")
    assert generation.eos_token_id == tokenizer.eos_token_id
    assert generation.pad_token_id == tokenizer.pad_token_id


def test_bytes_depend_on_the_seed_only(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        prepare("reversed-digits", tmp_path / name, {**SHORT, "seed": seed})
    for file in ("model/model.safetensors", "model/tokenizer.json", "problems.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    for file in ("model/model.safetensors", "problems.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("reversed-words", {}, "unknown kind in [prepare]: 'reversed-words'"),
        ("reversed-digits", {"digit": 3}, "unknown key in [prepare.settings]: 'digit'"),
        ("reversed-digits", {"digits": "3"}, "prepare.settings.digits: expected int, found '3'"),
        ("reversed-digits", {"digits": 1, "problems": 10}, "expected 1 to 9"),
        ("reversed-digits", {"max_steps": 1}, "the accuracy is 0.00 after 1 steps of warm-up"),
    ],
)
def test_bad_settings_raise_and_leave_no_model(
    tmp_path: Path, kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        prepare(kind, tmp_path / "out", settings)
    assert message in error.value.message
    assert not (tmp_path / "out" / "model").exists()


def test_bad_input_prints_an_error_and_exits_with_2(tmp_path: Path) -> None:
    code, (error,) = _run("reversed-words", tmp_path, {})
    assert code == 2
    assert error["kind"] == "error"
    assert error["error"]["hint"] == "known: gguf, reversed-digits"


def test_it_is_killed_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'vime_runtime.prepare', 'reversed-digits', sys.argv[1], '{}']\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    assert select.select([child], [], [], 10)[0]
    os.close(child)
