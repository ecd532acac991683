from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.checkpoint.store import StatePart, CheckpointStore
from vime_runtime.spec import atomic_io
from vime_runtime.spec.errors import UsageError


def parts(text: str) -> Any:
    """Two ranks that write a text each."""

    def write(folder: Path) -> list[StatePart]:
        return [
            StatePart({f"rank-{i}": atomic_io.write_text(folder / f"rank-{i}", text * 100)}, {"rank": i})
            for i in range(2)
        ]

    return write


def keep(states: CheckpointStore, *steps: int) -> None:
    for step in steps:
        states.write(step, parts(f"state {step} "), {"driver": step})
        states.publish(step)


@pytest.fixture
def states(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", "settings")


def newest(states: CheckpointStore) -> tuple[int | None, list[str]]:
    said: list[str] = []
    state = states.newest(said.append)
    return state and state.step, said


def test_the_newest_whole_state_is_found(states: CheckpointStore) -> None:
    assert newest(states) == (None, [])
    keep(states, 5, 10)
    state = states.newest(lambda message: pytest.fail(message))
    assert state is not None
    assert (state.step, state.folder.name) == (10, "step-000010")
    assert state.random == {"driver": {"driver": 10}, "ranks": [{"rank": 0}, {"rank": 1}]}


def test_what_is_written_counts_only_once_it_is_published(states: CheckpointStore) -> None:
    keep(states, 5)
    states.write(10, parts("x"), {})
    assert newest(states) == (5, [])
    assert [path.name for path in states.folder.iterdir()] == ["step-000005"]


def test_what_is_dropped_leaves_nothing(states: CheckpointStore) -> None:
    states.write(10, parts("x"), {})
    states.drop(10)
    assert list(states.folder.iterdir()) == []


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage", "fault"),
    [
        ("rank-1", truncate, "rank-1 has 899 bytes, expected 900"),
        ("rank-1", flip_a_bit, "rank-1 does not match its digest"),
        ("rank-0", Path.unlink, "rank-0: No such file or directory"),
        ("random.json", flip_a_bit, "random.json does not match its digest"),
        ("manifest.json", truncate, None),
        ("manifest.json", lambda path: path.write_text("{"), "manifest.json cannot be read"),
        ("manifest.json", lambda path: path.write_text("[]"), "manifest.json cannot be read"),
        ("manifest.json", Path.unlink, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_state_is_passed_over_and_named(
    states: CheckpointStore, file: str, damage: Any, fault: str | None
) -> None:
    keep(states, 5, 10)
    damage(states.path(10) / file)
    step, said = newest(states)
    if fault is None:  # it lost its last line break
        assert (step, said) == (10, [])
        return
    assert step == 5
    assert len(said) == 1
    assert said[0].startswith(f"{states.path(10)} is damaged and passed over: {fault}")


def test_a_state_that_carries_the_name_of_another_step_is_passed_over(states: CheckpointStore) -> None:
    keep(states, 5)
    states.path(5).rename(states.path(7))
    assert newest(states)[0] is None


def test_a_damaged_state_makes_room_when_its_step_comes_again(states: CheckpointStore) -> None:
    keep(states, 5, 10)
    truncate(states.path(10) / "rank-0")
    keep(states, 10)
    assert newest(states) == (10, [])


def test_a_state_of_other_settings_is_refused(states: CheckpointStore) -> None:
    keep(states, 5)
    with pytest.raises(UsageError, match="step-000005 was trained with other settings"):
        newest(CheckpointStore(states.folder, "others"))


@pytest.mark.parametrize(
    ("keep_last", "besides", "left"),
    [(2, None, [4, 5]), (1, None, [5]), (2, 1, [1, 4, 5]), (9, None, [1, 2, 3, 4, 5])],
)
def test_the_last_ones_and_the_best_stay(
    states: CheckpointStore, keep_last: int, besides: int | None, left: list[int]
) -> None:
    keep(states, 1, 2, 3, 4, 5, 8)  # 8 was passed over, and the run went on from before
    states.prune(5, keep_last, besides)
    assert states.steps() == left


def test_an_error_while_writing_leaves_nothing(states: CheckpointStore) -> None:
    keep(states, 5)

    def fail(folder: Path) -> list[StatePart]:
        (folder / "rank-0").write_text("half")
        raise OSError(28, "No space left on device", str(folder / "rank-0"))

    with pytest.raises(OSError, match="No space left"):
        states.write(10, fail, {})
    assert [path.name for path in states.folder.iterdir()] == ["step-000005"]
    assert newest(states) == (5, [])


def test_the_manifest_says_what_is_there(states: CheckpointStore) -> None:
    size = states.write(5, parts("x"), {})
    states.publish(5)
    manifest = json.loads((states.path(5) / "manifest.json").read_text())
    assert (manifest["schema"], manifest["step"], manifest["settings"]) == ("vime.state/1", 5, "settings")
    assert manifest["files"].keys() == {"rank-0", "rank-1", "random.json"}
    assert sum(record["bytes"] for record in manifest["files"].values()) == size
