"""Machines described by a directory, a dictionary and answered commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vimectl.stacks.catalog import load_stack, lock_path
from vimectl.stacks.lock import read_lock
from vimectl.util.host import CommandResult, Host

GIB = 1024**3
SITE = "usr/local/lib/python3.11/site-packages"


@dataclass
class Machine:
    """A machine that a test changes until one thing is wrong with it."""

    root: Path
    site: str = SITE
    environment: dict[str, str] = field(default_factory=dict)
    commands: dict[str, CommandResult] = field(default_factory=dict)

    def host(self) -> Host:
        def run(argv: Sequence[str], timeout: float) -> CommandResult:
            return self.commands.get(" ".join(argv), CommandResult(127, "", f"{argv[0]}: not found"))

        return Host(self.root, self.environment, run)

    def write(self, path: str, content: str = "") -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def install(self, name: str, version: str, site: str = SITE) -> None:
        (self.root / site / f"{name.replace('-', '_')}-{version}.dist-info").mkdir(parents=True)

    def df(self, path: str, size: int, free: int) -> None:
        line = f"none {size // 1024} {(size - free) // 1024} {free // 1024} 1% {path}"
        header = "Filesystem 1024-blocks Used Available Capacity Mounted on"
        self.commands[f"df -Pk {path}"] = CommandResult(0, f"{header}\n{line}\n")

    def process(self, pid: int, argv: list[str], environment: str = "") -> None:
        self.write(f"/proc/{pid}/cmdline", "\0".join(argv) + "\0")
        self.write(f"/proc/{pid}/environ", environment)


def basic(root: Path, architecture: str, cores: int, memory: int) -> Machine:
    machine = Machine(root)
    machine.commands["uname -sm"] = CommandResult(0, f"Linux {architecture}\n")
    machine.commands["uname -m"] = CommandResult(0, f"{architecture}\n")
    machine.commands["git --version"] = CommandResult(0, "git version 2.43.0\n")
    machine.write("/proc/meminfo", f"MemTotal: {memory // 1024} kB\nMemAvailable: {memory // 1024} kB\n")
    machine.write("/proc/self/status", f"Name:\tpython\nCpus_allowed_list:\t0-{cores - 1}\n")
    machine.write(
        "/proc/self/limits", "Max open files            1024                65536                files\n"
    )
    (root / "dev" / "shm").mkdir(parents=True)
    machine.df("/dev/shm", 8 * GIB, 8 * GIB)
    machine.df(".", 100 * GIB, 50 * GIB)
    return machine


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A machine of which nothing can be read."""
    return Machine(tmp_path)


@pytest.fixture
def cpu(tmp_path: Path) -> Machine:
    """A machine on which the CPU stack is installed as locked."""
    machine = basic(tmp_path, "x86_64", 2, 16 * GIB)
    for pin in read_lock(lock_path("cpu-0.32")).values():
        machine.install(pin.name, pin.version)
    machine.write(f"{SITE}/torch/version.py", "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n")
    return machine


@pytest.fixture
def npu(tmp_path: Path) -> Machine:
    """A host with eight NPUs and the Ascend stack, all well but for the memory saver's library."""
    machine = basic(tmp_path, "aarch64", 192, 1024 * GIB)
    ascend = load_stack("ascend-0.22")
    for name, version in ascend.packages.items():
        machine.install(name, version)
    for device in (*(f"davinci{n}" for n in range(8)), "davinci_manager", "devmm_svm", "hisi_hdc"):
        machine.write(f"/dev/{device}")
    machine.commands["npu-smi info"] = CommandResult(0, "npu-smi 25.2.0\n")
    return machine
