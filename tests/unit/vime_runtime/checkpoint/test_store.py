from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vime_runtime.checkpoint.store import CheckpointStore, StatePart
from vime_runtime.spec import atomic_io
from vime_runtime.spec.checkpoint_manifest import CheckpointManifest, state_steps
from vime_runtime.spec.errors import UsageError


def parts(text: str) -> Any:
    """Two ranks that write a text each."""

    def write(folder: Path) -> list[StatePart]:
        return [
            StatePart({f"rank-{i}": atomic_io.write_text(folder / f"rank-{i}", text * 100)}, {"rank": i})
            for i in range(2)
        ]

    return write


def save(store: CheckpointStore, *steps: int) -> None:
    for step in steps:
        store.write(step, parts(f"state {step} "), {"driver": step})
        store.publish(step)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", "settings")


def newest(store: CheckpointStore) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    state = store.newest(warnings.append)
    return state and state.step, warnings


def test_the_newest_state_is_found(store: CheckpointStore) -> None:
    assert newest(store) == (None, [])
    save(store, 5, 10)
    state = store.newest(lambda message: pytest.fail(message))
    assert state is not None
    assert (state.step, state.folder.name) == (10, "step-000010")
    assert state.random == {"driver": {"driver": 10}, "ranks": [{"rank": 0}, {"rank": 1}]}


def test_an_unpublished_state_is_ignored_and_removed(store: CheckpointStore) -> None:
    save(store, 5)
    store.write(10, parts("x"), {})
    assert newest(store) == (5, [])
    assert [path.name for path in store.folder.iterdir()] == ["step-000005"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "change", "damage"),
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
def test_a_damaged_state_is_skipped_with_a_warning(
    store: CheckpointStore, file: str, change: Any, damage: str | None
) -> None:
    save(store, 5, 10)
    change(store.path(10) / file)
    step, warnings = newest(store)
    if damage is None:  # it lost its last line break
        assert (step, warnings) == (10, [])
        return
    assert step == 5
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{store.path(10)} is damaged and skipped: {damage}")


def test_a_state_under_the_name_of_another_step_is_skipped(store: CheckpointStore) -> None:
    save(store, 5)
    store.path(5).rename(store.path(7))
    assert newest(store)[0] is None


def test_a_damaged_state_is_replaced_when_its_step_is_repeated(store: CheckpointStore) -> None:
    save(store, 5, 10)
    truncate(store.path(10) / "rank-0")
    save(store, 10)
    assert newest(store) == (10, [])


def test_a_state_of_other_settings_is_an_error(store: CheckpointStore) -> None:
    save(store, 5)
    with pytest.raises(UsageError, match="step-000005 was trained with other settings"):
        newest(CheckpointStore(store.folder, "others"))


@pytest.mark.parametrize(
    ("keep_last", "best", "left"),
    [(2, None, [4, 5]), (1, None, [5]), (2, 1, [1, 4, 5]), (9, None, [1, 2, 3, 4, 5])],
)
def test_prune_keeps_the_last_states_and_the_best(
    store: CheckpointStore, keep_last: int, best: int | None, left: list[int]
) -> None:
    save(store, 1, 2, 3, 4, 5, 8)  # 8 was damaged, and the run resumed from 5
    store.prune(5, keep_last, best)
    assert state_steps(store.folder) == left


def test_the_manifest_lists_every_file_with_its_size(store: CheckpointStore) -> None:
    size = store.write(5, parts("x"), {})
    store.publish(5)
    files = CheckpointManifest.load(store.path(5)).files
    assert files.keys() == {"rank-0", "rank-1", "random.json"}
    assert sum(record.bytes for record in files.values()) == size
