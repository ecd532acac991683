from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.recipes import check_inputs
from vimectl.recipes.resolve import resolve

WriteModel = Callable[..., Path]


def check(model: Path, data: Path, *assignments: str) -> None:
    own = [f"model.path={model}", f"data.path={data}", "rollout.kv_cache_bytes=1", *assignments]
    check_inputs.check(resolve("qwen3-tiny-tp2", assignments=own).recipe)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "1 2", "label": "2"}\n\n{"prompt": "3 1", "label": "3"}\n')
    return path


@pytest.mark.parametrize("tied", [True, False])
def test_a_whole_model_and_good_data_pass(write_model: WriteModel, data: Path, tied: bool) -> None:
    check(write_model(tie_word_embeddings=tied), data)


def pop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda header: header.pop(name)


def reshape(name: str, shape: list[int]) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[name].update(shape=shape)


NORM = "model.layers.1.self_attn.q_norm.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pop(NORM), rf"has no tensor {NORM}; config.json calls for it"),
        (
            reshape("model.norm.weight", [2, 4]),
            r"model.norm.weight has shape \[2, 4\]; config.json makes it \[8\]",
        ),
        (
            lambda header: [entry.update(dtype="F8_E4M3") for entry in header.values()],
            r"is F8_E4M3; supported are BF16, F16, F32",
        ),
        (
            lambda header: [header.pop(name) for name in list(header) if "layers.1" in name],
            r"and 10 more",
        ),
    ],
)
def test_a_wrong_tensor_is_named(write_model: WriteModel, data: Path, change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(write_model(change), data)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tie_word_embeddings": False, "model_type": "qwen3", "quantization_config": {}}, r"is quantized"),
        ({"attention_bias": True}, r"attention_bias is True; supported is False only"),
        ({"num_attention_heads": 3}, r"train.tensor_parallel = 2 does not divide the model's 3 attention"),
        ({"max_position_embeddings": 32}, r"is \d+; the model's context is 32"),
    ],
)
def test_a_model_that_does_not_suit_says_why(
    write_model: WriteModel, data: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(write_model(**config), data)


def test_the_engine_is_checked_too(write_model: WriteModel, data: Path) -> None:
    """Whole experts in the trainer, their rows in the engine."""
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 9}
    with pytest.raises(UsageError, match=r"rollout.tensor_parallel = 2 does not divide the model's 9"):
        check(write_model(model_type="qwen3_moe", **experts), data, "train.expert_parallel=2")


def edit_config(model: Path, **change: Any) -> None:
    config = json.loads((model / "config.json").read_text()) | change
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "config.json").unlink(), r"has no config.json"),
        (lambda m: (m / "config.json").write_text("{"), r"config.json: not readable as JSON"),
        (lambda m: (m / "config.json").write_text("[]"), r"expected a JSON object, found list"),
        (
            lambda m: edit_config(m, model_type="qwen33"),
            r"unknown model_type .* 'qwen33'. Did you mean qwen3",
        ),
        (lambda m: edit_config(m, hidden_size=None), r"hidden_size should be a positive number, found None"),
        (lambda m: (m / "tokenizer.json").unlink(), r"has no tokenizer"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), r"not a safetensors file"),
    ],
)
def test_a_damaged_directory_is_named(write_model: WriteModel, data: Path, damage: Any, message: str) -> None:
    model = write_model()
    damage(model)
    with pytest.raises(UsageError, match=message):
        check(model, data)


def test_a_model_that_is_not_there(tmp_path: Path, data: Path) -> None:
    with pytest.raises(UsageError, match=r"no model directory at .*nowhere") as error:
        check(tmp_path / "nowhere", data)
    assert "--set model.path=" in error.value.hint


def test_every_line_of_the_data_is_checked(write_model: WriteModel, data: Path) -> None:
    data.write_text(data.read_text() + '{"prompt": "1 2"}\n')
    with pytest.raises(UsageError, match=r"data.jsonl:4: no key 'label'"):
        check(write_model(), data)


def test_the_files_of_evaluation_sets_are_checked(write_model: WriteModel, data: Path) -> None:
    other = data.with_name("other.jsonl")
    other.write_text('{"prompt": "1 2"}\n')
    model = write_model()
    for key in ("path", "sets.hard.path"):
        with pytest.raises(UsageError, match=r"other.jsonl:1: no key 'label'"):
            check(model, data, "evaluation.every=1", f"evaluation.{key}={other}")


def test_parquet_is_left_to_the_runtime(write_model: WriteModel, data: Path) -> None:
    data.write_bytes(b"PAR1")
    check(write_model(), data)


def test_a_chat_template_is_looked_for(write_model: WriteModel, data: Path) -> None:
    model = write_model()
    with pytest.raises(UsageError, match=r"has no chat template"):
        check(model, data, "data.apply_chat_template=true")
    (model / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    check(model, data, "data.apply_chat_template=true")


def test_what_is_yet_to_be_made_is_not_looked_at(write_model: WriteModel, data: Path, tmp_path: Path) -> None:
    own = [f"model.path={write_model()}", f"data.path={tmp_path}/made/data.jsonl"]
    recipe = resolve("qwen3-tiny-tp2", assignments=own).recipe
    check_inputs.check(recipe, prepared_later=tmp_path / "made")
    with pytest.raises(UsageError, match="no data file"):
        check_inputs.check(recipe)


@pytest.mark.skipif(
    find_spec("reasoning_gym") is None, reason="the tool alone is installed, without the runtime"
)
def test_a_task_is_checked_by_the_runtime(write_model: WriteModel) -> None:
    model = write_model()
    check(model, Path("reasoning_gym:gcd"))
    with pytest.raises(UsageError, match=r"has no task 'gdc'. Did you mean gcd"):
        check(model, Path("reasoning_gym:gdc"))
    with pytest.raises(UsageError, match=r"has no setting 'sise'. Did you mean size") as error:
        check(model, Path("reasoning_gym:gcd"), "data.settings.sise=3")
    assert "it has min_numbers" in error.value.hint
