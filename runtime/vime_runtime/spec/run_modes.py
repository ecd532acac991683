"""The modes of a run, which set its length. The command line needs their names without the schema."""

from __future__ import annotations

from typing import Literal, get_args

Mode = Literal["smoke", "test", "long"]
MODES: tuple[Mode, ...] = get_args(Mode)
