from __future__ import annotations

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.recipes.resolve import resolve


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("optimizer.lr=2e-5", ("optimizer", "lr"), 2e-5),
        ("optimizer.lr=1", ("optimizer", "lr"), 1),
        ("train.recompute=true", ("train", "recompute"), True),
        ("sync.bucket_bytes=1_000", ("sync", "bucket_bytes"), 1000),
        ("recipe.description=two words", ("recipe", "description"), "two words"),
        ('recipe.description="quoted"', ("recipe", "description"), "quoted"),
        ("recipe.description=2024", ("recipe", "description"), "2024"),
        ("env.OMP_NUM_THREADS=3", ("env", "OMP_NUM_THREADS"), "3"),
        ("modes.test.steps=7", ("modes", "test", "steps"), 7),
        ("env.A.B=3", ("env", "A.B"), "3"),
        ("rollout.top_k=20", ("rollout", "top_k"), 20),
        ("memory.offload_dir=7", ("memory", "offload_dir"), "7"),
        ('rollout.stop=["\\n"]', ("rollout", "stop"), ["\n"]),
        ("rollout.engine.seed=7", ("rollout", "engine", "seed"), 7),
        ("rollout.engine.quantization=fp8", ("rollout", "engine", "quantization"), "fp8"),
        (
            "evaluation.sets.gcd.path=reasoning_gym:gcd",
            ("evaluation", "sets", "gcd", "path"),
            "reasoning_gym:gcd",
        ),
    ],
)
def test_a_value_is_read_as_toml_and_typed_by_the_schema(
    assignment: str, path: tuple[str, ...], value: object
) -> None:
    found = resolve("qwen3-tiny-tp2", assignments=[assignment]).recipe.model_dump()
    for key in path:
        found = found[key]
    assert found == value


def test_a_named_evaluation_set_is_made_of_several_assignments() -> None:
    path, terms = (
        "evaluation.sets.sums.path=reasoning_gym:chain_sum",
        "evaluation.sets.sums.settings.max_terms=3",
    )
    sets = resolve("qwen3-tiny-tp2", assignments=[path, terms]).recipe.evaluation.sets
    assert sets["sums"].settings["max_terms"] == 3


@pytest.mark.parametrize(
    ("text", "spelling"),
    [("wandb", '["wandb"]'), ("[wandb, mlflow]", '["wandb", "mlflow"]'), ('"wandb"', '["wandb"]')],
)
def test_a_list_that_is_not_quoted_for_the_shell_is_an_error_with_the_right_spelling(
    text: str, spelling: str
) -> None:
    with pytest.raises(UsageError, match=r"watch\.trackers is a list") as caught:
        resolve("qwen3-tiny-tp2", assignments=[f"watch.trackers={text}"])
    assert caught.value.hint == f"write --set 'watch.trackers={spelling}'"


def test_the_last_of_two_values_holds() -> None:
    recipe = resolve("qwen3-tiny-tp2", assignments=["algorithm.seed=1", "algorithm.seed=2"]).recipe
    assert recipe.algorithm.seed == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimzer.lr=1", r"unknown key 'optimzer.lr'.*optimizer.lr"),
        ("modelpath=x", r"unknown key 'modelpath'.*model.path"),
        ("model=x", r"unknown key 'model'"),
        ("env=x", r"unknown key 'env'"),
        ("env.=x", r"unknown key 'env.'"),
        ("evaluation.sets.gcd=x", r"unknown key 'evaluation.sets.gcd'.*evaluation.sets.NAME.path"),
        ("evaluation.sets.gcd.pth=x", r"unknown key 'evaluation.sets.gcd.pth'.*evaluation.sets.NAME.path"),
        ("evaluation.sets.gcd.problems=x", r"'evaluation.sets.gcd.problems': .*integer, found 'x'"),
        ("evaluation.sets.Gcd.path=x", r"'evaluation.sets.Gcd.*match pattern"),
        ("sync.mode=bridge", "sync.mode: this key does not exist any more"),
        ("model.path", r"no '='"),
        ("optimizer.lr=fast", r"'optimizer.lr': .*number, found 'fast'"),
        ("train.tensor_parallel=1.5", r"'train.tensor_parallel': .*integer, found 1.5"),
        ("model.dtype=float16", r"'model.dtype': .*'bfloat16' or 'float32', found 'float16'"),
    ],
)
def test_a_wrong_key_or_value_is_named(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("qwen3-tiny-tp2", assignments=[assignment])
