"""The wall between the tool and the runtime, and the tool's promise to start fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vimectl

TOOL = Path(vimectl.__file__).parent
RUNTIME = TOOL.parent / "runtime" / "vime_runtime"
HEAVY = {"megatron", "numpy", "ray", "torch", "torch_memory_saver", "torch_npu", "transformers", "vllm"}


def imported(source: Path) -> Iterator[str]:
    """The top-level packages that a file imports anywhere, in functions too; the contract is not counted."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[0] for name in names if not name.startswith("vime_runtime.spec."))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [(TOOL, {"vime_runtime"} | HEAVY), (RUNTIME, {"vimectl"})],
    ids=["tool", "runtime"],
)
def test_nothing_is_imported_across_the_wall(package: Path, forbidden: set[str]) -> None:
    sources = sorted(package.rglob("*.py"))
    assert len(sources) > 20
    assert {s: found for s in sources if (found := forbidden & set(imported(s)))} == {}


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
    assert not loaded_after("import vimectl.cli; vimectl.cli._register()") & {"git", "pydantic"}


def test_the_version_is_printed() -> None:
    argv = [sys.executable, "-m", "vimectl", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == f"vimectl {vimectl.__version__}\n"
