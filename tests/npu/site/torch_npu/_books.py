"""Record the calls and the device memory of this process in files that the test reads."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(os.environ["SIMULATED_NPU"])
_MACHINE = json.loads((ROOT / "machine.json").read_text())
TOTAL: int = _MACHINE["total"]
CHIPS: int = _MACHINE["chips"]

# Finalizers of tensors run in the middle of anything.
_lock = threading.RLock()


def visible() -> list[int]:
    """Return the physical chips that this process sees, by logical index; CANN sorts them."""
    named = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    chips = list(range(CHIPS)) if named is None else [int(chip) for chip in named.split(",") if chip.strip()]
    if chips != sorted(set(chips)):
        raise RuntimeError(f"ASCEND_RT_VISIBLE_DEVICES={named} is not ascending")
    return [chip for chip in chips if chip < CHIPS]


def record(name: str, **arguments: Any) -> None:
    """Record a call."""
    call = {"at": time.monotonic_ns(), "pid": os.getpid(), "name": name, **arguments}
    os.write(_call_file(os.getpid()), (json.dumps(call) + "\n").encode())


def take(chip: int, nbytes: int) -> bool:
    """Count ``nbytes`` (negative to release) of a chip for this process; False if it has not so many."""
    with _lock, (ROOT / "chips" / str(chip) / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if nbytes > free(chip):
            return False
        book = _book(chip, os.getpid())
        book[:8] = (int.from_bytes(book[:8], "little") + nbytes).to_bytes(8, "little")
    return True


def held(chip: int) -> int:
    """Return the bytes of a chip that this process holds."""
    return int.from_bytes(_book(chip, os.getpid())[:8], "little")


def free(chip: int) -> int:
    """Return the free bytes of a chip. The driver frees the memory of dead processes."""
    books = (path for path in (ROOT / "chips" / str(chip)).iterdir() if path.name.isdigit())
    living = (path for path in books if Path("/proc", path.name).exists())
    return TOTAL - sum(int.from_bytes(path.read_bytes()[:8], "little") for path in living)


@cache
def _call_file(pid: int) -> int:
    return os.open(
        ROOT / "calls" / f"{pid}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )


@cache
def _book(chip: int, pid: int) -> mmap.mmap:
    path = ROOT / "chips" / str(chip) / str(pid)
    path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 8)
