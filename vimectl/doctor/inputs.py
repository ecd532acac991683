"""recipe: model and data, and whether what they need fits; the same code as `vimectl run` begins with."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import DataTable, Recipe

from vimectl.doctor import memory_fit
from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.doctor.subject_model import config, made_later, model_directory, without_root
from vimectl.recipes import check_inputs as checked
from vimectl.stacks.installed import distributions, site_directories
from vimectl.stacks.schema import Stack

# What `vimectl run` says of by itself, with an exit code of its own.
INPUTS = (
    "recipe.model",
    "recipe.tensor-parallel",
    "recipe.context",
    "recipe.chat-template",
    "recipe.data",
    "recipe.evaluation-data",
)
# What brings the rewards that have a name.
_BRINGS = {"math-verify": "math-verify", "verifier": "reasoning-gym"}

_Examine = Callable[[Subject, Recipe], Outcome]


def checks(stack: Stack) -> list[Check]:
    found = [
        Check(
            "recipe.model", "each tensor that config.json calls for, in its shape, and a tokenizer", _model
        ),
        Check(
            "recipe.tensor-parallel",
            "ranks share heads, key/value heads and MLP columns: each gets as many as the others",
            partial(_of_model, checked.check_splits, _splits),
        ),
        Check(
            "recipe.context",
            "prompt and response are one sequence, and the model has positions for so many tokens",
            partial(_of_model, checked.check_context, _context),
        ),
        Check("recipe.chat-template", "data.apply_chat_template asks for the model's", _chat_template),
        Check(
            "recipe.data", "each line has a prompt and a label, or the run ends when it comes to it", _data
        ),
        Check("recipe.evaluation-data", "[evaluation] path is read as the data is", _evaluation_data),
        Check("recipe.task", "the library of tasks must know the task and its settings", _task, imports=True),
        Check("recipe.reward", "what scores the responses must be installed ([data] reward)", _reward),
    ]
    return [*found, *memory_fit.checks()]


def _with_recipe(examine: _Examine, subject: Subject) -> Outcome:
    return skipped("no recipe is named") if subject.recipe is None else examine(subject, subject.recipe)


def _model(subject: Subject) -> Outcome:
    return _with_recipe(_whole_model, subject)


def _whole_model(subject: Subject, recipe: Recipe) -> Outcome:
    if later := made_later(subject, recipe.model.path):
        return skipped(later)
    expected = "a whole Hugging Face directory of a known family"
    directory = model_directory(subject)
    try:
        found = checked.check_model(directory)
    except VimeError as e:
        return Outcome("fail", without_root(subject, e.message), expected, e.hint)
    stored = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    files = len(list(directory.glob("*.safetensors")))
    return Outcome(
        "pass",
        f"{found['model_type']}, {files} files of weights, {size(stored)}, each tensor there",
        expected,
    )


def _of_model(
    check: Callable[[Recipe, dict[str, Any]], None],
    tell: Callable[[Recipe, dict[str, Any]], str],
    subject: Subject,
) -> Outcome:
    """A check that needs the model's config.json alone."""
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    found = config(subject)
    if isinstance(found, str):
        return skipped(found)
    try:
        check(recipe, found)
    except VimeError as e:
        return Outcome("fail", e.message, "a model that fits the recipe", e.hint)
    return Outcome("pass", tell(recipe, found), "a model that fits the recipe")


def _splits(recipe: Recipe, config: ModelShape) -> str:
    return (
        f"{config.num_attention_heads} heads, {config.num_key_value_heads} key/value heads; TP "
        f"{recipe.train.tensor_parallel} (trainer) and {recipe.rollout.tensor_parallel} (engine)"
    )


def _context(recipe: Recipe, config: ModelShape) -> str:
    tokens = recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens
    return f"{tokens} tokens of {config.max_position_embeddings}"


def _chat_template(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    if not recipe.data.apply_chat_template:
        return skipped("the recipe applies none")
    if later := made_later(subject, recipe.model.path):
        return skipped(later)
    directory = model_directory(subject)
    if not directory.is_dir():
        return skipped("there is no model (recipe.model)")
    try:
        checked.check_chat_template(directory)
    except VimeError as e:
        return Outcome("fail", without_root(subject, e.message), "a chat template", e.hint)
    return Outcome("pass", "the model has one", "a chat template")


def _data(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    if recipe.data.task:
        return skipped(f"{recipe.data.path} is no file: see recipe.task, which imports the library")
    return _lines(subject, recipe.data)


def _evaluation_data(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    if not (recipe.evaluation.path and recipe.evaluation.every):
        return skipped("the recipe has no file of its own for evaluations")
    return _lines(subject, recipe.data.model_copy(update={"path": recipe.evaluation.path}))


def _lines(subject: Subject, data: DataTable) -> Outcome:
    if later := made_later(subject, data.path):
        return skipped(later)
    path = subject.host.path(data.path)
    expected = f"JSON lines with {data.prompt_key!r} and {data.label_key!r}"
    try:
        checked.check_data(data.model_copy(update={"path": str(path)}))
    except VimeError as e:
        return Outcome("fail", without_root(subject, e.message), expected, e.hint)
    except OSError as e:
        return Outcome("fail", f"{data.path}: {e.strerror}", expected, "make it readable for this user")
    return Outcome("pass", f"{data.path}, {size(path.stat().st_size)}, each line read", expected)


def _task(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    if not recipe.data.task:
        return skipped("the data is a file")
    if not subject.host.is_running:
        return skipped("nothing is imported in another root")
    try:
        checked.check_task(recipe.data, subject.host)
    except VimeError as e:
        return Outcome("fail", e.message, "a task with these settings", e.hint)
    return Outcome("pass", recipe.data.path, "a task with these settings")


def _reward(subject: Subject) -> Outcome:
    recipe = subject.recipe
    if recipe is None:
        return skipped("no recipe is named")
    reward = recipe.data.reward or "exact-match"
    module, colon, function = reward.partition(":")
    if colon:
        return _function(subject, module, function)
    if reward not in _BRINGS:
        return Outcome("pass", f"{reward}, which needs nothing", reward)
    name = _BRINGS[reward]
    there = distributions(subject.host).get(canonicalize_name(name))
    return judged(
        bool(there),
        f"{name} {there[0].version}" if there else f"{name} is not installed",
        f"{name}, for the reward {reward}",
        f"python -m pip install --no-deps {name}, or another data.reward",
    )


def _function(subject: Subject, module: str, function: str) -> Outcome:
    """A function of the user's own: read, not imported."""
    expected = f"a module {module} with a function {function}"
    places = [*site_directories(subject.host)]
    if subject.host.is_here:
        places.append(Path())  # where the runtime is started
    for place in places:
        for file in (
            place / f"{module.replace('.', '/')}.py",
            place / module.replace(".", "/") / "__init__.py",
        ):
            if file.is_file():
                return _defined(file, function, expected)
    return Outcome(
        "fail",
        f"no module {module} in {len(places)} places of sys.path",
        expected,
        "put its folder on PYTHONPATH",
    )


def _defined(file: Path, function: str, expected: str) -> Outcome:
    mend = f"correct data.reward, or define {function} in {file}"
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as e:
        return Outcome("fail", f"{file}: {e}", expected, mend)
    names = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {t.id for n in body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    names |= {alias.asname or alias.name for n in body if isinstance(n, ast.ImportFrom) for alias in n.names}
    return judged(
        function in names, f"{file} {'has' if function in names else 'has no'} {function}", expected, mend
    )
