"""Find and read stacks: the TOML files that ship with vimectl, stack files of the user, and project files.

Wherever a stack is named, the path of a TOML file (``DIR/mine.toml``) is accepted too. A file may extend a
stack or another file: it then has what differs. A project file is a stack file called ``vimectl.toml``, which
is found from the working directory upwards.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vime_runtime.spec.errors import UsageError, nearest, unknown

from vimectl.util import toml

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

PROJECT_FILE = "vimectl.toml"
_HERE = Path(__file__).parent
# The tables that are read without the schema, by the type of their values. The other keys are those of
# ``schema.Stack``, whose import takes longer than `vimectl patch status`.
_TABLES = {"packages": str, "ranges": str, "provided_by": list, "patches": list, "targets": str}
KEYS = {
    *_TABLES,
    *(
        "extends",
        "stack",
        "constraints",
        "unwanted",
        "omitted",
        "lock_overrides",
        "lock_without",
        "sources",
        "libraries",
        "cann",
        "nnal",
        "commits",
        "images",
        "image",
    ),
    *("memory_saver", "origin", "notes", "unrecorded"),
}
# Anything else in [patches] is a directory.
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[a-z0-9.]+)?")


class StackSummary(NamedTuple):
    """The tables of a stack or a project that say which packages it has and where; see ``schema.Stack``.

    Reading them needs no schema. ``patches`` has by package the series on it, the bottom one first: the
    version of a series that vimectl ships, or the absolute path of a directory. ``targets`` are absolute too.
    """

    name: str
    packages: dict[str, str]
    ranges: dict[str, str]
    provided_by: dict[str, list[str]]
    patches: dict[str, tuple[str, ...]]
    targets: dict[str, Path]

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])


def stack_names() -> list[str]:
    """Return the names of the shipped stacks, sorted."""
    return sorted(path.stem for path in (_HERE / "data").glob("*.toml"))


def default_stack() -> str | None:
    """Return the stack to use where no option names one: VIMECTL_STACK, else the project file, else None."""
    if named := os.environ.get("VIMECTL_STACK"):
        return named
    here = Path.cwd()
    files = (directory / PROJECT_FILE for directory in (here, *here.parents))
    return next((str(file) for file in files if os.path.lexists(file)), None)


def required_stack(named: str | None) -> str:
    """Return the stack that an option names, or the default one. Raises UsageError when there is neither."""
    if stack := named or default_stack():
        return stack
    raise UsageError(
        f"no stack is named, and there is no {PROJECT_FILE} here or above",
        "name one with --stack (`vimectl stack list` shows them), or write the file with: vimectl init",
    )


def stack_for_recipe(stack: str) -> str:
    """Return the default stack if it extends the stack of a recipe, else the stack of the recipe."""
    default = default_stack()
    return default if default and _argument(stack_file(stack)) in lineage(default) else stack


def load_stack(name: str) -> Stack:
    """Return the stack called ``name``, or that of a file, checked.

    Raises UsageError when it is unknown or invalid, or a project file that extends no stack.
    """
    return _load_stack(name) if is_stack_path(name) else _load_shipped_stack(name)


def load_summary(name: str) -> StackSummary:
    """Return the package tables of a stack, or of a stack or project file, with what it extends.

    Raises UsageError when it is unknown, has an unknown key or a value of the wrong type.
    """
    return _load_summary(name) if is_stack_path(name) else _load_shipped_summary(name)


def lineage(name: str) -> list[str]:
    """Return the stack, then the one that it extends, and so on; each a name or the path of a file.

    A copy of a shipped stack under its own name extends it; an image has one.
    """
    files = _read_with_extended(name)
    names = [_argument(file) for file in files]
    own_name = list(files.values())[-1].get("stack", {}).get("name")
    return names if own_name in names or own_name not in stack_names() else [*names, own_name]


def stack_file(name: str) -> Path:
    """Return the TOML file of the stack called ``name``. Raises UsageError when there is none."""
    if is_stack_path(name):
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: no such file", f"name a stack ({', '.join(stack_names())}) or the file of one"
            )
        return Path(name).resolve()
    if name not in stack_names():
        raise unknown("stack", name, stack_names())
    return _HERE / "data" / f"{name}.toml"


def lock_path(name: str, directory: Path = _HERE / "locks") -> Path | None:
    """Return the lock of a stack (requirements format, every file hashed), or None.

    That of a file is next to it (``mine.txt`` for ``mine.toml``), by default that of the stack it extends.
    ``directory`` has the locks of the shipped stacks.
    """
    for each in lineage(name):
        path = Path(each).with_suffix(".txt") if is_stack_path(each) else directory / f"{each}.txt"
        if path.is_file():
            return path
    return None


def is_stack_path(name: str) -> bool:
    """Return True when the argument for a stack is a path rather than a name."""
    return name.endswith(".toml")


def is_series_directory(entry: str) -> bool:
    """Return True when an entry of ``[patches]`` is a directory, False for the version of a series."""
    return "/" in entry or entry.startswith(".") or not _VERSION.fullmatch(entry)


def _load_stack(name: str) -> Stack:
    from vimectl.stacks.schema import Stack  # slow to import: see ``_TABLES``

    file, data = stack_file(name), read_merged(name)
    data["patches"] = {package: entries for package, entries in data.get("patches", {}).items() if entries}
    if "stack" not in data:
        raise UsageError(
            f"{file} extends no stack, so the device, Python and machines are not known",
            'add a first line such as extends = "ascend-0.22" (`vimectl stack list` shows the names)',
        )
    stack = toml.validate(Stack, data, str(file))
    stack._argument = _argument(file)
    return stack


def _load_summary(name: str) -> StackSummary:
    data = read_merged(name)
    packages, ranges, provided_by, patches, targets = (data.get(table, {}) for table in _TABLES)
    return StackSummary(
        name,
        packages,
        ranges,
        provided_by,
        {package: tuple(entries) for package, entries in patches.items()},
        {package: Path(directory) for package, directory in targets.items()},
    )


_load_shipped_stack, _load_shipped_summary = cache(_load_stack), cache(_load_summary)


def read_merged(name: str) -> dict[str, Any]:
    """Return the tables of a stack merged with what it extends, relative directories made absolute.

    Tables are merged key by key, other values replace; an empty list of patches removes those on a package.
    """
    files = _read_with_extended(name)
    merged: dict[str, Any] = {}
    for data in reversed(files.values()):
        for key, value in data.items():
            is_table = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merged[key] | value if is_table else value
        if "extends" in data:
            for package in data.get("packages", {}):
                merged.get("ranges", {}).pop(package, None)  # the version replaces the range
            facts = {fact for table in ("packages", "ranges", "commits") for fact in data.get(table, {})}
            stated = dict.fromkeys(facts - data.get("notes", {}).keys(), "stated in the project file")
            merged["notes"] = merged.get("notes", {}) | stated
    file, own = next(iter(files.items()))
    if "extends" in own and "stack" in merged and "name" not in own.get("stack", {}):
        merged["stack"] = merged["stack"] | {"name": project_name(file)}
    return merged


def project_name(file: Path) -> str:
    """Return the name of the stack in a file that states none: of the project's directory, or the file."""
    name = file.parent.name if file.name == PROJECT_FILE else file.stem
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.") or "project"


