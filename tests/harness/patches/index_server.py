"""Run a local package index with the faults of real servers, and make releases for it."""

from __future__ import annotations

import hashlib
import io
import json
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

CONTENT = {"toy/__init__.py": b"", "toy/worker.py": b"a\nb\nc\n", "toy/data.bin": bytes(range(256)) * 4096}


def make_wheel(files: dict[str, bytes] = CONTENT) -> bytes:
    """Return the bytes of a wheel of one megabyte: its data is not compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return out.getvalue()


def make_sdist(root: str, files: dict[str, bytes] = CONTENT) -> bytes:
    """Return the bytes of a source archive with one top folder and a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{root}/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{root}/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "toy/worker.py"
        archive.addfile(link)
    return out.getvalue()


@dataclass
class Index:
    """The content and the behavior of the server.

    ``cuts`` are the numbers of bytes after which coming answers for files break off; ``failures`` the status
    codes that it answers first; ``stated`` digests in the listing other than the right ones, empty for none;
    ``moved`` the address that files are redirected to; ``page`` what it gives for every package instead of a
    listing; ``password`` the Authorization that it wants.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    html: bool = False
    stated: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    password: str = ""
    page: bytes = b""
    moved: str = ""
    port: int = 0
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    sent: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple"

    def sha256(self, name: str) -> str:
        return self.stated.get(name, hashlib.sha256(self.files[name]).hexdigest())

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.path} {request.headers.get('Range', '')}".strip())
        self.authorizations.append(request.headers.get("Authorization"))
        path = urlsplit(request.path).path  # a proxy gets a whole URL
        name = path.rpartition("/")[2]
        if self.password and request.headers.get("Authorization") != self.password:
            self._send(request, 401, b"")
        elif self.failures:
            self._send(request, self.failures.pop(0), b"")
        elif path.startswith("/simple/"):
            self._page(request, path.split("/")[2])
        elif self.moved:
            self._send(request, 302, b"", {"Location": f"{self.moved}/files/{name}"})
        elif name in self.files:
            self._file(request, self.files[name])
        else:
            self._send(request, 404, b"")

    def _page(self, request: BaseHTTPRequestHandler, package: str) -> None:
        names = [name for name in self.files if name.split("-")[0].replace("_", "-") == package]
        if not names and not self.page:
            self._send(request, 404, b"")
        elif self.page:
            self._send(request, 200, self.page, {"Content-Type": "application/json"})
        elif self.html:
            links = [f'<a href="../../files/{n}#sha256={self.sha256(n)}">{n}</a>' for n in names]
            self._send(request, 200, "<br>".join(links).encode(), {"Content-Type": "text/html"})
        else:
            files = [
                {
                    "filename": n,
                    "url": f"/files/{n}",
                    "hashes": {"sha256": digest} if (digest := self.sha256(n)) else {},
                    "size": len(self.files[n]),
                }
                for n in names
            ]
            kind = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
            self._send(request, 200, json.dumps({"files": files}).encode(), kind)

    def _file(self, request: BaseHTTPRequestHandler, data: bytes) -> None:
        headers, status = {}, 200
        asked = request.headers.get("Range", "").removeprefix("bytes=")
        if asked and self.ranges:
            first, _, last = asked.partition("-")
            start, stop = int(first), int(last or len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            data, status = data[start:stop], 206
        self._send(request, status, data, headers, self.cuts.pop(0) if self.cuts else None)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            request.send_header(name, value)
        request.end_headers()
        # Counted first: a client that has the whole body reads the count at once.
        self.sent += len(data[:cut])
        request.wfile.write(data[:cut])


@contextmanager
def serving(certificate: Path | None = None) -> Iterator[Index]:
    """Run a server, with ``certificate`` (and its key) over TLS, and yield its content and behavior."""
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *about: None  # a client that has seen enough hangs up
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    index.port = server.server_port
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield index
    server.shutdown()
    server.server_close()
