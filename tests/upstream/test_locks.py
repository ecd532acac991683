"""The files of the locks for NPUs, for both machines, from the sources that pip is configured with."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import MissingRequirement

from vimectl.releases.locked_files import WheelTarget, download_locked
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.stacks.lock import read_lock

LOCKS = [
    (stack.name, machine)
    for stack in map(load_stack, stack_names())
    if stack.stack.device == "npu" and lock_path(stack.name)
    for machine in stack.stack.machines
]
GLIBC = "2.34"  # as in scripts/lock.py


@pytest.mark.exhaustive
@pytest.mark.needs("network")
@pytest.mark.parametrize(("name", "machine"), LOCKS)
def test_every_file_downloads_with_its_digest(
    name: str, machine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Print the files, bytes and digests. Of the packages with an origin, the index may be out of reach."""
    stack, pins = load_stack(name), read_lock(lock_path(name), machine)
    target = WheelTarget(stack.stack.lock_python, machine, GLIBC)
    listed = [pins[package] for package in stack.origin if package in pins]
    ordinary = [pin for pin in pins.values() if pin not in listed]
    files = dict(
        zip(ordinary, download_locked(ordinary, tmp_path, {}, lambda now: None, target), strict=True)
    )
    missing = []
    for pin in listed:
        try:
            (files[pin],) = download_locked([pin], tmp_path, stack.origin, lambda now: None, target)
        except MissingRequirement:
            missing.append(f"{pin.name} {pin.version}")
    assert all(sha256_file(file) in pin.hashes for pin, file in files.items())
    size = sum(file.stat().st_size for file in files.values())
    row = f"{name} {machine}: {len(pins)} pins, {len(files)} files, {size} bytes, all digests as locked"
    with capsys.disabled():
        print(f"\n{row}; not reached: {', '.join(missing) or 'none'}")
    if missing:
        pytest.skip(f"not reached: {', '.join(missing)}; {row}")
