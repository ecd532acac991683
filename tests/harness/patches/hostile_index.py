"""Run a local package index that attacks its clients, and clients whose memory and disk are measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WHEEL = "toy-1.0-py3-none-any.whl"
JSON = "application/vnd.pypi.simple.v1+json"
MIB = 1024**2

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """A request, with what an attacking server answers. Every answer ends its connection."""

    index: HostileIndex

    def do_GET(self) -> None:
        self.close_connection = True
        with suppress(ConnectionError):
            if self.path.startswith("/simple/"):
                self.index.page(self)
            else:
                self.index.file(self)

    def log_message(self, *arguments: object) -> None:
        pass

    def send(
        self, body: bytes = b"", status: int = 200, reason: str | None = None, **headers: object
    ) -> None:
        """Answer with a body and its length; ``headers`` replace the length or, if None, leave it out."""
        stated = {"Content_Length": len(body), **headers}
        self.send_response(status, reason)
        for name, value in stated.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """Send a byte every 0.2 s."""
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.2)

    def forever(self, data: bytes) -> None:
        """Send some bytes again and again, 16 GiB if the client lets it."""
        data *= max(1, MIB // len(data))
        for _ in range(16 * 1024):
            self.wfile.write(data)

    def range(self, size: int) -> tuple[int, int] | None:
        """Return the first byte of a requested part and the one after it, None for a whole file."""
        first, _, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        return (int(first), min(int(last or size - 1) + 1, size)) if first else None


def listing(**stated: Any) -> Answer:
    """List the wheel; ``stated`` are other fields than the right ones. A field of None is left out."""

    def page(request: Request) -> None:
        data = request.index.data
        entry = {"filename": WHEEL, "url": f"/files/{WHEEL}", "size": len(data)}
        entry |= {"hashes": {"sha256": hashlib.sha256(data).hexdigest()}} | stated
        entry = {key: value for key, value in entry.items() if value is not None}
        request.send(json.dumps({"files": [entry]}).encode(), Content_Type=JSON)

    return page


def whole_or_part(request: Request) -> None:
    """Answer with the file as asked."""
    data = request.index.data
    if (part := request.range(len(data))) is None:
        request.send(data)
    else:
        stated = f"bytes {part[0]}-{part[1] - 1}/{len(data)}"
        request.send(data[slice(*part)], 206, Content_Range=stated)


@dataclass
class HostileIndex:
    """The server's address and what it answers; ``data`` is the wheel."""

    data: bytes
    page: Answer
    file: Answer
    url: str = ""


@contextmanager
def attacking(index: HostileIndex) -> Iterator[HostileIndex]:
    """Run the server and set its address."""
    handler = type("Handler", (Request,), {"index": index})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *about: None  # a client that has seen enough hangs up
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield index
    finally:
        server.shutdown()
        server.socket.close()


@dataclass(frozen=True)
class Outcome:
    """``code`` is None for a client that was killed after ``TIMEOUT``. Memory is the peak above the start."""

    code: int | None
    output: str
    memory: int
    disk: int


class Clients:
    """Run `vimectl patch lint --against toy==1.0` many times, forked by a process that has the imports."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._patch = folder / "toy.patch"
        self._patch.write_text("--- a/toy/worker.py\n+++ b/toy/worker.py\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n")
        script = Path(__file__).with_name("measured_clients.py")
        command = [sys.executable, str(script), str(folder)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def lint(self, url: str, parts: bool, patience: float) -> Outcome:
        """Run a client.

        Args:
            parts: it compares what it reads with known hashes, so that parts of a wheel are enough.
            patience: how long it waits for a server, and twice as long as for one answer, in seconds.
        """
        assert self._server.stdin
        assert self._server.stdout
        command = {"url": url, "parts": parts, "patience": patience, "patch": str(self._patch)}
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        done = json.loads(self._server.stdout.readline())
        output = (self._folder / "output").read_text(errors="surrogateescape")
        files = (path for path in (self._folder / "cache").rglob("*") if path.is_file())
        disk = sum(path.stat().st_size for path in files)
        return Outcome(done["code"], output, done["memory"], disk)

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait()
