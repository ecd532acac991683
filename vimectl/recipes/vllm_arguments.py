"""Check the names in ``[rollout.engine]`` against the sources of the installed vLLM, without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from vime_runtime.spec.engine_arguments import set_by_runtime
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import Recipe

from vimectl.stacks.installed import distributions, site_directories
from vimectl.util.dist_info import editable_source
from vimectl.util.host import Host

# Where vLLM declares its arguments, and the dataclass that has them.
_FILE, _CLASS = "vllm/engine/arg_utils.py", "EngineArgs"


def check(recipe: Recipe, host: Host) -> None:
    """Check that every name in ``[rollout.engine]`` is an argument of vLLM that the runtime leaves free.

    The values are left to vLLM. Without vLLM, of which the doctor tells, any name is accepted.

    Raises:
        UsageError: the runtime sets the argument, or the installed vLLM does not have it.
    """
    if not recipe.rollout.engine:
        return
    taken = set_by_runtime(recipe)
    known = _argument_names(host)
    for name in recipe.rollout.engine:
        if name in taken:
            key = taken[name]
            raise UsageError(
                f"rollout.engine.{name}: the runtime sets this argument of vLLM",
                f"remove it and use {key}" if key else "remove it",
            )
        if known and name not in known:
            raise unknown(
                "argument of vLLM in [rollout.engine]",
                name,
                known,
                f"known: the fields of {_CLASS} in {_FILE}",
            )


def notice(recipe: Recipe) -> str:
    """Return a warning that names the arguments in ``[rollout.engine]``; empty without any."""
    if not (names := ", ".join(recipe.rollout.engine)):
        return ""
    return f"warning: these arguments of vLLM are not tested with this runtime (rollout.engine): {names}"


def _argument_names(host: Host) -> set[str]:
    """Return the arguments of the installed vLLM; empty if it is not installed or has no such class."""
    directories = [*site_directories(host), *_editable_sources(host)]
    path = next((path for one in directories if host.is_file(path := f"{one}/{_FILE}")), None)
    try:
        tree = ast.parse(host.read(path) or "" if path else "")
    except SyntaxError:  # written for a newer Python
        return set()
    return {
        field.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == _CLASS
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if not field.target.id.startswith("_")
    }


def _editable_sources(host: Host) -> Iterator[str]:
    """Yield the checkouts that vLLM is installed from, as in the images of vllm-ascend."""
    for item in distributions(host).get("vllm", ()):
        if source := editable_source(host.read(f"{item.metadata}/direct_url.json")):
            yield source
