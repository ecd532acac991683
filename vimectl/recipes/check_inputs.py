"""Check model and data of a recipe before anything is started, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vime_runtime.spec.data_lines import is_parquet, read_lines
from vime_runtime.spec.errors import CheckFailed, UsageError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_directory import read_model_directory
from vime_runtime.spec.model_shape import ModelShape, check_context, check_engine_split, check_trainer_split
from vime_runtime.spec.recipe import DataTable, Recipe
from vime_runtime.spec.safetensors_header import INCOMPLETE, Locate

from vimectl.recipes import vllm_arguments
from vimectl.util.host import Host

# One of these files is enough: the fast format, SentencePiece, byte-level BPE.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")

TASKS = "vime_runtime.data.reasoning_gym"
# Seconds to import the library and make a task: one on an idle machine.
TASK_SECONDS = 120


def check(recipe: Recipe, prepared_later: Path | None = None) -> None:
    """Check the model directory, whether it fits the recipe, and every line of the data.

    Args:
        prepared_later: a folder that does not exist yet; files in it are not checked.

    Raises:
        UsageError: the first error, with file, tensor or line, and how to fix it.
    """
    vllm_arguments.check(recipe, Host())
    model = Path(recipe.model.path)
    if prepared_later not in model.parents:
        shape = check_model(model)
        check_splits(recipe, shape)
        check_context(recipe, shape)
        if recipe.data.apply_chat_template:
            check_chat_template(model)
    tables = [recipe.data, *recipe.evaluation_sets().values()]
    for table in {table.model_dump_json(): table for table in tables}.values():
        if prepared_later not in Path(table.path).parents:
            check_data(table)


def check_model(directory: Path, locate: Locate | None = None) -> ModelShape:
    """Check that a directory is a complete model with a tokenizer. Return the shape of the model.

    ``locate`` returns where to read a file of the directory, by name; default: in it.
    """
    with _readable():
        shape = read_model_directory(directory, locate).shape
        if not any((locate or directory.joinpath)(name).is_file() for name in TOKENIZERS):
            raise UsageError(
                f"{directory} has no tokenizer: none of {', '.join(TOKENIZERS)}",
                "put the model's tokenizer files into the directory",
            )
        return shape


def check_splits(recipe: Recipe, shape: ModelShape) -> None:
    """Check that the ranks of trainer and engine can share the model. Raises UsageError if they cannot."""
    check_trainer_split(recipe, shape)
    check_engine_split(recipe, shape)


def check_chat_template(directory: Path, locate: Locate | None = None) -> None:
    """Check that a model directory has a chat template, see check_model. Raises UsageError without one."""
    locate = locate or directory.joinpath
    with _readable():
        tokenizer = locate("tokenizer_config.json")
        if locate("chat_template.jinja").is_file():
            return
        if not tokenizer.is_file() or "chat_template" not in read_json(tokenizer, INCOMPLETE):
            raise UsageError(
                f"data.apply_chat_template is on, but {directory} has no chat template",
                "--set data.apply_chat_template=false, or add chat_template.jinja to the directory",
            )


def check_data(data: DataTable) -> None:
    """Check every line of JSON lines, or a task's settings. Only the runtime can read parquet."""
    if data.task is not None:
        check_task(data, Host())
    elif not is_parquet(Path(data.path)):
        for _ in read_lines(data):
            pass


@contextmanager
def _readable() -> Iterator[None]:
    """Turn an error of the operating system into a UsageError that names the file."""
    try:
        yield
    except OSError as e:
        raise UsageError(f"{e.filename}: {e.strerror}", "make it readable for this user") from e


def check_task(data: DataTable, host: Host) -> None:
    """Check task and settings in a process of the runtime: the tool does not have the library.

    Raises:
        UsageError: there is no such task, or it refuses the settings.
        CheckFailed: the check itself failed.
    """
    child = host.run([host.python, "-m", TASKS, data.path, json.dumps(data.settings)], TASK_SECONDS)
    if child.code == 0:
        return
    if child.code == UsageError.exit_code and child.stdout.startswith("{"):
        raise UsageError(**json.loads(child.stdout))
    last = child.stderr.strip().splitlines()[-1:]
    raise CheckFailed(f"checking {data.path} ended with exit code {child.code}: {''.join(last)}")
