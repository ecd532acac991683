"""Read the inputs of a recipe: model, data, reward, and the state of the patched packages.

The rules are those of the commands that use the inputs (``vimectl run``, ``vimectl patch status``): a reader
calls the same code and raises its VimeError.
"""

from __future__ import annotations

import ast
import hashlib
import os
import stat
import symtable
from pathlib import Path

from vime_runtime.spec.data_lines import is_parquet
from vime_runtime.spec.errors import UsageError, VimeError
from vime_runtime.spec.json_files import read_json
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import DataTable, Recipe
from vime_runtime.spec.safetensors_header import INCOMPLETE, Locate

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.packages import find_package
from vimectl.patches import command
from vimectl.patches.applied_state import BOOKKEEPING
from vimectl.patches.selection import fit, stacked
from vimectl.patches.series import Series, known, load
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import PatchTarget
from vimectl.recipes import check_inputs
from vimectl.recipes.resolve import prepared_dir, required_preparation
from vimectl.stacks.detection import find
from vimectl.stacks.installed import distributions, site_directories
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host
from vimectl.util.units import size

# Reading the weights would take minutes: nodes are compared by their sizes.
_DIGEST_BYTES = 32 * 2**20
_DIGEST_DIGITS = 16
_WEIGHTS = ".safetensors"


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
    try:
        return host.path(path)
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}", "give a path that this user may read") from e


def _locate(host: Host, directory: str) -> Locate:
    """Return a function that finds the files of a directory inside the root."""

    def locate(name: str) -> Path:
        host.read_start(f"{directory}/{name}", 0)  # observes what cannot be read
        return host.path(f"{directory}/{name}")

    return locate


def read_model_shape(host: Host, recipe: Recipe) -> ModelShape:
    """Return the shape of the model, as its config.json gives it. Raises Unavailable."""
    require_input(host, recipe, recipe.model.path)
    file = f"{recipe.model.path}/config.json"
    if host.read_start(file, 0) is None:
        raise Unavailable("there is no model (recipe.model)")
    try:
        config = read_json(host.path(file), INCOMPLETE)
        return family_of(config, "config.json").shape(config, "config.json")
    except VimeError as e:
        raise Unavailable("the model's config.json is not usable (recipe.model)") from e


def read_model(host: Host, recipe: Recipe) -> str:
    """Check the whole model directory and return its description. Raises Unavailable, VimeError."""
    directory = recipe.model.path
    shape = check_inputs.check_model(require_input(host, recipe, directory), _locate(host, directory))
    files = [host.status(f"{directory}/{name}") for name in host.names(directory) if name.endswith(_WEIGHTS)]
    stored = size(sum(one.st_size for one in files if one))
    return f"{shape.model_type}, {len(files)} weight files, {stored}, no tensor missing"


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
        if status.st_size <= _DIGEST_BYTES and not name.endswith(_WEIGHTS):
            content = host.read_bytes(path, _DIGEST_BYTES)
            digest = hashlib.sha256(content).hexdigest() if content is not None else host.problem(path)
            found[name] += f", sha256 {digest[:_DIGEST_DIGITS]}"
    return found


def read_chat_template(host: Host, recipe: Recipe) -> str:
    """Check that the model has a chat template. Raises Unavailable, VimeError."""
    directory = recipe.model.path
    path = require_input(host, recipe, directory)
    if not host.is_dir(directory):
        raise Unavailable("there is no model (recipe.model)")
    check_inputs.check_chat_template(path, _locate(host, directory))
    return "the model has one"


def read_data(host: Host, recipe: Recipe, data: DataTable) -> str:
    """Check every line of a data file and return its description. Raises Unavailable, VimeError."""
    path = require_input(host, recipe, data.path)
    host.read_start(data.path, 0)  # observes what cannot be read
    check_inputs.check_data(data.model_copy(update={"path": str(path)}))
    found = host.status(data.path)
    read = "only a run reads parquet" if is_parquet(path) else "each line read"
    return f"{data.path}, {size(found.st_size if found else 0)}, {read}"


def read_task(host: Host, recipe: Recipe) -> str:
    """Let the runtime create the reasoning-gym task. Raises VimeError."""
    check_inputs.check_task(recipe.data, host)
    return recipe.data.path


