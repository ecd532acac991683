"""The values that options about a stack and its image accept, for the command line: it needs no schema."""

from __future__ import annotations

from typing import Literal, get_args

Machine = Literal["x86_64", "aarch64"]
Chip = Literal["a2", "a3"]  # generations of the NPU
CHIPS: tuple[Chip, ...] = get_args(Chip)
BuilderName = Literal["auto", "docker", "podman", "buildah"]
