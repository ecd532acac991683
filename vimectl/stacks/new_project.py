"""Write a first project file from what is installed, and from the directories next to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.utils import canonicalize_name

from vimectl.stacks.catalog import PROJECT_FILE, StackSummary, load_stack, load_summary
from vimectl.stacks.detection import detect_stack, differences, find
from vimectl.stacks.installed import distributions
from vimectl.stacks.project import relative
from vimectl.stacks.versions import matches
from vimectl.util import git
from vimectl.util.host import Host
from vimectl.util.resources import data_dir
from vimectl.util.toml import read_toml

# Without one of these no stack is extended: its other packages are in many environments.
_KEY_PACKAGES = ("vllm", "vllm-ascend")
_GIT_TIMEOUT = 10.0
_HEAD = """\
# The versions, patches and targets of this project. `vimectl patch`, `doctor`, `image` and `run` use this
# file in its directory and in every one below. Relative paths are relative to the file.
"""
_PACKAGES = """
# The versions that differ from those of the stack.
[packages]
"""
_PATCHES = """
# The series on each package, the bottom one first: the version of a series that vimectl has, or a directory.
# `vimectl patch save NAME PACKAGE` adds yours. An empty list removes those of the stack.
[patches]
"""
_TARGETS = """
# The directory that holds a package, where it is not the installed one.
[targets]
"""


@dataclass
class NewProject:
    """The content of a new project file.

    ``notes`` has the comments of its lines, by table and package, ``others`` the lines for work trees that
    are only suggested.
    """

    file: Path
    extends: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    patches: dict[str, list[str]] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    notes: dict[tuple[str, str], str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the text of the file, the same for the same content."""
        extends = f"# What the file does not state is as in the stack: vimectl stack show {self.extends}\n"
        extends += f"extends = {_value(self.extends or '')}"
        if self.extends is None:
            extends = '# The stack to start from (vimectl stack list).\n# extends = "ascend-0.22"'
        lines = [
            _HEAD,
            extends,
            *self._table("packages", _PACKAGES, self.packages, '# transformers = "5.5.4"'),
            *self._table("patches", _PATCHES, self.patches, '# transformers = ["patches/transformers"]'),
            *self._table(
                "targets", _TARGETS, self.targets, *(self.others or ['# megatron-lm = "Megatron-LM"'])
            ),
        ]
        return "\n".join(lines) + "\n"

    def _table(
        self, name: str, head: str, entries: Mapping[str, str | Sequence[str]], *suggested: str
    ) -> Iterator[str]:
        yield head.rstrip("\n")
        for package, value in sorted(entries.items()):
            note = self.notes.get((name, package))
            yield f"{_key(package)} = {_value(value)}" + (f"  # {note}" if note else "")
        if not entries or name == "targets":
            yield from suggested


def find_project(directory: Path, host: Host) -> NewProject:
    """Return what is installed and what is in ``directory``, as a project. Changes nothing."""
    project = NewProject(directory / PROJECT_FILE)
    installed = distributions(host)
    stack = StackSummary("", {}, {}, {}, {}, {})
    detected = detect_stack(host).stack
    if detected and any(find(load_summary(detected), package, installed) for package in _KEY_PACKAGES):
        project.extends, stack = detected, load_summary(detected)
        for one in differences(stack, installed):
            if one.found:
                project.packages[one.package] = one.found
                project.notes["packages", one.package] = f"{detected}: {one.expected}"
    known = {path.name for path in data_dir("patches").iterdir() if path.is_dir()}
    for package, series in _series(directory):
        have = find(stack, package, installed)
        stated = _about(series).get("version")
        if have and stated and not matches(have.version, str(stated)):
            continue
        below = project.patches.get(package) or list(stack.patches.get(package, ()))
        project.patches[package] = [*below, relative(project.file, str(series))]
    known |= {*stack.packages, *project.patches}
    if project.extends:
        known |= load_stack(project.extends).commits.keys()
    for tree in _work_trees(directory):
        names = [name for name in _names(tree) if name in known]
        if tree == directory and not names:
            continue  # the repository of the project
        path, at = relative(project.file, str(tree)), _commit(tree, host)
        if not names:
            project.others.append(f"# {_key(_names(tree)[0])} = {_value(path)}  # {at}")
        elif find(stack, names[0], installed):
            project.others.append(f"# {_key(names[0])} = {_value(path)}  # {at}; it is installed too")
        else:
            project.targets[names[0]] = path
            project.notes["targets", names[0]] = at
    return project


def _series(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield each directory below ``patches/`` that has a quilt series, with its package."""
    root = directory / "patches"
    for file in sorted([*root.glob("*/series"), *root.glob("*/*/series")]):
        if file.is_file():
            name = file.relative_to(root).parts[0]
            yield str(_about(file.parent).get("package") or canonicalize_name(name)), file.parent


def _about(series: Path) -> dict[str, object]:
    file = series / "series.toml"
    return read_toml(file) if file.is_file() else {}


def _work_trees(directory: Path) -> list[Path]:
    return [path for path in (directory, *sorted(directory.iterdir())) if (path / ".git").exists()]


def _names(tree: Path) -> list[str]:
    """Return the names that the package in a work tree may have: that of its metadata, its directory."""
    names = [tree.resolve().name]
    metadata = tree / "pyproject.toml"
    if metadata.is_file():
        names.insert(0, str(read_toml(metadata).get("project", {}).get("name", "")))
    return [canonicalize_name(name) for name in names if name]


def _commit(tree: Path, host: Host) -> str:
    found = host.run([*git.command(tree), "rev-parse", "HEAD"], _GIT_TIMEOUT)
    return f"at {found.stdout.strip()}" if found.code == 0 else "without a commit"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _value(name)


def _value(value: str | Sequence[str]) -> str:
    """Return a text or a list of texts in TOML, which has the escapes of JSON."""
    return json.dumps(value, ensure_ascii=False)
