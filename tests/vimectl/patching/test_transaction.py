"""The process is really killed, at every file-system operation that a change does."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.errors import CheckFailed, MachineLacks
from vimectl.patching import recovery, transaction
from vimectl.patching.ledger import folder
from vimectl.patching.lock import locked
from vimectl.patching.transaction import Step

Snapshot = Callable[..., dict[str, tuple[int, bytes]]]

# Audit events of the operations that change a file system; each is raised before the operation happens.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "shutil.rmtree"}


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Two target directories, as when two packages of a stack are installed in different places."""
    for name in ("one", "two"):
        (tmp_path / name / "p").mkdir(parents=True)
        (tmp_path / name / "p" / "changed.py").write_bytes(b"old\n")
        (tmp_path / name / "p" / "gone.py").write_bytes(b"old\n")
        (tmp_path / name / "p" / "changed.py").chmod(0o750)
    return [tmp_path / "one", tmp_path / "two"]


def steps(places: list[Path]) -> list[Step]:
    return [
        step
        for place in places
        for step in (
            Step(place, "p/changed.py", b"old\n", b"new\n"),
            Step(place, "p/gone.py", b"old\n", None),
            Step(place, "p/made.py", None, b"new\n"),
        )
    ]


def change(places: list[Path]) -> None:
    with locked(places):
        transaction.execute("apply", steps(places))


