from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.util.host import Host
from vimectl.util.ray_address import resolve


@pytest.mark.parametrize("address", ["192.0.2.7:6379", "head.example:6379", "[2001:db8::1]:6379"])
def test_an_address_is_host_and_port(address: str) -> None:
    assert resolve(Host(environment={}), address) == address


@pytest.mark.parametrize("given", ["local", "head", "head:", "ray://head:10001", "", "http://head:8265"])
def test_anything_else_is_refused_with_the_form(given: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a Ray cluster") as e:
        resolve(Host(environment={}), given)
    assert "host:port" in e.value.hint


def test_auto_is_what_the_environment_names(tmp_path: Path) -> None:
    assert resolve(Host(tmp_path, {"RAY_ADDRESS": "head:6379"})) == "head:6379"
    with pytest.raises(UsageError, match="'ray://head:10001' is not"):
        resolve(Host(tmp_path, {"RAY_ADDRESS": "ray://head:10001"}))


@pytest.mark.parametrize("variable", [None, "TMPDIR", "RAY_TMPDIR"])
def test_auto_is_otherwise_the_cluster_started_last_here(tmp_path: Path, variable: str | None) -> None:
    folder = "/elsewhere" if variable else "/tmp"
    host = Host(tmp_path, {"RAY_ADDRESS": "", **({variable: folder} if variable else {})})
    with pytest.raises(UsageError, match=f"{folder}/ray/ray_current_cluster is absent"):
        resolve(host)
    note = host.path(f"{folder}/ray/ray_current_cluster")
    note.parent.mkdir(parents=True)
    note.write_text("192.0.2.7:6379\n")
    assert resolve(host) == "192.0.2.7:6379"
