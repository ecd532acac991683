from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import REPLACED_KEYS

from vimectl.recipes.catalog import shipped_recipes
from vimectl.recipes.resolve import load_recipe, resolve


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_is_valid_and_called_as_its_file(name: str) -> None:
    assert load_recipe(shipped_recipes()[name]).recipe.name == name


def test_the_big_recipe_has_the_published_figures() -> None:
    resolved = resolve("qwen3-4b-tp2")
    recipe = resolved.recipe
    assert (resolved.mode, resolved.steps) == ("test", 20)
    assert (recipe.modes.smoke.steps, recipe.modes.long.steps) == (4, 500)
    assert (recipe.cluster.device, recipe.cluster.devices, recipe.recipe.stack) == ("npu", 8, "ascend-0.22")
    assert (recipe.train.tensor_parallel, recipe.rollout.tensor_parallel) == (2, 2)
    assert (recipe.algorithm.prompts_per_step, recipe.algorithm.samples_per_prompt) == (32, 8)
    assert (recipe.optimizer.lr, recipe.optimizer.beta2, recipe.rollout.max_response_tokens) == (
        1e-6,
        0.98,
        2048,
    )


def test_a_copy_is_found_by_its_path(tmp_path: Path) -> None:
    copy = tmp_path / "mine.toml"
    copy.write_bytes(shipped_recipes()["qwen3-tiny-tp2"].read_bytes())
    resolved = resolve(str(copy), mode="smoke")
    assert (resolved.source, resolved.steps) == (copy, 4)


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = resolve("qwen3-tiny-tp2", assignments=["model.path=here", "data.path=~/there"]).recipe
    assert recipe.model.path == str(tmp_path / "here")
    assert recipe.data.path == str(Path.home() / "there")


def test_prepared_stands_for_a_folder_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Path(resolve("qwen3-tiny-tp2").recipe.model.path).is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("qwen3-tiny", None, r"unknown recipe 'qwen3-tiny'. Did you mean qwen3-tiny-tp2"),
        ("./nowhere.toml", None, r"no recipe file at nowhere.toml"),
        ("qwen3-tiny-tp2", "tset", r"unknown mode 'tset'. Did you mean test"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest(name: str, mode: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(name, mode)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["train.tensor_parallel=3"], r"'train.tensor_parallel': 3 does not divide the 2 devices"),
        (["cluster.nodes=2", "rollout.tensor_parallel=4"], r"an engine runs on one node"),
        (
            ["cluster.nodes=2", "cluster.devices_per_node=3", "train.tensor_parallel=1"],
            r"'rollout.tensor_parallel': 2 does not divide the 3 devices of one node",
        ),
        (["cluster.devices_per_node=4", "train.expert_parallel=3"], r"3 is neither 1 nor a multiple of"),
        (["train.expert_parallel=4"], r"'train.expert_parallel': 4 does not divide the 2 devices"),
        (["rollout.expert_parallel=true"], r"'rollout.expert_parallel': vLLM's kernel for a CPU"),
        (["algorithm.updates_per_step=17"], r"'algorithm.updates_per_step': 17 is more than the 16 prompts"),
        (["evaluation.temperature=0.005"], r"'evaluation.temperature': 0.005 is neither 0 \(greedy\) nor"),
        (["evaluation.temperature=2.1"], r"evaluation.temperature"),
        (["rollout.temperature=0.005"], r"rollout.temperature"),
        (["rollout.temperature=2.1"], r"rollout.temperature"),
        (["rollout.stop=['']"], r"rollout.stop"),
        (["data.reward=exact"], r"'data.reward': 'exact' is none of exact-match, math-verify"),
        (["data.reward=verifier"], r"'data.reward': 'verifier', but only data.path = 'reasoning_gym:TASK'"),
        (["data.settings.size=3"], r"'data.settings': size, but data.path is a file"),
        (["data.system_prompt=Hello"], r"'data.system_prompt': it needs data.apply_chat_template"),
        (["data.answer=last"], r"data.answer"),
        (
            ["data.path=reasoning_gym:gcd", "data.prompt_key=q"],
            r"'data.prompt_key': a reasoning_gym:gcd has no",
        ),
        (["prepare.settings.file={fetched}"], r"'{fetched}' is used but there is no \[prepare.fetch\] table"),
        (["optimizer.min_lr=1.0"], r"'optimizer.min_lr': 1 is above lr"),
        (["cluster.device=npu", "train.tensor_parallel=3"], r"'train.tensor_parallel'"),
    ],
)
def test_contradictions_are_found(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("qwen3-tiny-tp2", assignments=assignments)


def test_a_task_has_its_verifier_and_the_seed_of_the_run_unless_others_are_given() -> None:
    own = ["algorithm.seed=7", "data.settings.size=100"]
    data = resolve("smollm2-135m", assignments=own).recipe.data
    assert (data.path, data.reward) == ("reasoning_gym:basic_arithmetic", "verifier")
    assert (data.settings["seed"], data.settings["size"], data.settings["operators"]) == (7, 100, ["+"])
    other = resolve(
        "smollm2-135m", assignments=["data.reward=exact-match", "data.settings.seed=3"]
    ).recipe.data
    assert (other.reward, other.settings["seed"]) == ("exact-match", 3)


def test_the_settings_of_a_task_go_with_it(tmp_path: Path) -> None:
    task = resolve("smollm2-135m", assignments=["data.settings.size=9", "data.path=reasoning_gym:gcd"]).recipe
    assert task.data.settings == {"size": 9, "seed": 0}
    file = resolve("smollm2-135m", assignments=[f"data.path={tmp_path}/d.jsonl"]).recipe
    assert (file.data.settings, file.data.reward) == ({}, "exact-match")


def edited(folder: Path, old: str, new: str) -> Path:
    """Write the default recipe with another text in place of ``old``."""
    path = folder / "r.toml"
    path.write_text(shipped_recipes()["qwen3-tiny-tp2"].read_text().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kv_cache_bytes", "# kv_cache_bytes", r"'rollout.kv_cache_bytes': needed on a CPU"),
        ("temperature", "temprature", r"unknown key 'rollout.temprature'. Did you mean temperature"),
    ],
)
def test_an_error_of_a_file_names_it(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"r.toml: {message}"):
        load_recipe(edited(tmp_path, old, new))


@pytest.mark.parametrize("key", REPLACED_KEYS)
def test_a_replaced_key_is_refused_with_what_to_write(tmp_path: Path, key: str) -> None:
    table, _, name = key.partition(".")
    path = edited(tmp_path, f"[{table}]\n", f"[{table}]\n{name} = 1\n")
    with pytest.raises(UsageError, match=f"r.toml: the key '{key}' does not exist any more") as error:
        load_recipe(path)
    assert error.value.hint == REPLACED_KEYS[key]
    with pytest.raises(UsageError, match="this key does not exist any more") as error:
        resolve("qwen3-tiny-tp2", assignments=[f"{key}=1"])
    assert error.value.hint == REPLACED_KEYS[key]
