"""`vimectl init`: write a project file."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.cli.output import CommandOutput
from vimectl.util.host import Host


def init() -> CommandOutput:
    """Write a vimectl.toml here, from what is installed and the work trees and patches in this directory."""
    from vimectl.stacks.new_project import find_project

    project = find_project(Path.cwd(), Host())
    try:
        with project.file.open("x", encoding="utf-8") as file:
            file.write(project.text())
    except FileExistsError as e:
        raise UsageError(f"{project.file} exists already", "edit it, or remove it first") from e
    document = {
        "path": project.file,
        "extends": project.extends,
        "packages": project.packages,
        "patches": project.patches,
        "targets": project.targets,
    }
    extends = f", extends {project.extends}" if project.extends else ", extends no stack"
    found = f"{len(project.patches)} packages with patches, {len(project.targets)} targets"
    return CommandOutput(document, [f"{project.file}: written{extends}; {found}"])
