"""The cluster of several nodes, on described machines."""

from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine

SITE = "/opt/env/lib/python3.{}/site-packages/ray"
ROUTE = "eth0\t00000000\t{}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"


@pytest.mark.parametrize(
    ("python", "ray", "status"),
    [(11, "2.48.0", "pass"), (11, "2.12.0", "fail"), (9, "2.48.0", "fail"), (11, "", "pass")],
)
def test_ray_and_python_of_the_raylet(npu: Machine, python: int, ray: str, status: str) -> None:
    site = SITE.format(python)
    npu.write("/proc/40/cmdline", f"{site}/core/src/ray/raylet/raylet\0")
    if ray:
        npu.write(f"{site}/_version.py", f'version = "{ray}"\n')
    result = npu.check("cluster.version", "cluster.nodes=2")
    assert result.status == status
    assert "ray stop" not in result.fix


@pytest.mark.parametrize(("user", "status"), [("0", "fail"), ("4711", "warn")])
def test_process_of_a_third_user_does_not_prevent_a_run(npu: Machine, user: str, status: str) -> None:
    site = SITE.format(9)
    npu.write("/proc/40/cmdline", f"{site}/core/src/ray/raylet/raylet\0")
    npu.write("/proc/40/status", f"Name:\tsleep\nPPid:\t1\nUid:\t{user}\t{user}\t{user}\t{user}\n")
    assert npu.check("cluster.version", "cluster.nodes=2").status == status


@pytest.mark.parametrize(
    ("marker", "gateway", "status"),
    [
        ("/.dockerenv", "010011AC", "fail"),
        ("/run/.containerenv", "0100580A", "fail"),
        (None, "010011AC", "pass"),  # such a network can be real
        ("/.dockerenv", "0100000A", "pass"),
    ],
)
def test_default_bridge_of_a_container(npu: Machine, marker: str | None, gateway: str, status: str) -> None:
    npu.write("/proc/net/route", ROUTE.format(gateway))
    if marker:
        npu.write(marker)
    assert npu.check("cluster.address-reachable", "cluster.nodes=2").status == status
