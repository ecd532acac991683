"""One lock with pins for two machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.stacks.lock import read_lock

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text(
        f"common==1.0 \\\n    --hash=sha256:{A}\n"
        f"torch==2.0 ; platform_machine == 'aarch64' \\\n    --hash=sha256:{B}\n"
        f"torch==2.0+cpu ; platform_machine == 'x86_64' \\\n    --hash=sha256:{C}\n"
        f"only==3.0 ; platform_machine == 'x86_64' \\\n    --hash=sha256:{C}\n"
    )
    return path


@pytest.mark.parametrize(
    ("machine", "versions"),
    [
        ("x86_64", {"common": "1.0", "torch": "2.0+cpu", "only": "3.0"}),
        ("aarch64", {"common": "1.0", "torch": "2.0"}),
    ],
)
def test_pins_of_one_machine(lock: Path, machine: str, versions: dict[str, str]) -> None:
    pins = read_lock(lock, machine)
    assert {pin.name: pin.version for pin in pins.values()} == versions
    assert pins["torch"].hashes == {C if machine == "x86_64" else B}


def test_pins_of_this_machine_by_default(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert read_lock(lock) == read_lock(lock, "aarch64")


def test_pin_for_another_machine_is_checked_too(lock: Path) -> None:
    with lock.open("a") as file:
        file.write("loose>=1 ; platform_machine == 'x86_64'\n")
    with pytest.raises(UsageError, match="loose is not pinned to one version with hashes"):
        read_lock(lock, "aarch64")
