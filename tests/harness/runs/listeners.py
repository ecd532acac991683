"""List the sockets on which the processes of a run listen, and read docs/reference/sockets.md."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from vime_runtime.spec.process_roles import (
    DRIVER,
    ENGINE,
    ENGINE_WORKER,
    ENGINE_WORKER_SERVER,
    GCS,
    RAYLET,
    TRAINER,
)

from harness import REPOSITORY

# The role of a process by its command line.
ROLES = {
    r"\S*python\S* -m vime_runtime ": DRIVER,
    r"\S*/gcs_server ": GCS,
    r"\S*/raylet ": RAYLET,
    r"ray::RuntimeEnvAgent": "runtime environment agent",
    r"ray::IDLE": "idle Ray worker",
    r"ray::NodeActor": "node actor",
    r"ray::TrainerActor": TRAINER,
    r"ray::EngineActor": ENGINE,
    r"VLLM::WorkerServer": ENGINE_WORKER_SERVER,
    r"VLLM::Worker": ENGINE_WORKER,
}
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Listener:
    """A socket: the role of its process, its protocol, its address, and in which of the page's words."""

    process: str
    protocol: str
    where: str
    address: str
    port: int = 0

    @property
    def row(self) -> tuple[str, str, str]:
        """The cells of the page about it."""
        return self.process, self.protocol, self.where


def listeners(processes: Iterable[psutil.Process], private_folder: str) -> set[Listener]:
    """Return the sockets of these processes on which others can call them."""
    found = set()
    for process in processes:
        try:
            command = " ".join(process.cmdline())
            connections = process.net_connections("all")
        except psutil.NoSuchProcess:
            continue
        role = next((role for text, role in ROLES.items() if re.match(text, command)), command)
        for one in connections:
            if one.family == socket.AF_UNIX:
                if one.laddr:
                    private = one.laddr.startswith(f"{private_folder}/")
                    where = "private folder" if private else one.laddr
                    found.add(Listener(role, "unix", where, one.laddr))
            elif one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                protocol = "tcp" if one.type == socket.SOCK_STREAM else "udp"
                found.add(Listener(role, protocol, _where(one.laddr.ip), one.laddr.ip, one.laddr.port))
    return found


def documented(column: Literal["one node", "several nodes"]) -> set[tuple[str, str, str]]:
    """Return the process, protocol and address of each row of the page."""
    lines = (REPOSITORY / "docs" / "reference" / "sockets.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    header, _, *rows = table
    where = header.index(column)
    return {(row[0], row[1], row[where]) for row in rows if row[where] not in ("-", "your cluster")}


def machine_address() -> str:
    """Return an address of this machine that others can reach; empty without a network."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and entry.address not in LOOPBACK
    ]
    return found[0] if found else ""


def private_folder_of(run_dir: Path) -> str:
    """Return the folder for temporary files of a run."""
    from vime_runtime.spec.run_config import RunConfig

    return RunConfig.load(run_dir / "resolved.json").scratch_dir


def _where(address: str) -> str:
    if address in LOOPBACK:
        return "loopback"
    return "all interfaces" if address in EVERYWHERE else "node address"