def read_reward_function(host: Host, module: str, function: str) -> str:
    """Find the user's reward function without importing it.

    Raises:
        Unavailable: only an import can tell; a run does that before it starts.
        UsageError: there is no such module, or it does not define the function.
    """
    directories = site_directories(host)
    if host.is_here:
        directories = [os.getcwd(), *directories]  # where the runtime is started
    path = module.replace(".", "/")
    places = (f"{path}.py", f"{path}/__init__.py")
    candidates = (f"{directory}/{place}" for directory in directories for place in places)
    file = next(filter(host.is_file, candidates), None)
    if file is None:
        # Extension modules, and hooks of editable installations (setuptools: editable_wheel.py).
        folder, _, leaf = path.rpartition("/")
        files = [name for directory in directories for name in host.names(f"{directory}/{folder}")]
        hooks = [name for directory in directories for name in host.names(directory)]
        if any(name.startswith(f"{leaf}.") and name.endswith(".so") for name in files) or any(
            name.startswith("__editable__") and name.endswith("_finder.py") for name in hooks
        ):
            raise Unavailable(f"{module} is not a Python file on sys.path: only its import shows {function}")
        raise UsageError(
            f"no module {module} in {len(directories)} directories of sys.path",
            "put its directory on PYTHONPATH",
        )
    text = host.read(file) or ""
    try:
        table = symtable.symtable(text, file, "exec")
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError) as e:
        raise UsageError(f"{file}: {e}", f"correct data.reward, or {file}") from e
    names = _global_names(table)
    # "package.module:Class.method" needs the class.
    if function.partition(".")[0] in names:
        return f"{file} has {function}"
    stars = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]
    if stars or "__getattr__" in names:
        raise Unavailable(f"{file} imports names that only an import shows")
    raise UsageError(f"{file} has no {function}", f"correct data.reward, or define {function} in {file}")


def _global_names(module: symtable.SymbolTable) -> set[str]:
    """Return the names that a module binds: at its top level, in any statement, or by ``global``."""
    names = {
        symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }
    nested = list(module.get_children())
    while nested:
        scope = nested.pop()
        nested += scope.get_children()
        names |= {
            symbol.get_name()
            for symbol in scope.get_symbols()
            if symbol.is_declared_global() and (symbol.is_assigned() or symbol.is_imported())
        }
    return names


def read_patch_state(host: Host, stack: Stack, package: str) -> tuple[list[TargetStatus], Path | None]:
    """Return the patch status of a package; for another root also the directory that holds it.

    In another root the list is empty if the package is not installed.

    Raises:
        VimeError: as ``patches.command.status`` does, or a file cannot be read.
    """
    try:
        if host.is_here and host.given_python is None:
            return command.status(stack.argument, None, [package]), None
        series = stacked(package, stack.patches[package])
        target = _find_target(host, stack, package, series)
        return ([fit(target, series)], target.location) if target else ([], None)
    except OSError as e:
        path = str(e.filename).removeprefix("" if host.is_here else str(host.root))
        host.read_start(path, 0)  # observes the problem
        raise UsageError(f"{path}: {e.strerror}", "install the package again") from e


def _find_target(host: Host, stack: Stack, package: str, series: Series) -> PatchTarget | None:
    """Return the package in another environment or root, as its interpreter would find it, or None.

    Raises:
        Unavailable: a link on the way to a file of the series would have to be followed in the root.
    """
    module = series.module or package.replace("-", "_")
    place, version = find_package(host, stack, package, module)
    if place is None:
        return None
    directory = host.path(place)
    # Where a series of another version fits, its files are read too.
    others = [load(package, version) for version in known().get(package, ())]
    files = {path for one in (series, *others) for path in one.chains}
    for path in sorted({*BOOKKEEPING, *files}):
        if host.path(f"{place}/{path}") != directory / path:
            raise Unavailable(f"{place}/{path} is a link")
    location = directory.resolve()
    if version is not None:
        return PatchTarget(package, version, location, "editable")
    installed = find(stack, package, distributions(host))
    if installed is None or installed.location != place:
        return PatchTarget(package, "", location, "tree")
    record = host.path(f"{installed.metadata}/RECORD")
    return PatchTarget(package, installed.version, location, "site-packages", record)
