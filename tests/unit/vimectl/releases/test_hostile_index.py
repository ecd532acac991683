"""Meet each attack of an index with a clear error, little memory and little disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.patches.hostile_index import (
    JSON,
    MIB,
    WHEEL,
    Answer,
    Clients,
    HostileIndex,
    Request,
    attacking,
    listing,
    whole_or_part,
)
from harness.patches.index_server import CONTENT, make_wheel

# Twice a page of 16 MiB and what is parsed of it, or a member of 64 MiB. The limit of a client is 1 GiB.
MEMORY = 128 * MIB
DISK = 24 * MIB
ENTRY = json.dumps({"filename": WHEEL, "url": f"/files/{WHEEL}", "hashes": {}}).encode()
SDIST = "toy-1.0.tar.gz"
TOY = make_wheel()
LISTED = listing()
OTHER = make_wheel(CONTENT | {"toy/worker.py": b"x\ny\nz\n"})


@dataclass(frozen=True)
class Attack:
    """An index, the expected exit code, and what the message says.

    ``parts``: the wheel is read in parts. ``patience``: the seconds that the client waits for the server.
    """

    id: str
    code: int
    message: str
    page: Answer = LISTED
    file: Answer = whole_or_part
    data: Callable[[], bytes] | None = None
    parts: bool = False
    patience: float = 60.0


def body(content: bytes, kind: str = JSON, **headers: Any) -> Answer:
    return lambda request: request.send(content, Content_Type=kind, **headers)


def html(content: bytes) -> Answer:
    return body(content, "text/html")


def files(*entries: bytes) -> Answer:
    return body(b'{"files": [' + b",".join(entries) + b"]}")


def endless(status: int, **headers: object) -> Answer:
    def answer(request: Request) -> None:
        request.send(status=status, Content_Length=None, **headers)
        request.forever(b"[")

    return answer


def raw(start: bytes, again: bytes = b"") -> Answer:
    """Answer with bytes, then others for ever."""

    def answer(request: Request) -> None:
        request.wfile.write(start)
        if again:
            request.forever(again)

    return answer


def slow(status: int, **headers: object) -> Answer:
    def answer(request: Request) -> None:
        request.send(status=status, **headers)
        request.drip(b" " * 10_000)

    return answer


def slow_headers(request: Request) -> None:
    request.drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)


def silent(request: Request) -> None:
    time.sleep(30)


def redirect(location: str, then: Answer | None = None) -> Answer:
    """Redirect; with ``then`` the client may follow to that."""

    def answer(request: Request) -> None:
        if then and request.path.endswith("?again"):
            then(request)
        else:
            request.send(status=302, Location=location)

    return answer


def endless_redirect(request: Request) -> None:
    if request.path.endswith("?again"):
        listing()(request)
    else:
        endless(302, Location="?again")(request)


def in_parts(**changed: Any) -> Answer:
    """Answer with the right part of the file and other headers."""

    def answer(request: Request) -> None:
        data = request.index.data
        if (part := request.range(len(data))) is None:
            request.send(data)
            return
        headers = {"Content_Range": f"bytes {part[0]}-{part[1] - 1}/{len(data)}"}
        headers |= {
            key: value.format(*part) if isinstance(value, str) else value for key, value in changed.items()
        }
        request.send(data[slice(*part)], 206, **headers)

    return answer


def cut_part(request: Request) -> None:
    data = request.index.data
    start, stop = request.range(len(data)) or (0, len(data))
    stated = f"bytes {start}-{stop - 1}/{len(data)}"
    request.send(data[start : start + 7], 206, Content_Length=stop - start, Content_Range=stated)


def endless_part(request: Request) -> None:
    data = request.index.data
    start, stop = request.range(len(data)) or (0, len(data))
    endless(206, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")(request)


def other_in_parts(request: Request) -> None:
    """Answer with another wheel of the same size, when it is read in parts."""
    data = request.index.data
    part = request.range(len(data))
    request.index.data = OTHER if part else data
    whole_or_part(request)
    request.index.data = data


def steady(request: Request) -> None:
    """Send the file at 256 KiB/s: slower than the client waits for a server, but above the lowest rate."""
    data = request.index.data
    request.send(Content_Length=len(data))
    for start in range(0, len(data), 64 * 1024):
        request.wfile.write(data[start : start + 64 * 1024])
        time.sleep(0.25)


def slow_part(request: Request) -> None:
    data = request.index.data
    start, stop = request.range(len(data)) or (0, len(data))
    stated = f"bytes {start}-{stop - 1}/{len(data)}"
    request.send(status=206, Content_Length=stop - start, Content_Range=stated)
    request.drip(data[start:stop])


def sdist(data: Callable[[], bytes]) -> dict[str, Any]:
    """Offer a source archive."""
    return {"page": listing(filename=SDIST, url=f"/files/{SDIST}"), "data": data}


def wheel_with(size: int, compression: int = zipfile.ZIP_DEFLATED, noise: int = 0) -> bytes:
    """Return a wheel with a member of so many zeros, and one of random bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression, compresslevel=1) as archive:
        with archive.open("toy/worker.py", "w") as member:
            for _ in range(size // MIB):
                member.write(bytes(MIB))
        archive.writestr("toy/noise", os.urandom(noise))
    return out.getvalue()


def lying_wheel() -> bytes:
    """Return a wheel whose member has 64 MiB and states 6 bytes."""
    stated, small = (size.to_bytes(4, "little") for size in (64 * MIB, 6))
    return wheel_with(64 * MIB).replace(stated, small)


def wheel_with_members(count: int) -> bytes:
    """Return a wheel whose directory lists a member so many times."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("toy/worker.py", b"")
    data = out.getvalue()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    size = (count * (end - start)).to_bytes(4, "little")
    return data[:start] + count * data[start:end] + data[end : end + 12] + size + data[end + 16 :]


def tar_header(size: int = 0, **attributes: Any) -> bytes:
    """Return the header of a member that states this size."""
    member = tarfile.TarInfo("toy-1.0/toy/worker.py")
    member.size = size
    for key, value in attributes.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.GNU_FORMAT)


def gzipped(start: bytes, zeros: int = 0) -> bytes:
    """Return the gzip data of bytes and so many MiB of zeros."""
    return gzip.compress(start) + zeros * gzip.compress(bytes(MIB))


def bz2_bomb() -> bytes:
    return bz2.compress(tar_header(600 * MIB)) + 600 * bz2.compress(bytes(MIB))


MD5 = {"md5": hashlib.md5(TOY, usedforsecurity=False).hexdigest()}
PAGES = [
    Attack("endless", 2, "more than the expected", endless(200, Content_Type=JSON)),
    Attack("long", 2, "more than the expected", body(b"", Content_Length=10**12)),
    Attack(
        "endless-chunks",
        2,
        "more than the expected|without end",
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"40\r\n" + b"[" * 64 + b"\r\n"),
    ),
    Attack(
        "endless-chunk-size",
        3,
        "breaks off",
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ),
    Attack(
        "endless-trailer",
        2,
        "without end|not the response",
        raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: y\r\n",
        ),
    ),
    Attack("endless-headers", 3, "cannot be reached", raw(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")),
    Attack("endless-header", 3, "cannot be reached", raw(b"HTTP/1.1 200 OK\r\nX: ", b"y")),
    Attack("endless-continue", 2, "without end", raw(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    Attack("endless-redirect-body", 0, "ok", endless_redirect),
    Attack("endless-503", 3, "responded 503", endless(503)),
    Attack("slow-headers", 3, "too slow", slow_headers, patience=2.0),
    Attack("slow-page", 3, "too slow", slow(200, Content_Length=10_000), patience=2.0),
    Attack("silent", 3, "cannot be reached|too slow", silent, patience=2.0),
    Attack("no-http", 3, "cannot be reached", raw(b"SSH-2.0-OpenSSH\r\n")),
    Attack("redirect-loop", 3, "more than 20 redirects", redirect("/simple/toy/")),
    Attack("redirect-to-a-file", 2, "on no server", redirect("file:///etc/passwd")),
    Attack("redirect-to-ftp", 2, "on no server", redirect("ftp://127.0.0.1:1/x")),
    Attack("redirect-to-nothing", 2, "on no server", redirect("http://[")),
    Attack("redirect-with-escapes", 2, "on no server", redirect("x:\x1b]0;PWN\x07")),
    Attack(
        "gzip-bomb", 2, "unpacks to more", body(gzip.compress(bytes(64 * MIB), 1), Content_Encoding="gzip")
    ),
    Attack(
        "gzip-page",
        0,
        "ok",
        lambda request: request.send(
            gzip.compress(b'<a href="/files/%s">' % WHEEL.encode()), Content_Encoding="gzip"
        ),
    ),
    Attack("unknown-encoding", 2, "compressed as 'br", body(b"x", Content_Encoding="br\x1b[31m")),
    Attack("deep-json", 2, "not the response", body(b"[" * 300_000)),
    Attack("deep-json-object", 2, "not the response", body(b'{"files":' * 100_000)),
    Attack("many-arrays", 2, "not the response", body(b"[" + b"[]," * (5 * MIB) + b"0]")),
    Attack("no-json", 2, "not the response", body(b"\xff\xfe\xfd")),
    Attack("empty", 2, "not the response", body(b"")),
    Attack("number", 2, "not the response", body(b"5")),
    Attack("files-object", 2, "not an array", body(b'{"files": {"a": 1}}')),
    Attack("cut", 3, "breaks off", body(b"{", Content_Length=100)),
    Attack(
        "escapes-in-reason",
        3,
        "responded 404|not found|responded 418",
        lambda request: request.send(status=418, reason="\x1b]0;PWN\x07\x1b[31m"),
    ),
    Attack("many-files", 2, "lists 60000 files", files(*[ENTRY] * 60_000)),
    Attack("too-many-files", 2, "more than the expected", files(*[ENTRY] * 200_000)),
    Attack("file-number", 2, "file 1: not an object", files(b"5")),
    Attack("name-number", 2, "filename is not a text", listing(filename=5)),
    Attack("name-absent", 2, "no .*filename", listing(filename=None)),
    Attack(
        "name-with-slash", 2, "slash or a control", listing(filename="toy-1.0-py3-none-any/../../../evil.whl")
    ),
    Attack(
        "name-with-escapes",
        2,
        "slash or a control",
        listing(filename="toy-1.0-py3-none-any\x1b]0;PWN\x07\x1b[31m.whl"),
    ),
    Attack("name-long", 2, "no release of toy", listing(filename=f"toy-1.0-py3-none-{'a' * 300}.whl")),
    Attack("url-number", 2, "url is not a text", listing(url=5)),
    Attack("url-absent", 2, "no .*url", listing(url=None)),
    Attack("url-malformed", 2, "Invalid|IPv6", listing(url="http://[")),
    Attack("url-with-escapes", 2, "on no server", listing(url="http://127.0.0.1/\x1b]0;PWN\x07")),
    Attack("url-not-unicode", 2, "on no server", listing(url="/\ud800")),
    Attack("url-bad-port", 3, "cannot be reached", listing(url=f"http://127.0.0.1:99999/{WHEEL}")),
    Attack("url-file", 2, "on no server", listing(url="file:///etc/passwd", hashes={})),
    Attack("url-device", 2, "on no server", listing(url="file:///dev/zero")),
    Attack("url-ftp", 2, "on no server", listing(url=f"ftp://127.0.0.1:1/{WHEEL}")),
    Attack("hashes-array", 2, "as hashes no object", listing(hashes=["x"])),
    Attack("hash-number", 2, "as sha256 5", listing(hashes={"sha256": 5})),
    Attack("hash-short", 2, "as sha256 'abc'", listing(hashes={"sha256": "abc"})),
    Attack("size-text", 2, "has the size '12'", listing(size="12")),
    Attack("size-negative", 2, "has the size -5", listing(size=-5)),
    Attack("size-huge", 2, "has the size 10000000", listing(size=10**18)),
    Attack("size-fraction", 2, "has the size 1.5", listing(size=1.5)),
    Attack("html-many-tags", 2, "too many or too long tags", html(b"<a>" * (4 * MIB))),
    Attack("html-long-tag", 2, "too many or too long tags", html(b"<a" + b" a" * MIB)),
    Attack(
        "html-odd-links",
        2,
        "no release of toy",
        html(b'<base href="http://["><a href="javascript:alert(1)">x</a><a href="http://[">y</a><a>z</a></x'),
    ),
    Attack("html-escapes", 2, "slash or a control", html(b'<a href="%1b]0;PWN%07-1.0.tar.gz">x</a>')),
    Attack(
        "html-slashes", 2, "slash or a control", html(b'<a href="toy-1.0-py3-none-any%2F..%2Fx.whl">x</a>')
    ),
]
FILES = [
    Attack("absent", 3, "not found", file=lambda request: request.send(status=404)),
    Attack("failing", 3, "responded 503", file=lambda request: request.send(status=503)),
    Attack(
        "length-no-number",
        3,
        "states the length 'abc'",
        file=raw(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n"),
    ),
    Attack("endless", 2, "more than the expected", file=endless(200)),
    Attack("endless-unstated", 2, "more than the expected", listing(size=None), endless(200)),
    Attack(
        "longer",
        1,
        "found 99999999 bytes, expected",
        file=lambda request: request.send(Content_Length=99999999),
    ),
    Attack("shorter", 1, "found 3 bytes, expected", file=lambda request: request.send(b"abc")),
    Attack(
        "cut",
        3,
        "breaks off",
        file=lambda request: request.send(b"abc", Content_Length=len(request.index.data)),
    ),
    Attack(
        "resumed-elsewhere",
        0,
        "ok",
        file=lambda request: (
            request.send(b"abc" * 99, Content_Length=len(request.index.data))
            if not request.range(10)
            else request.send(request.index.data, 206, Content_Range="bytes 9-19/20")
        ),
    ),
    Attack("other-digest", 1, "found sha256 .*expected 000", listing(hashes={"sha256": "0" * 64})),
    Attack("md5", 0, "ok", listing(hashes=MD5)),
    Attack("no-digest", 0, "not verified", listing(hashes={})),
    Attack("unknown-digest", 0, "not verified", listing(hashes={"md6": "x"})),
    Attack("slow", 3, "too slow", file=slow(200, Content_Length=len(TOY)), patience=2.0),
    Attack("steady", 0, "ok", file=steady, patience=2.0),
    Attack("redirect-to-a-file", 2, "on no server", file=redirect("file:///dev/zero")),
    Attack("redirect", 0, "ok", file=redirect("?again", whole_or_part)),
    Attack("other-in-parts", 0, "ok", file=other_in_parts),
    Attack("no-zip", 2, "not a whole wheel", data=lambda: b"x" * 1000),
    Attack("bomb", 2, "unpacks to more than", data=lambda: wheel_with(256 * MIB)),
    Attack("large-member", 2, "cannot be read: it has", data=lambda: wheel_with(65 * MIB, noise=MIB)),
    Attack("lying-member", 2, "cannot be read|not a whole", data=lying_wheel),
    Attack("many-members", 2, "more than 50000 members", data=lambda: wheel_with_members(50_001)),
    Attack(
        "other-compression", 2, "not compressed like", data=lambda: wheel_with(32 * MIB, zipfile.ZIP_BZIP2)
    ),
    Attack("tar-bomb", 2, "unpacks to more than", **sdist(lambda: gzipped(tar_header(1024 * MIB), 1024))),
    Attack("tar-negative", 2, "negative size", **sdist(lambda: gzipped(tar_header(-1024), 1))),
    Attack(
        "tar-sparse",
        2,
        "not a whole archive",
        **sdist(lambda: gzipped(tar_header(8 * 1024 * MIB, type=tarfile.GNUTYPE_SPARSE), 1)),
    ),
    Attack(
        "tar-long-name",
        2,
        "header is larger",
        **sdist(lambda: gzipped(tar_header(512 * MIB, type=tarfile.GNUTYPE_LONGNAME), 512)),
    ),
    Attack(
        "tar-headers",
        2,
        "not a whole archive",
        **sdist(lambda: gzipped(5000 * tar_header(type=tarfile.XHDTYPE))),
    ),
    Attack(
        "tar-link",
        2,
        "not a whole archive",
        **sdist(lambda: gzipped(tar_header(type=tarfile.LNKTYPE, linkname="toy-1.0/b"), 1)),
    ),
    Attack("tar-many", 2, "more than 50000 members", **sdist(lambda: gzipped(50_001 * tar_header(), 1))),
    Attack("tar-bz2-bomb", 2, "unpacks to more than", **sdist(bz2_bomb)),
]
PARTS = [
    Attack("right", 0, "ok", parts=True),
    Attack("endless", 2, "more than the expected", file=endless_part, parts=True),
    Attack("long", 2, "more than the expected", file=in_parts(Content_Length=10**12), parts=True),
    Attack("cut", 3, "breaks off", file=cut_part, parts=True),
    Attack("another", 0, "ok", file=in_parts(Content_Range="bytes 1-{1}/1048912"), parts=True),
    Attack("unstated", 0, "ok", file=in_parts(Content_Range=None), parts=True),
    Attack("odd", 0, "ok", file=in_parts(Content_Range="bytes \x1b[31m"), parts=True),
    Attack("huge", 0, "ok", listing(size=None), in_parts(Content_Range=f"bytes 0-0/{10**17}"), parts=True),
    Attack("negative", 0, "ok", listing(size=None), in_parts(Content_Range="bytes 0-0/-1"), parts=True),
    Attack("unasked", 0, "ok", file=lambda request: request.send(request.index.data), parts=True),
    Attack("slow", 3, "too slow", file=slow_part, parts=True, patience=2.0),
]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    running = Clients(tmp_path_factory.mktemp("clients"))
    yield running
    running.close()


def check(attack: Attack, clients: Clients) -> None:
    data = attack.data() if attack.data else TOY
    with attacking(HostileIndex(data, attack.page, attack.file)) as served:
        found = clients.lint(served.url, attack.parts, attack.patience)
    shown = (found.code, found.output[:2000], found.memory // MIB, found.disk // MIB)
    assert found.code == attack.code, shown
    assert re.search(attack.message, found.output), shown
    assert not re.search(r"[^\n\t -~]|Traceback|--debug", found.output), shown
    assert found.memory < MEMORY, shown
    assert found.disk < DISK, shown


@pytest.mark.parametrize("attack", PAGES, ids=lambda one: one.id)
def test_page(attack: Attack, clients: Clients) -> None:
    check(attack, clients)


@pytest.mark.parametrize("attack", FILES, ids=lambda one: one.id)
def test_file(attack: Attack, clients: Clients) -> None:
    check(attack, clients)


@pytest.mark.parametrize("attack", PARTS, ids=lambda one: one.id)
def test_part(attack: Attack, clients: Clients) -> None:
    check(attack, clients)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "absent"])
def test_local_source_that_is_no_regular_file(kind: str, tmp_path: Path, clients: Clients) -> None:
    path = tmp_path / WHEEL
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    (tmp_path / "toy").mkdir()
    digest = "0" * 64
    (tmp_path / "toy" / "index.html").write_text(f'<a href="../{WHEEL}#sha256={digest}">toy</a>')
    found = clients.lint(tmp_path.as_uri(), False, 60.0)
    assert (found.code, "cannot be read" in found.output) == (2, True), found.output
