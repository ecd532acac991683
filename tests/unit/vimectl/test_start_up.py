"""The tool starts fast: no module of it loads a heavy package, and no command loads what only others need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vimectl
from vimectl.cli import plain_patch, tree

TOOL = Path(vimectl.__file__).parent
HEAVY = {"megatron", "numpy", "ray", "torch", "torch_memory_saver", "torch_npu", "transformers", "vllm"}


def loaded_after(statements: str) -> set[str]:
    """Top-level packages in ``sys.modules`` of a fresh interpreter that ran ``statements``."""
    code = f"{statements}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_module_of_the_tool_loads_a_heavy_package() -> None:
    modules = [
        ".".join(source.relative_to(TOOL.parent).with_suffix("").parts)
        for source in sorted(TOOL.rglob("*.py"))
        if source.name not in ("__init__.py", "__main__.py") and "_data" not in source.parts
    ]
    assert loaded_after("\n".join(f"import {module}" for module in modules)) & HEAVY == set()


def test_the_command_line_starts_without_its_features() -> None:
    loaded = loaded_after("import vimectl.cli.tree; vimectl.cli.tree.command_tree()")
    assert not loaded & {"gitdb", "pydantic"}


def test_the_version_needs_no_typer() -> None:
    assert not loaded_after("import vimectl.cli; vimectl.cli.run_cli(['--version'])") & {"rich", "typer"}


def test_the_version_is_printed() -> None:
    argv = [sys.executable, "-m", "vimectl", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == f"vimectl {vimectl.__version__}\n"


LINES = [
    "verify",
    "status vllm vllm-ascend --stack ascend-0.22 --json",
    "apply --target=dir --version 1.0 vllm --merge --dry-run",
    "revert --series own",
    "apply -n -q vllm",
    "verify -v",
]


@pytest.mark.parametrize("line", LINES)
def test_a_plain_command_line_is_read_as_typer_reads_it(line: str) -> None:
    argv = ["patch", *line.split()]
    parsed = plain_patch.parse(argv)
    assert parsed is not None
    packages, options = parsed
    command = tree.command_tree(argv).commands["patch"].commands[argv[1]]
    typed = {name: value for name, value in command.make_context(argv[1], argv[2:]).params.items() if value}
    # Typer keeps the global options to itself.
    plain = {
        name.replace("-", "_"): value or True
        for name, value in options.items()
        if name not in ("json", "quiet", "verbose")
    }
    assert (packages, plain) == (list(typed.pop("packages", ())), typed)


@pytest.mark.parametrize(
    "line",
    ["apply --help", "verify --stak x", "verify --targ x", "status -n", "status --stack", "verify --merge",
     "verify --stack a --stack b", "verify --target=", "verify -- vllm", "list", "--json"],
)  # fmt: skip
def test_other_command_lines_are_left_to_typer(line: str) -> None:
    assert plain_patch.parse(["patch", *line.split()]) is None


def test_a_plain_command_does_not_load_typer() -> None:
    loaded = loaded_after("import vimectl.cli, vimectl.cli.patch_results, vimectl.patches.plan")
    slow = {"click", "dataclasses", "gitdb", "packaging", "pydantic", "rich", "subprocess", "typer"}
    assert not loaded & slow
