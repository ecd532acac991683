from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.safetensors_header import read_directory

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


def test_shards_with_an_index_pass(write_model: WriteModel, data: Path) -> None:
    model = write_model()
    names = list(read_directory(model))
    (model / "model.safetensors").rename(model / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(names, "model-00001-of-00001.safetensors")
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    check(model, data)
    index.write_text(json.dumps({"weight_map": weight_map | {"lm_head.weight": "model-2.safetensors"}}))
    with pytest.raises(UsageError, match=r"names the shard model-2.safetensors, which does not exist"):
        check(model, data)
    (model / "model-2.safetensors").write_bytes((model / "model-00001-of-00001.safetensors").read_bytes())
    with pytest.raises(UsageError, match=r"model-2.safetensors does not contain lm_head.weight"):
        check(model, data)


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
        (
            {"num_attention_heads": 3},
            r"train.tensor_parallel = 2 does not divide the model's 3 attention heads",
        ),
        (
            {"num_key_value_heads": 1},
            r"train.tensor_parallel = 2 does not divide the model's 1 key/value heads",
        ),
        ({"intermediate_size": 9}, r"does not divide the model's 9 MLP columns"),
        ({"max_position_embeddings": 32}, r"is \d+; the model's context is 32"),
    ],
)
def test_a_model_that_does_not_suit_says_why(
    write_model: WriteModel, data: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(write_model(**config), data)


EXPERTS = {"model_type": "qwen3_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 9}


@pytest.mark.parametrize(
    ("config", "assignments", "message"),
    [
        ({}, ["train.expert_parallel=2"], r"train.expert_parallel is on, but the model has no experts"),
        (EXPERTS, [], r"train.tensor_parallel = 2 does not divide the model's 9 MLP columns"),
        # Whole experts in the trainer, their rows in the engine.
        (EXPERTS, ["train.expert_parallel=2"], r"rollout.tensor_parallel = 2 does not divide the model's 9"),
        (
            EXPERTS | {"moe_intermediate_size": 8},
            ["train.expert_parallel=4", "cluster.devices_per_node=4"],
            r"4 ranks \(train.expert_parallel\) do not divide the 6 experts",
        ),
    ],
)
def test_experts_that_do_not_suit_say_why(
    write_model: WriteModel, data: Path, config: dict[str, Any], assignments: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check(write_model(**config), data, *assignments)


def test_experts_that_can_be_divided_pass(write_model: WriteModel, data: Path) -> None:
    check(write_model(**EXPERTS | {"moe_intermediate_size": 8}), data, "train.expert_parallel=2")


def test_a_size_that_cannot_split_the_model_is_answered_with_all_that_can(
    write_model: WriteModel, data: Path
) -> None:
    """As SmolLM2-135M: 9 divides the heads, but not the 3 key/value heads, nor the MLP in the engine."""
    model = write_model(
        model_type="llama",
        hidden_size=18,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
    )
    for train, rollout, side in ((9, 1, "train"), (1, 2, "rollout"), (1, 9, "rollout")):
        with pytest.raises(UsageError, match=f"{side}.tensor_parallel = ") as error:
            check(
                model,
                data,
                "cluster.devices_per_node=18",
                f"train.tensor_parallel={train}",
                f"rollout.tensor_parallel={rollout}",
            )
        assert error.value.hint == f"--set {side}.tensor_parallel=N with N one of 1, 3"


@pytest.mark.parametrize("model_type", ["llama", "qwen2"])
def test_a_config_may_leave_the_head_size_to_its_family(
    write_model: WriteModel, data: Path, model_type: str
) -> None:
    check(write_model(model_type=model_type, head_dim=None), data)


def test_fewer_key_value_heads_than_ranks_are_the_engines_to_repeat(
    write_model: WriteModel, data: Path
) -> None:
    check(write_model(num_key_value_heads=1), data, "train.tensor_parallel=1")


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
        (lambda m: (m / "model.safetensors").unlink(), r"neither model.safetensors nor"),
        (lambda m: (m / "model.safetensors").write_bytes(b"GGUF" * 9), r"not a safetensors file"),
        (lambda m: (m / "model.safetensors").write_bytes(b""), r"not a safetensors file"),
        (
            lambda m: (m / "model.safetensors").write_bytes((m / "model.safetensors").read_bytes()[:-1]),
            r"model.safetensors has \d+ bytes; its header calls for \d+",
        ),
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
