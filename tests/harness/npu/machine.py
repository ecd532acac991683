"""A machine with NPUs under the released torch_npu: stand-ins for CANN, what its processes hold and did.

What is simulated is CANN (``tests/npu/cann``). A child process with the environment of a machine has NPUs,
whose memory is memory of the host that is counted as the chip's.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from harness import TESTS
from harness.npu import cann
from harness.runtime.rank_processes import Process

PACKAGES = TESTS / "npu" / "packages"
# Environment of every process of a colocated run.
COLOCATED = {
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:False",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}
KINDS = ("malloc", "physical", "hccl")
UUID_MODES = ("distinct", "shared", "none")
MACHINE_CHIPS = 16  # at most


class _Fault(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 48),
        ("code", ctypes.c_int32),
        ("chip", ctypes.c_int32),
        ("skip", ctypes.c_int32),
        ("count", ctypes.c_int32),
    )


class _Holder(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("held", ctypes.c_uint64 * len(KINDS) * MACHINE_CHIPS),
    )


class _Machine(ctypes.Structure):
    """``struct machine`` of ``tests/npu/cann/account.h``."""

    _fields_ = (
        ("chips", ctypes.c_int32),
        ("uuid_mode", ctypes.c_int32),
        ("chip_bytes", ctypes.c_uint64),
        ("faults", _Fault * 32),
        ("holders", _Holder * 256),
    )


class Machine:
    """``chips`` NPUs of ``chip_bytes`` each; its processes count memory and record calls in ``directory``.

    Args:
        uuid: whether each chip has its own uuid, or two neighbors share one as the dies of a card, or, with
            an old driver, there is none.
    """

    def __init__(
        self,
        directory: Path,
        chips: int = 2,
        chip_bytes: int = 1 << 30,
        uuid: Literal["distinct", "shared", "none"] = "distinct",
    ) -> None:
        assert chips <= MACHINE_CHIPS
        self.directory = directory
        (directory / "journal").mkdir(parents=True)
        described = _Machine(chips=chips, chip_bytes=chip_bytes, uuid_mode=UUID_MODES.index(uuid))
        (directory / "machine").write_bytes(bytes(described))

    def environment(self, *before: str | Path, **changes: str) -> dict[str, str]:
        """Return the environment of a child process of the machine.

        Args:
            before: goes before everything else on the path, but for what is simulated and torch_npu.
        """
        paths = [PACKAGES, TESTS, cann.torch_npu(), *before]
        path = [*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])]
        libraries = [str(cann.build()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        own = {
            "PYTHONPATH": os.pathsep.join(path),
            "LD_LIBRARY_PATH": os.pathsep.join(libraries),
            # Operators run when they are called and not in a thread of torch_npu's.
            "TASK_QUEUE_ENABLE": "0",
            "CANN_STAND_IN": str(self.directory),
        }
        return {**os.environ, **own, **changes}

    def start(self, directory: Path, chips: str, **changes: str) -> Process:
        """Start a process that sees ``chips`` and has its socket in ``directory``."""
        return Process(directory, self.environment(ASCEND_RT_VISIBLE_DEVICES=chips, **COLOCATED | changes))

    def used(self, chip: int) -> int:
        """Return the bytes of a chip that living processes hold."""
        return sum(self.holders(chip).values())

    def holders(self, chip: int) -> dict[tuple[int, str], int]:
        """Return the bytes of a chip by living process and kind: "malloc", "physical" or "hccl"."""
        with self._locked() as (_, machine):
            return {
                (holder.pid, kind): nbytes
                for holder in machine.holders
                if holder.pid and _start_time(holder.pid) == holder.start
                for kind, nbytes in zip(KINDS, holder.held[chip], strict=True)
                if nbytes
            }

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Return the recorded calls of all processes in order of time.

        Each has ``at`` (CLOCK_MONOTONIC, ns), ``pid``, ``name`` (of the C function), ``chip`` (physical; -1:
        host), ``nbytes`` and ``used`` (bytes of the chip afterwards). Copies have ``kind``, imports
        ``owner``, and calls that were made to fail ``code``. An event "held" has the bytes that the process
        holds of the chip from then on, of a ``kind`` as in ``holders``.

        Args:
            names: only calls of these functions; without any, all.
        """
        lines = [
            line for file in (self.directory / "journal").iterdir() for line in file.read_text().splitlines()
        ]
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return sorted((e for e in found if not names or e["name"] in names), key=lambda event: event["at"])

    def fail(self, name: str, code: int, skip: int = 0, count: int = 1, chip: int | None = None) -> None:
        """Let calls of a C function fail, in any process.

        Args:
            code: what the calls return.
            skip: so many more calls succeed first.
            count: so many fail.
            chip: only calls on this physical chip.
        """
        with self._locked() as (file, machine):
            free = next(fault for fault in machine.faults if not fault.count)
            free.name, free.code, free.skip = name.encode(), code, skip
            free.chip, free.count = -1 if chip is None else chip, count
            os.pwrite(file.fileno(), bytes(machine.faults), _Machine.faults.offset)

    @contextmanager
    def _locked(self) -> Iterator[tuple[IO[bytes], _Machine]]:
        """Lock the file of the machine, as account.c does, and read it."""
        with open(self.directory / "machine", "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield file, _Machine.from_buffer_copy(file.read())


def _start_time(pid: int) -> int:
    """Return the start time of a living process in clock ticks, or -1."""
    try:
        state, *fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return -1
    return -1 if state in "ZX" else int(fields[18])
