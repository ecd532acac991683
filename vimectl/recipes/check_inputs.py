"""Everything about model and data that can be known wrong before anything heavy starts, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed, UsageError
from vime_runtime.spec.recipe import DataTable, Recipe
from vime_runtime.spec.safetensors_header import INCOMPLETE, read_directory, read_json

from vimectl.recipes.families import family_of, has_experts
from vimectl.util.host import Host

# Any one of these makes a tokenizer: the fast format, SentencePiece, byte-level BPE.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")

TASKS = "vime_runtime.data.reasoning_gym"
# To import the library of tasks and make one: a second on an idle machine.
TASK_SECONDS = 120

# As the safetensors format spells the dtypes that can be trained from.
DTYPES = ("BF16", "F16", "F32")


def check(recipe: Recipe, besides: Path | None = None) -> None:
    """Check the model directory, its fit to the recipe, and every line of the data.

    Args:
        besides: a folder that is yet to be made; what lies in it is not looked at.

    Raises:
        UsageError: what is wrong first, with file, tensor or line, and the mend.
    """
    model, data = Path(recipe.model.path), Path(recipe.data.path)
    if besides not in model.parents:
        check_fit(recipe, check_model(model))
        if recipe.data.apply_chat_template:
            check_chat_template(model)
    if besides not in data.parents:
        check_data(recipe.data)
    own = recipe.evaluation.path
    if own and recipe.evaluation.every and besides not in Path(own).parents:
        check_data(recipe.data.model_copy(update={"path": own}))


def check_model(directory: Path) -> dict[str, Any]:
    """Check that a directory is a whole model of a known family.

    Returns:
        Its ``config.json``, with the numbers that it leaves to the family.
    """
    config_file = directory / "config.json"
    if not directory.is_dir():
        raise UsageError(f"no model directory at {directory}", "give an existing one: --set model.path=DIR")
    if not config_file.is_file():
        raise UsageError(
            f"{directory} has no config.json",
            "model.path must name a Hugging Face model directory, as save_pretrained writes it",
        )
    config = read_json(config_file)
    family = family_of(config, str(config_file))
    if "quantization_config" in config:
        raise UsageError(f"{config_file}: the model is quantised", "train from the unquantised checkpoint")
    if not any((directory / name).is_file() for name in TOKENIZERS):
        raise UsageError(
            f"{directory} has no tokenizer: none of {', '.join(TOKENIZERS)}",
            "put the model's tokenizer files into the directory",
        )
    _check_tensors(directory, family.expected(config, str(config_file)))
    return family.completed(config, str(config_file))


def _check_tensors(directory: Path, expected: dict[str, tuple[int, ...]]) -> None:
    stored = read_directory(directory)
    missing = [name for name in expected if name not in stored]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"{directory} has no tensor {missing[0]}{more}; config.json calls for it", INCOMPLETE
        )
    for name, shape in expected.items():
        tensor = stored[name]
        if tensor.shape != shape:
            raise UsageError(
                f"{tensor.file}: tensor {name} has shape {list(tensor.shape)}; "
                f"config.json makes it {list(shape)}",
                "weights and config.json are of different models: take both from one checkpoint",
            )
        if tensor.dtype not in DTYPES:
            raise UsageError(
                f"{tensor.file}: tensor {name} is {tensor.dtype}; supported are {', '.join(DTYPES)}",
                "save the model in bfloat16 or float32",
            )


def check_fit(recipe: Recipe, config: dict[str, Any]) -> None:
    """Check that the model can be split as the recipe asks and that its context is long enough."""
    check_splits(recipe, config)
    check_context(recipe, config)


def check_splits(recipe: Recipe, config: dict[str, Any]) -> None:
    """Check that the ranks of both sides can share the model. Raises UsageError: every size that would do."""
    train, rollout = recipe.train, recipe.rollout
    for side, size, divided, repeats in (
        ("train", train.tensor_parallel, train.expert_parallel > 1, False),
        # vLLM repeats key/value heads over ranks when there are fewer heads than ranks.
        ("rollout", rollout.tensor_parallel, rollout.expert_parallel, True),
    ):
        _check_split(side, size, config, divided, repeats)
    _check_experts("train", train.expert_parallel, config)
    _check_experts("rollout", rollout.tensor_parallel if rollout.expert_parallel else 1, config)


def check_context(recipe: Recipe, config: dict[str, Any]) -> None:
    """Check that prompt and response fit into the model's context. Raises UsageError when they do not."""
    tokens = recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens
    context = config["max_position_embeddings"]
    if tokens > context:
        raise UsageError(
            f"rollout.max_prompt_tokens + max_response_tokens is {tokens}; the model's context is {context}",
            "lower one of the two",
        )