def run_and_die_at(operation: int, work: Callable[[], Any]) -> bool:
    """Run ``work`` in a child that kills itself before its n-th operation; whether it got that far."""
    child = os.fork()
    if child == 0:
        count = 0

        def die_in_time() -> None:
            nonlocal count
            count += 1
            if count == operation:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            writes = (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if writes or event in CHANGES:
                die_in_time()

        real_sync = os.fsync

        def fsync(descriptor: int) -> None:
            # Before a sync, what was written need not be on the disk: lose half of it with the process.
            if count + 1 == operation and os.path.isfile(f"/proc/self/fd/{descriptor}"):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die_in_time()
            real_sync(descriptor)

        os.fsync = fsync
        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_anywhere_the_next_command_finds_all_or_nothing(
    places: list[Path], snapshot: Snapshot, record_property: Callable[[str, object], None]
) -> None:
    before = snapshot(*places)
    change(places)
    after = snapshot(*places)
    assert before != after
    outcomes = set()
    operation = 0
    while True:
        restore(places, before)
        operation += 1
        if not run_and_die_at(operation, lambda: change(places)):
            break
        # Killed again and again while it recovers, it still gets there.
        again = operation % 7 + 1
        while run_and_die_at(again, lambda: [recovery.recover(place) for place in places]):
            again += 7
        for place in places:
            recovery.recover(place)
        with locked(places):  # the next change, which also removes what the dead lock left
            found = snapshot(*(place / "p" for place in places))
        assert found in ({k: v for k, v in end.items() if k in found} for end in (before, after))
        outcomes.add(snapshot(*places) == after)
        assert snapshot(*places) in (before, after)
    record_property("points", operation - 1)
    print(f"killed at {operation - 1} points")
    assert outcomes == {True, False}
    assert snapshot(*places) == after


def restore(places: list[Path], before: dict[str, tuple[int, bytes]]) -> None:
    for place in places:
        (place / "p" / "made.py").unlink(missing_ok=True)
        for name in ("changed.py", "gone.py"):
            path = place / "p" / name
            mode, content = before[str(path)]
            path.write_bytes(content)
            path.chmod(mode & 0o777)


def test_recovery_says_which_way_it_went(places: list[Path], snapshot: Snapshot) -> None:
    before = snapshot(*places)
    said = set()
    operation = 1
    while run_and_die_at(operation, lambda: change(places)):
        messages = [message for place in places if (message := recovery.recover(place))]
        changed = (places[0] / "p" / "made.py").exists()
        assert all(("was finished" in message) == changed for message in messages)
        said |= {message.partition(": ")[2] for message in messages}
        restore(places, before)
        operation += 1
    assert said == {
        "an interrupted change had not begun; its preparation was removed",
        "an interrupted apply was finished",
    }


def test_a_file_edited_between_death_and_recovery_is_not_overwritten(places: list[Path]) -> None:
    operation = 1
    while not (folder(places[0]) / "journal.json").exists():
        assert run_and_die_at(operation, lambda: change(places))
        if not (folder(places[0]) / "journal.json").exists():
            for place in places:
                recovery.recover(place)
        operation += 1
    edited = places[1] / "p" / "changed.py"
    edited.write_bytes(b"mine\n")
    with pytest.raises(CheckFailed, match="was edited after an interrupted apply") as caught:
        recovery.recover(places[0])
    assert edited.read_bytes() == b"mine\n"
    # The hint names both contents; with either in place the change is finished.
    kept = [Path(word) for word in caught.value.hint.split() if ".vimectl" in word]
    assert [path.read_bytes() for path in kept] == [b"old\n", b"new\n"]
    edited.write_bytes(b"old\n")
    recovery.recover(places[1])
    assert edited.read_bytes() == b"new\n"
    assert (places[0] / "p" / "made.py").exists()


def test_a_new_change_does_not_start_over_an_interrupted_one(places: list[Path]) -> None:
    operation = 1
    while not (folder(places[0]) / "journal.json").exists():
        for place in places:
            recovery.recover(place)
        assert run_and_die_at(operation, lambda: change(places))
        operation += 1
    with pytest.raises(CheckFailed, match="a change was interrupted"):
        change(places)
    recovery.recover(places[0])
    assert (places[1] / "p" / "made.py").exists()


def test_a_full_disk_changes_nothing(places: list[Path], snapshot: Snapshot) -> None:
    before = snapshot(*places)
    big = [*steps(places), Step(places[1], "p/big.py", None, b"x" * 100_000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with locked(places), pytest.raises(MachineLacks, match="cannot prepare the change"):
            transaction.execute("apply", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert snapshot(*places) == before


def test_a_directory_that_refuses_in_the_middle_puts_everything_back(
    places: list[Path], snapshot: Snapshot
) -> None:
    before = snapshot(*places)
    # A directory where a new file is to go: nothing about it shows before the rename.
    blocked = [*steps(places), Step(places[1], "p/blocked/file", None, b"new\n")]
    (places[1] / "p").joinpath("blocked").write_bytes(b"a file, not a directory")
    with locked(places), pytest.raises(MachineLacks, match="cannot replace a file"):
        transaction.execute("apply", blocked)
    (places[1] / "p").joinpath("blocked").unlink()
    assert snapshot(*places) == before


def test_a_file_changed_since_the_plan_stops_the_change(places: list[Path], snapshot: Snapshot) -> None:
    (places[1] / "p" / "changed.py").write_bytes(b"mine\n")
    before = snapshot(*places)
    with locked(places), pytest.raises(CheckFailed, match="just been changed"):
        transaction.execute("apply", steps(places))
    assert snapshot(*places) == before


def test_stale_bytecode_goes_and_modes_stay(places: list[Path]) -> None:
    cache = places[0] / "p" / "__pycache__"
    cache.mkdir()
    for name in ("changed.cpython-311.pyc", "changed.cpython-311.opt-1.pyc", "changed2.cpython-311.pyc"):
        (cache / name).write_bytes(b"x")
    change(places)
    assert [path.name for path in cache.iterdir()] == ["changed2.cpython-311.pyc"]
    assert (places[0] / "p" / "changed.py").stat().st_mode & 0o7777 == 0o750


def test_another_name_of_the_same_file_keeps_the_old_content(places: list[Path]) -> None:
    # Installers that link from a cache must not have their cache patched.
    cached = places[0] / "cached.py"
    os.link(places[0] / "p" / "changed.py", cached)
    change(places)
    assert cached.read_bytes() == b"old\n"
    assert (places[0] / "p" / "changed.py").read_bytes() == b"new\n"
