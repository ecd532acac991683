from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine

RAYLET = "/site/ray/core/src/ray/raylet/raylet"


@pytest.mark.parametrize(
    ("session", "environment", "status"),
    [
        ("/tmp/ray/session_1", "", "warn"),
        ("/tmp/ray/session_1", "TMPDIR=/tmp\0", "warn"),
        ("/tmp/ray/session_1", "TMPDIR=/tmp/vime-0123abcd\0", "pass"),
        # The environment of another user's process cannot be read.
        ("/tmp/vime-0123abcd/ray/session_1", "", "pass"),
    ],
)
def test_clusters_of_runs_are_no_other_clusters(
    npu: Machine, session: str, environment: str, status: str
) -> None:
    npu.write("/proc/40/cmdline", f"{RAYLET}\0--session_dir={session}\0")
    npu.write("/proc/40/status", "PPid:\t1\nUid:\t1001\t1001\t1001\t1001\nNSpid:\t40\n")
    npu.write("/proc/40/environ", environment)
    result = npu.check("cluster.ray")
    assert result.status == status
    assert "kill" not in result.fix
    assert "ray stop" not in result.fix


@pytest.mark.parametrize(
    ("hosts", "route", "status"),
    [
        ("127.0.1.1 node1\n", "", "fail"),
        ("10.0.0.5 node1\n127.0.1.1 node1\n", "", "pass"),
        ("127.0.1.1 node1\n", "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\n", "pass"),
        ("127.0.0.1 localhost # node1\n", "", "pass"),
    ],
)
def test_own_name_matters_without_a_default_route(npu: Machine, hosts: str, route: str, status: str) -> None:
    npu.write("/etc/hosts", hosts)
    npu.write("/proc/net/route", route)
    assert npu.check("cluster.hostname", "cluster.nodes=2").status == status


@pytest.mark.parametrize("name", ["189", "0x1f", "10.1", "1.2.3.4"])
def test_name_that_is_a_number_is_an_address(npu: Machine, name: str) -> None:
    npu.write("/proc/sys/kernel/hostname", f"{name}\n")
    assert npu.check("cluster.hostname").status == "warn"
    npu.environment["GLOO_SOCKET_IFNAME"] = "eth0"
    assert npu.check("cluster.hostname").status == "pass"


@pytest.mark.parametrize("name", ["node1", "1a", "10.1.2.3.4", "n189"])
def test_other_names_are_no_addresses(npu: Machine, name: str) -> None:
    npu.write("/proc/sys/kernel/hostname", f"{name}\n")
    assert npu.check("cluster.hostname").status == "pass"