def _check_experts(side: str, ranks: int, config: dict[str, Any]) -> None:
    """Check that so many ranks can have as many experts each. One rank: they are not divided."""
    if ranks == 1:
        return
    if not has_experts(config):
        raise UsageError(f"{side}.expert_parallel is on, but the model has no experts", "leave it out")
    if config["num_experts"] % ranks:
        raise UsageError(
            f"{ranks} ranks ({side}.expert_parallel) do not divide the {config['num_experts']} experts",
            "use as many ranks as divide them",
        )


def _check_split(side: str, size: int, config: dict[str, Any], divided: bool, repeats: bool) -> None:
    """Check that ``size`` ranks can share the model; the error names every size that would do.

    ``divided``: each expert is whole on one rank. ``repeats``: ranks may have the same key/value head.
    """
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    columns = config["moe_intermediate_size" if has_experts(config) else "intermediate_size"]
    whole = divided and has_experts(config)

    def misfit(size: int) -> str | None:
        if heads % size:
            return f"{heads} attention heads"
        if groups % size and not (repeats and size % groups == 0):
            return f"{groups} key/value heads"
        return f"{columns} MLP columns" if columns % size and not whole else None

    if (what := misfit(size)) is not None:
        fitting = [str(n) for n in range(1, heads + 1) if misfit(n) is None]
        raise UsageError(
            f"{side}.tensor_parallel = {size} does not divide the model's {what}",
            f"--set {side}.tensor_parallel=N with N one of {', '.join(fitting)}",
        )


def check_chat_template(directory: Path) -> None:
    """Check that a model directory has a chat template. Raises UsageError when it has none."""
    tokenizer = directory / "tokenizer_config.json"
    if (directory / "chat_template.jinja").is_file():
        return
    if not tokenizer.is_file() or "chat_template" not in read_json(tokenizer):
        raise UsageError(
            f"data.apply_chat_template is on, but {directory} has no chat template",
            "--set data.apply_chat_template=false, or add chat_template.jinja to the directory",
        )


def check_data(data: DataTable) -> None:
    """Check every line of the data file, a JSON object with a prompt and a label, or a task's settings."""
    if data.task is not None:
        check_task(data, Host())
        return
    path = Path(data.path)
    if not path.is_file():
        raise UsageError(f"no data file at {path}", "give an existing one: --set data.path=FILE")
    lines = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                lines += 1
                _check_line(line, f"{path}:{number}", data)
    if not lines:
        raise UsageError(f"{path} is empty", "one JSON object a line is expected")


def check_task(data: DataTable, host: Host) -> None:
    """Let the runtime say whether the task exists and takes its settings: the library is not the tool's.

    Raises:
        UsageError: it does not exist, or does not take them.
        CheckFailed: nothing could be learnt.
    """
    child = host.run([host.python, "-m", TASKS, data.path, json.dumps(data.settings)], TASK_SECONDS)
    if child.code == 0:
        return
    if child.code == UsageError.exit_code and child.stdout.startswith("{"):
        raise UsageError(**json.loads(child.stdout))
    last = child.stderr.strip().splitlines()[-1:]
    raise CheckFailed(f"checking {data.path} ended with exit code {child.code}: {''.join(last)}")


def _check_line(line: bytes, where: str, data: DataTable) -> None:
    try:
        entry = json.loads(line)
    except ValueError as e:
        raise UsageError(f"{where}: not JSON: {e}", "one JSON object a line is expected") from e
    if not isinstance(entry, dict):
        raise UsageError(
            f"{where}: expected a JSON object, found {type(entry).__name__}", "see [data] in the recipe"
        )
    for key, name in (("prompt_key", data.prompt_key), ("label_key", data.label_key)):
        if name not in entry:
            found = ", ".join(sorted(entry)) or "none"
            raise UsageError(
                f"{where}: no key {name!r}; keys found: {found}",
                f"add it, or name another: --set data.{key}=KEY",
            )
    if not isinstance(entry[data.label_key], str):
        raise UsageError(f"{where}: {data.label_key!r} should be text", "write the label as a string")
    _check_prompt(entry[data.prompt_key], where, data)


def _check_prompt(prompt: Any, where: str, data: DataTable) -> None:
    if isinstance(prompt, str):
        return
    messages = isinstance(prompt, list) and prompt
    if not messages or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in prompt
    ):
        raise UsageError(
            f'{where}: {data.prompt_key!r} should be text or a list of {{"role", "content"}}',
            "correct the line",
        )
    if not data.apply_chat_template:
        raise UsageError(
            f"{where}: a list of messages needs the model's chat template",
            "--set data.apply_chat_template=true",
        )
