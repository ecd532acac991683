"""The tool starts fast: no module of it loads a heavy package, and no command loads what only others need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import vimectl

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
    assert not loaded_after("import vimectl.cli; vimectl.cli.command_tree()") & {"git", "pydantic"}


def test_the_version_is_printed() -> None:
    argv = [sys.executable, "-m", "vimectl", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == f"vimectl {vimectl.__version__}\n"
