"""Read the inputs of a recipe: model, data, reward, and the state of the patched packages.

The rules are those of the commands that use the inputs (``vimectl run``, ``vimectl patch status``): a reader
calls the same code and raises its VimeError.
"""

from __future__ import annotations

import hashlib
import os
import stat
import symtable
from pathlib import Path

from vime_runtime.spec.errors import UsageError, VimeError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import DataTable, Recipe
from vime_runtime.spec.safetensors_header import INCOMPLETE

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.packages import find_package
from vimectl.patches import command
from vimectl.patches.selection import stacked
from vimectl.patches.state import TargetStatus
from vimectl.recipes import check_inputs
from vimectl.recipes.resolve import prepared_dir, required_preparation
from vimectl.stacks.installed import site_directories
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host
from vimectl.util.units import size

# Reading the weights would take minutes: nodes are compared by their sizes.
_DIGEST_BYTES = 32 * 2**20
_DIGEST_DIGITS = 16


def require_input(host: Host, recipe: Recipe, path: str) -> Path:
    """Return where a path of the recipe is read from here.

    Raises:
        Unavailable: a run prepares it first, or it is outside this root.
    """
    if not host.is_running and not host.exists(path):
        raise Unavailable(f"{path} is not in this file system; it may be mounted when the image runs")
    prepare = required_preparation(recipe)
    if prepare is not None:
        folder = prepared_dir(prepare)
        if folder in Path(path).parents and not host.is_dir(str(folder)):
            raise Unavailable(f"a run prepares it first ([prepare] kind = {prepare.kind!r})")
    return host.path(path)


def read_model_shape(host: Host, recipe: Recipe) -> ModelShape:
    """Return the shape of the model, as its config.json gives it. Raises Unavailable."""
    file = require_input(host, recipe, recipe.model.path) / "config.json"
    if not file.is_file():
        raise Unavailable("there is no model (recipe.model)")
    try:
        config = read_json(file, INCOMPLETE)
        return family_of(config, file.name).shape(config, file.name)
    except VimeError as e:
        raise Unavailable("the model's config.json is not usable (recipe.model)") from e


def read_model(host: Host, recipe: Recipe) -> str:
    """Check the whole model directory and return its description. Raises Unavailable, VimeError."""
    directory = require_input(host, recipe, recipe.model.path)
    config = check_inputs.check_model(directory)
    files = list(directory.glob("*.safetensors"))
    stored = size(sum(path.stat().st_size for path in files))
    return f"{config.model_type}, {len(files)} weight files, {stored}, no tensor missing"


def read_model_files(host: Host, recipe: Recipe) -> dict[str, str]:
    """Return the size of each file of the model; of a small one, which is no weights, also the digest.

    Raises:
        Unavailable: see ``require_input``.
    """
    directory, found = recipe.model.path, {}
    require_input(host, recipe, directory)
    for name in host.names(directory):
        path = f"{directory}/{name}"
        status = host.status(path)
        if status is None or not stat.S_ISREG(status.st_mode) or name.startswith("."):
            continue
        found[name] = f"{status.st_size} bytes"
        if status.st_size <= _DIGEST_BYTES and not name.endswith(".safetensors"):
            content = host.read_bytes(path, _DIGEST_BYTES)
            digest = hashlib.sha256(content).hexdigest() if content is not None else host.problem(path)
            found[name] += f", sha256 {digest[:_DIGEST_DIGITS]}"
    return found


def read_chat_template(host: Host, recipe: Recipe) -> str:
    """Check that the model has a chat template. Raises Unavailable, VimeError."""
    directory = require_input(host, recipe, recipe.model.path)
    if not directory.is_dir():
        raise Unavailable("there is no model (recipe.model)")
    check_inputs.check_chat_template(directory)
    return "the model has one"


def read_data(host: Host, recipe: Recipe, data: DataTable) -> str:
    """Check every line of a data file and return its description. Raises Unavailable, VimeError."""
    path = require_input(host, recipe, data.path)
    try:
        check_inputs.check_data(data.model_copy(update={"path": str(path)}))
    except OSError as e:
        raise UsageError(f"{data.path}: {e.strerror}", "make it readable for this user") from e
    return f"{data.path}, {size(path.stat().st_size)}, each line read"


def read_task(host: Host, recipe: Recipe) -> str:
    """Let the runtime create the reasoning-gym task. Raises VimeError."""
    check_inputs.check_task(recipe.data, host)
    return recipe.data.path


def read_reward_function(host: Host, module: str, function: str) -> str:
    """Find the user's reward function without importing it. Raises UsageError if it is not defined."""
    directories = site_directories(host)
    if host.is_here:
        directories = [*directories, os.getcwd()]  # where the runtime is started
    path = module.replace(".", "/")
    places = (f"{path}.py", f"{path}/__init__.py")
    candidates = (f"{directory}/{place}" for directory in directories for place in places)
    file = next(filter(host.is_file, candidates), None)
    if file is None:
        raise UsageError(
            f"no module {module} in {len(directories)} directories of sys.path",
            "put its directory on PYTHONPATH",
        )
    hint = f"correct data.reward, or define {function} in {file}"
    try:
        symbols = symtable.symtable(host.read(file) or "", file, "exec").get_symbols()
    except (SyntaxError, ValueError) as e:
        raise UsageError(f"{file}: {e}", hint) from e
    names = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    if function not in names:
        raise UsageError(f"{file} has no {function}", hint)
    return f"{file} has {function}"


def read_patch_state(host: Host, stack: Stack, package: str) -> tuple[list[TargetStatus], Path | None]:
    """Return the patch status of a package; for another root also the directory that holds it.

    In another root the list is empty if the package is not installed.

    Raises:
        VimeError: as ``patches.command.status`` does.
    """
    directory, version = None, None
    if not host.is_here:
        module = stacked(package, stack.patches[package]).module or package.replace("-", "_")
        place, version = find_package(host, stack, package, module)
        if place is None:
            return [], None
        directory = host.path(place)
    return command.status(stack.argument, directory, [package], version), directory
