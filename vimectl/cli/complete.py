"""Complete the values of arguments and options for a shell.

Each function returns values, or values with their help. An exception leaves the value without completions:
``vimectl.cli.tree.complete`` catches it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

Described = tuple[str, str]


def stacks(incomplete: str) -> list[str]:
    """Complete the name or the file of a stack."""
    from vimectl.stacks.catalog import stack_names

    return [*_starting(stack_names(), incomplete), *_toml_files(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Complete the name or the file of a recipe."""
    from vimectl.recipes.catalog import shipped_recipes

    return [*_starting(shipped_recipes(), incomplete), *_toml_files(incomplete)]


def packages(incomplete: str) -> list[str]:
    """Complete a package of the stack or project, or else one that vimectl has a series for."""
    from vimectl.patches import series
    from vimectl.stacks.catalog import default_stack, load_summary

    stack = default_stack()
    return _starting(load_summary(stack).patches if stack else series.known(), incomplete)


def series_packages(incomplete: str) -> list[str]:
    """Complete a package that vimectl has a series for."""
    from vimectl.patches import series

    return _starting(series.known(), incomplete)


def series_versions(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the version of a series of vimectl, of the package on the command line."""
    from vimectl.patches import series

    # Arguments before an option without its value are not parsed yet.
    package = context.params.get("package") or next(iter(context.args), "")
    return _starting(series.known().get(package, []), incomplete)


def releases(incomplete: str) -> list[str]:
    """Complete PACKAGE==VERSION, the releases that vimectl has a series for."""
    from vimectl.patches import series

    known = series.known().items()
    return _starting((f"{package}=={version}" for package, found in known for version in found), incomplete)


def patches(incomplete: str) -> list[str]:
    """Complete a patch in the series directories of the project."""
    from vimectl.patches import series
    from vimectl.stacks.catalog import default_stack, is_series_directory, load_summary

    stack = default_stack()
    entries = load_summary(stack).patches.values() if stack else ()
    tops = (entry[-1] for entry in entries if entry and is_series_directory(entry[-1]))
    return _starting((patch.id for top in tops for patch in series.read(Path(top)).patches), incomplete)


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a run in the folder of --dir, newest first, or ``last``."""
    from vime_runtime.spec.run_paths import RUNS

    from vimectl.runs.run_directory import list_runs

    found = list(list_runs(Path(context.params.get("folder") or RUNS)))
    given = context.params.get("runs") or ()
    return [name for name in _starting([*reversed(found), *(["last"] if found else [])], incomplete)
            if name not in given]  # fmt: skip


def processes(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a process of the run on the command line."""
    from vime_runtime.spec.run_paths import RUNS

    from vimectl.runs.read_logs import logs_by_process
    from vimectl.runs.run_directory import find_run

    # Arguments before an option without its value are not parsed yet.
    run = context.params.get("run") or next(iter(context.args), "last")
    found = find_run(run, Path(context.params.get("folder") or RUNS))
    return _starting(logs_by_process(found), incomplete)


def checks(context: typer.Context, incomplete: str) -> list[Described]:
    """Complete the id of a check of the doctor for the stack, or a group of checks."""
    from vimectl.doctor.runner import all_checks
    from vimectl.stacks.catalog import default_stack, load_stack, stack_names
    from vimectl.stacks.detection import detect_stack
    from vimectl.util.host import Host

    stack = context.params.get("stack") or default_stack() or detect_stack(Host()).stack or stack_names()[-1]
    found = all_checks(load_stack(stack))
    described = [(group, "all checks of the group") for group in dict.fromkeys(one.group for one in found)]
    described += [(one.id, one.rationale) for one in found]
    return [one for one in described if one[0].startswith(incomplete)]


def recipe_keys(incomplete: str) -> list[Described]:
    """Complete a key or table of a recipe."""
    from vimectl.recipes.recipe_schema import all_keys

    return [(one.key, one.description) for one in all_keys() if one.key.startswith(incomplete)]


def assignments(incomplete: str) -> list[str] | list[Described]:
    """Complete KEY=VALUE: the key, then the value where the schema knows which there are."""
    from vimectl.recipes.recipe_schema import FREE_NAME, all_keys, find_key

    key, equals, value = incomplete.partition("=")
    if not equals:
        keys = [one for one in all_keys() if not one.is_table and one.key.startswith(incomplete)]
        return [(f"{one.key.removesuffix(FREE_NAME)}{'' if one.key.endswith(FREE_NAME) else '='}",
                 one.description) for one in keys]  # fmt: skip
    values = [f"{key}={known}" for known in _values(find_key(key).node) if known.startswith(value)]
    return values or [f"{key}={path}" for path in _paths(value)]


def addresses(incomplete: str) -> list[str]:
    """Complete the address of a Ray cluster."""
    return _starting(["auto"], incomplete)


def releases_to_port_to(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the version to port to: ``newest``, or a release that vimectl has a series for."""
    return [*_starting(["newest"], incomplete), *series_versions(context, incomplete)]


def _values(node: dict[str, Any]) -> list[str]:
    """Return the values that the JSON schema of a key lists."""
    nodes = node.get("anyOf", [node])
    found: list[str] = []
    for one in nodes:
        found += map(str, one.get("enum", ()))
        found += ["true", "false"] if one.get("type") == "boolean" else []
    return found


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _toml_files(incomplete: str) -> list[str]:
    """Return TOML files, and directories once something is typed."""
    found = _paths(incomplete)
    return [path for path in found if path.endswith(".toml") or (incomplete and path.endswith("/"))]


def _paths(incomplete: str) -> list[str]:
    """Return the paths that begin with a text, directories with a slash at the end."""
    typed_folder, name = os.path.split(incomplete)
    folder = os.path.expanduser(typed_folder) or "."
    with os.scandir(folder) as entries:
        found = sorted(
            f"{entry.name}/" if entry.is_dir() else entry.name
            for entry in entries
            if entry.name.startswith(name) and (name or not entry.name.startswith("."))
        )
    return [os.path.join(typed_folder, one) for one in found]
