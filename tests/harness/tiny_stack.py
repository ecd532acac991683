"""A stack of two invented packages, their wheels and a lock."""

from __future__ import annotations

import sys
from pathlib import Path

from vime_runtime.spec.atomic_io import sha256_file

from harness.wheels import write_wheel
from vimectl.stacks.schema import Stack
from vimectl.util.toml import validate


def tiny_wheel(folder: Path, name: str, release: str, content: str = "") -> Path:
    """Make a minimal wheel with one module."""
    text = content or f"version = {release!r}\n"
    return write_wheel(folder, name, release, {f"{name}.py": text.encode()})


def lock_of(path: Path, wheels: list[Path]) -> Path:
    lines = []
    for wheel in wheels:
        name, release = wheel.name.split("-")[:2]
        lines.append(f"{name}=={release} --hash=sha256:{sha256_file(wheel)}\n")
    path.write_text("".join(lines))
    return path


def tiny_stack(name: str = "tiny") -> Stack:
    return validate(
        Stack,
        {
            "stack": {
                "name": name,
                "description": "two invented packages",
                "device": "cpu",
                "python": f"=={sys.version_info.major}.{sys.version_info.minor}.*",
                "machines": ["x86_64", "aarch64"],
            },
            "packages": {"alpha": "1.0", "beta": "1.0"},
            "notes": {"packages": "a test", "python": "a test", "machines": "a test"},
        },
        "test",
    )
