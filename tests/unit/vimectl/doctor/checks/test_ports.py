from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.checks.ports import _other_ports

HEADER = "  sl  local_address rem_address   st\n"


def listen(machine: Machine, *ports: int) -> None:
    rows = [f"   {n}: 00000000:{port:04X} 00000000:0000 0A \n" for n, port in enumerate(ports)]
    machine.write("/proc/net/tcp", HEADER + "".join(rows))


def test_other_ports_are_free() -> None:
    assert _other_ports([]) == "61100-61150"
    assert _other_ports([61100, 61125, 61177]) == "61126-61176"


def test_ports_that_other_jobs_use_are_replaced_for_the_run(npu: Machine) -> None:
    """The launcher sets the variable: a value that is exported has no effect."""
    listen(npu, *range(60000, 60050), 61120)
    result = npu.check("environment.host-ports")
    assert result.status == "fail"
    assert result.fix.startswith("--set env.HCCL_HOST_SOCKET_PORT_RANGE=61121-61171")
    assert (
        npu.check("environment.host-ports", 'env.HCCL_HOST_SOCKET_PORT_RANGE="61121-61171"').status == "pass"
    )


@pytest.mark.parametrize(
    ("value", "status"),
    [(None, "pass"), ("60100", "pass"), ("60090", "warn"), ("65530", "warn"), ("80", "warn"), ("x", "warn")],
)
def test_base_port_begins_sixteen_free_ports(npu: Machine, value: str | None, status: str) -> None:
    listen(npu, 60095)
    if value is not None:
        npu.environment["HCCL_IF_BASE_PORT"] = value
    assert npu.check("environment.base-port").status == status