def _read_with_extended(name: str) -> dict[Path, dict[str, Any]]:
    """Read the file of a stack, then the one that it extends, and so on, each checked."""
    files: dict[Path, dict[str, Any]] = {}
    file = stack_file(name)
    while file not in files:
        files[file] = _read(file)
        extends = files[file].get("extends")
        if extends is None:
            return files
        try:
            file = stack_file(str(file.parent / extends) if is_stack_path(extends) else extends)
        except UsageError as e:
            raise UsageError(f"{file}: extends: {e.message}", e.hint) from e
    chain = " extends ".join(map(str, [*files, file]))
    raise UsageError(f"{chain}: a file cannot extend itself", "remove one of the `extends`")


def _argument(file: Path) -> str:
    """Return what names a stack file on the command line."""
    return file.stem if file.parent == _HERE / "data" else str(file)


def _read(file: Path) -> dict[str, Any]:
    """Read one stack file and make its directories absolute.

    Raises UsageError that lists every unknown key, and every wrong type of a table that is read without the
    schema.
    """
    data = toml.read_toml(file)
    problems = [f"unknown key {key!r}.{nearest(key, sorted(KEYS))}" for key in data if key not in KEYS]
    if not isinstance(data.get("extends", ""), str):
        problems.append(f"'extends': expected a stack's name or file, found {data['extends']!r}")
    for table, kind in _TABLES.items():
        entries = data.get(table, {})
        if not isinstance(entries, dict):
            problems.append(f"{table!r}: expected a table, found {entries!r}")
            continue
        expected = 'a text in quotes ("...")' if kind is str else 'a list (["..."])'
        for key, value in entries.items():
            items = value if isinstance(value, list) else [value]
            if not (isinstance(value, kind) and all(isinstance(item, str) for item in items)):
                problems.append(f"'{table}.{key}': expected {expected}, found {value!r}")
    if problems:
        raise UsageError(f"{file}: {'; '.join(problems)}", "correct the file")
    for package, entries in data.get("patches", {}).items():
        data["patches"][package] = [
            _absolute(file, entry) if is_series_directory(entry) else entry for entry in entries
        ]
    for package, directory in data.get("targets", {}).items():
        data["targets"][package] = _absolute(file, directory)
    return data


def _absolute(file: Path, directory: str) -> str:
    return os.path.normpath(file.parent / directory)
