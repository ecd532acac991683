from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.ipc import HostBuffer, HostPeer

READER = """
import sys
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.ipc import HostHandle, HostPeer
peer = HostPeer()
for line in sys.stdin:
    data = peer.open({machine_id(): HostHandle(*map(int, line.split()))})
    print(data.numel(), int(data.sum()), flush=True)
"""


def test_another_process_reads_what_is_written_and_written_again() -> None:
    shared_memory = set(os.listdir("/dev/shm"))
    buffer = HostBuffer()
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def seen() -> list[int]:
            handle = dataclasses.astuple(buffer.handles()[machine_id()])
            print(*handle, file=reader.stdin, flush=True)
            return [int(number) for number in reader.stdout.readline().split()]

        buffer.reserve(1000)
        buffer.data.fill_(2)
        assert seen() == [1000, 2000]
        buffer.data.fill_(3)
        assert seen() == [1000, 3000]
        buffer.reserve(5000)  # the mapping of the smaller buffer is replaced
        buffer.data.fill_(1)
        assert seen() == [5000, 5000]
        assert not [name for name in set(os.listdir("/dev/shm")) - shared_memory if "vime" in name]
        reader.stdin.close()


def test_a_handle_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    buffer = HostBuffer()
    buffer.reserve(64)
    handle = buffer.handles()[machine_id()]
    with pytest.raises(RuntimeError, match="used again"):
        HostPeer().open({machine_id(): dataclasses.replace(handle, inode=handle.inode + 1)})
    with pytest.raises(RuntimeError, match="used again"):
        HostPeer().open({machine_id(): dataclasses.replace(handle, nbytes=65)})
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with pytest.raises(RuntimeError, match="cannot open the weight buffer"):
        HostPeer().open({machine_id(): dataclasses.replace(handle, pid=ended.pid)})


def test_a_machine_without_a_copy_is_told_where_there_are_some() -> None:
    with pytest.raises(RuntimeError, match=r"no rank of the trainer on this machine \(host .*elsewhere"):
        HostPeer().open({"elsewhere": HostBuffer().handles()[machine_id()]})


def test_each_machine_takes_the_copy_of_its_own_rank() -> None:
    here, there = HostBuffer(), HostBuffer()
    for buffer, value in ((here, 1), (there, 2)):
        buffer.reserve(10)
        buffer.data.fill_(value)
    handles = {"another machine": there.handles()[machine_id()], **here.handles()}
    assert HostPeer().open(handles).tolist() == [1] * 10


def test_reserving_less_changes_nothing() -> None:
    buffer = HostBuffer()
    buffer.reserve(128)
    buffer.data.fill_(5)
    before = buffer.handles()
    buffer.reserve(64)
    assert buffer.handles() == before
    assert torch.equal(buffer.data, torch.full((128,), 5, dtype=torch.uint8))
