from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from vime_runtime.safe_unpickling import PlainUnpickler


class Command:
    """An object whose pickle executes a command in the process that loads it."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> Any:
        return os.system, (self._command,)


def exchange(rank: int, world_size: int, file: str, sent: bytes) -> Any:
    """Start the groups of a trainer and broadcast an object from rank 0; return what came, or the error."""
    import torch.distributed as dist
    from torch.distributed import FileStore
    from vime_runtime.trainer import parallel

    parallel.start("gloo", rank, world_size, FileStore(file, world_size), 1)
    try:
        objects = [pickle.loads(sent) if rank == 0 else None]
        if rank == 0 and isinstance(objects[0], dict) and "evil" in objects[0]:
            objects = [Command(objects[0]["evil"])]
        dist.broadcast_object_list(objects, src=0)
        return objects[0] if rank else None
    except pickle.UnpicklingError as e:
        return str(e)
    finally:
        parallel.stop()


def test_a_rank_refuses_an_object_that_would_execute_code(ranks: Any, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    _, received = ranks.run(exchange, 2, pickle.dumps({"evil": f"touch {mark}"}))
    assert received == (
        "another rank sent an object of posix.system: the process groups of a run accept plain values"
    )
    assert not mark.exists()


def test_ranks_exchange_plain_values(ranks: Any) -> None:
    value = [("a", 1, None, 2.5, True), {"key": [b"bytes", {1, 2}]}]
    _, received = ranks.run(exchange, 2, pickle.dumps(value))
    assert received == value


def load(value: Any) -> Any:
    return PlainUnpickler(io.BytesIO(pickle.dumps(value))).load()


def test_what_vllm_sends_is_accepted() -> None:
    shm_broadcast = pytest.importorskip("vllm.distributed.device_communicators.shm_broadcast")
    handle = shm_broadcast.Handle([0, 1], (1, 2, 3, "psm_1"), "ipc:///tmp/socket")
    assert load(handle) == handle
    assert load([torch.Size([2, 3]), torch.bfloat16, torch.device("cpu")]) == [
        torch.Size([2, 3]),
        torch.bfloat16,
        torch.device("cpu"),
    ]


@pytest.mark.parametrize("value", [Command("true"), torch.load, Path("/"), os.system])
def test_everything_else_is_refused(value: Any) -> None:
    with pytest.raises(pickle.UnpicklingError, match="another rank sent an object of"):
        load(value)
