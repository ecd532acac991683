"""`vimectl init`: write a project file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vime_runtime.spec.errors import UsageError

from vimectl.cli.help_text import epilog
from vimectl.cli.options import DryRun
from vimectl.cli.output import CommandOutput
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.stacks.new_project import NewProject

EPILOG = epilog("vimectl init", "vimectl init --dry-run  # print the file")


def init(dry_run: DryRun = False) -> CommandOutput:
    """Write a project file, vimectl.toml, in this directory.

    It has what is installed, and the work trees and patches in this directory.
    """
    from vimectl.stacks.new_project import find_project

    project = find_project(Path.cwd(), Host())
    exists = UsageError(f"{project.file} exists already", "edit it, or remove it first")
    if dry_run:
        if os.path.lexists(project.file):
            raise exists
        return CommandOutput(_document(project) | {"dry_run": True}, [project.text()])
    try:
        with project.file.open("x", encoding="utf-8") as file:
            file.write(project.text())
    except FileExistsError as e:
        raise exists from e
    extends = f", extends {project.extends}" if project.extends else ", extends no stack"
    found = f"{len(project.patches)} packages with patches, {len(project.targets)} targets"
    return CommandOutput(_document(project), [f"{project.file}: written{extends}; {found}"])


def _document(project: NewProject) -> dict[str, Any]:
    return {
        "path": project.file,
        "extends": project.extends,
        "packages": project.packages,
        "patches": project.patches,
        "targets": project.targets,
    }
