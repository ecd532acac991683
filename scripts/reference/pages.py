"""The generated pages of the reference, by their names."""

from __future__ import annotations

from collections.abc import Callable

from reference import (
    checks_page,
    commands_page,
    exit_codes_page,
    json_page,
    matrix_page,
    metrics_page,
    project_file_page,
    recipe_page,
    stack_page,
)

GENERATED: dict[str, Callable[[], str]] = {
    "checks": checks_page.render,
    "commands": commands_page.render,
    "exit-codes": exit_codes_page.render,
    "json": json_page.render,
    "matrix": matrix_page.render,
    "metrics": metrics_page.render,
    "project-file": project_file_page.render,
    "recipe": recipe_page.render,
    "stack": stack_page.render,
}
