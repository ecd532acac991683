from __future__ import annotations

import base64
import io
import socket
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.patches.index_server import Index, serving
from vimectl.releases import allowance
from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import NotFound, Web
from vimectl.util.transfer_limits import MIN_RATE

NAME = "toy-1.0-py3-none-any.whl"
BASIC = "Basic " + base64.b64encode(b"me@home:s/cret").decode()


@pytest.fixture
def client(index: Index) -> Web:
    return Web(PipConfig(index_url=index.url.replace("//", "//me%40home:s%2Fcret@"), timeout=5.0))


def test_credentials_are_not_sent_after_a_redirect(index: Index, client: Web, other_index: Index) -> None:
    other_index.files[NAME] = b"x"
    index.password, index.moved = BASIC, other_index.url.removesuffix("/simple")
    with client.get(f"http://127.0.0.1:{index.port}/files/{NAME}") as answer:
        assert answer.content == b"x"
    assert (index.authorizations, other_index.authorizations) == ([BASIC], [None])


def test_netrc_credentials_are_used(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me@home password s/cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    index.password, index.files[NAME] = BASIC, b"x"
    with Web(PipConfig()).get(f"http://127.0.0.1:{index.port}/files/{NAME}") as answer:
        assert answer.ok


def test_keyring_password_is_used(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keyring").write_text('#!/bin/sh\n[ "$*" = "get $HOST me@home" ] && echo s/cret\n')
    (tmp_path / "keyring").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("HOST", f"127.0.0.1:{index.port}")
    index.password, index.files[NAME] = BASIC, b"x"
    url = index.url.replace("//", "//me%40home@")
    config = PipConfig(index_url=url, keyring_provider="subprocess")
    with Web(config).get(f"http://127.0.0.1:{index.port}/files/{NAME}") as answer:
        assert answer.ok


@pytest.mark.needs("openssl")
def test_pip_certificates_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    both, request = tmp_path / "both.pem", "req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=localhost"
    command = ["openssl", *request.split(), "-keyout", both, "-out", tmp_path / "cert.pem"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "cert.pem").read_text())
    with serving(both) as index:
        index.files[NAME] = b"x"
        url = f"https://localhost:{index.port}/files/{NAME}"
        for config in (PipConfig(cert=str(tmp_path / "cert.pem")), PipConfig(trusted_hosts=("localhost",))):
            with Web(config).get(url) as answer:
                assert answer.content == b"x"
        with pytest.raises(MissingRequirement, match="certificate verify failed"):
            Web(PipConfig()).get(url)
    with pytest.raises(MissingRequirement, match=r"certificate bundle, invalid path: .*none\.pem"):
        Web(PipConfig(cert=str(tmp_path / "none.pem"))).get(url)


def test_refusal_hides_the_password(index: Index, client: Web) -> None:
    index.password = "another"
    with pytest.raises(MissingRequirement, match="the server responded 401") as error:
        client.get(index.url.replace("//", "//me:hidden@"))
    assert "hidden" not in error.value.message
    assert "netrc" in error.value.hint
    assert len(index.requests) == 1


def test_temporary_failures_are_retried(index: Index, client: Web) -> None:
    index.files[NAME], index.failures = b"x", [503, 502]
    with client.get(f"http://127.0.0.1:{index.port}/files/{NAME}") as answer:
        assert answer.content == b"x"
    index.failures = [503, 502, 500]
    with pytest.raises(MissingRequirement, match="500"):
        client.get(index.url)


def test_missing_file_and_unreachable_server(index: Index, client: Web) -> None:
    with pytest.raises(NotFound):
        client.get(f"http://127.0.0.1:{index.port}/files/none")
    with pytest.raises(MissingRequirement, match=r"cannot be reached: .*refused") as error:
        client.get("http://127.0.0.1:1/simple")
    assert "source archive instead" in error.value.hint


def test_proxy_is_used(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY")
    index.files[NAME] = b"x"
    proxied = Web(PipConfig(proxy=f"http://127.0.0.1:{index.port}"))
    with proxied.get(f"http://nowhere.invalid/files/{NAME}") as answer:
        assert answer.content == b"x"
    assert index.requests == [f"http://nowhere.invalid/files/{NAME}"]


class SlowServer(io.RawIOBase):
    """A connection that brings a quarter of the lowest rate. ``seconds`` is the time it has taken."""

    seconds = 0.0

    def readinto(self, buffer: object) -> int:
        self.seconds += 1.0
        return MIN_RATE // 4


@pytest.mark.parametrize(("connections", "ends"), [(1, True), (8, False)])
def test_parallel_connections_share_the_lowest_rate(
    connections: int, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = SlowServer()
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: server.seconds))
    allowed = allowance.Allowance(15.0, connections)
    allowed.begin("one.example", 10**9)
    with socket.socket() as sock, pytest.raises(MissingRequirement) if ends else nullcontext():
        for _ in range(1000):
            allowed.receive(sock, server, memoryview(b""))
