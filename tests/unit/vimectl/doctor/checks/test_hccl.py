from __future__ import annotations

import json

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.checks.hccl import _dispatch_bytes, _selected

NAMES = ["eth0", "eth1", "enp1", "lo"]


@pytest.mark.parametrize(
    ("value", "selected"),
    [
        ("eth", ["eth0", "eth1"]),
        ("eth,enp", ["eth0", "eth1", "enp1"]),
        ("^eth", ["enp1", "lo"]),
        ("^eth,enp", ["lo"]),
        ("=eth0,enp", ["eth0"]),
        ("=eth", []),
        ("^=eth0,eth1", ["enp1", "lo"]),
        ("eth1,", ["eth1"]),
        ("ib", []),
        ("", []),
    ],
)
def test_interfaces_are_selected_like_hccl(value: str, selected: list[str]) -> None:
    """The examples of CANN's documentation."""
    assert _selected("HCCL_SOCKET_IFNAME", value, NAMES) == selected


@pytest.mark.parametrize(
    ("variable", "value", "status"),
    [
        ("HCCL_SOCKET_IFNAME", "=eth0", "pass"),
        ("HCCL_SOCKET_IFNAME", "ib,eth", "pass"),
        ("HCCL_SOCKET_IFNAME", "=eth", "fail"),
        ("GLOO_SOCKET_IFNAME", "eth0", "pass"),
        # The launcher gives trainer and engine lo.
        ("GLOO_SOCKET_IFNAME", "eth", "warn"),
        ("GLOO_SOCKET_IFNAME", "=eth0", "warn"),
        ("GLOO_SOCKET_IFNAME", "eth0,ib0", "warn"),
        ("TP_SOCKET_IFNAME", "ib0", "warn"),
    ],
)
def test_interfaces_of_each_library(npu: Machine, variable: str, value: str, status: str) -> None:
    npu.environment[variable] = value
    assert npu.check("environment.interfaces").status == status


def test_engine_of_several_nodes_gets_the_interface_of_the_shell(npu: Machine) -> None:
    assert (
        npu.check("environment.interfaces", "cluster.nodes=2", 'env.HCCL_SOCKET_IFNAME="ib"').status == "fail"
    )


@pytest.mark.parametrize(
    ("value", "status"),
    [("10.0.0.5", "pass"), ("127.0.0.1", "pass"), ("10.0.0.6", "fail"), ("85", "fail"), ("", "fail")],
)
def test_address_is_one_of_this_machine(npu: Machine, value: str, status: str) -> None:
    npu.environment["HCCL_IF_IP"] = value
    assert npu.check("environment.host-address").status == status


def test_unknown_addresses_are_no_failure(npu: Machine) -> None:
    npu.path("/proc/net/fib_trie").unlink()
    npu.environment["HCCL_IF_IP"] = "10.0.0.6"
    assert npu.check("environment.host-address").status == "skip"


def table(devices: int) -> str:
    server = {"server_id": "10.0.0.5", "device": [{"device_id": str(n)} for n in range(devices)]}
    return json.dumps({"status": "completed", "server_count": "1", "server_list": [server]})


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        (table(8), "pass", "8 devices"),
        (table(16), "fail", "16 devices"),
        (table(0), "fail", "it has no devices"),
        (table(8).replace("completed", "initializing"), "fail", "its status is initializing"),
        ("[]", "fail", "not a rank table"),
        ("{", "fail", "not a rank table"),
        (None, "warn", "absent"),  # HCCL negotiates then
    ],
)
def test_rank_table_has_the_devices_of_the_job(
    npu: Machine, text: str | None, status: str, found: str
) -> None:
    npu.environment["RANK_TABLE_FILE"] = "/etc/table.json"
    if text is not None:
        npu.write("/etc/table.json", text)
    result = npu.check("environment.rank-table", "cluster.devices_per_node=8")
    assert (result.status, result.fix) == (status, "" if status == "pass" else "unset RANK_TABLE_FILE")
    assert found in result.found


def test_buffer_of_the_dispatch() -> None:
    """By hand, for the experts of Qwen3-30B-A3B: a row of 2048 numbers takes 4608 bytes, a token 4096."""
    assert _dispatch_bytes(64, 128, 8, 2048) == 2 * 64 * (128 * 4608 + 8 * 4096)
    assert _dispatch_bytes(512, 128, 8, 2048) == 608 * 1024**2


@pytest.mark.parametrize(
    ("value", "assignment", "status"),
    [
        (None, "rollout.tensor_parallel=4", "pass"),
        ("50", "rollout.tensor_parallel=4", "fail"),
        ("153", "rollout.tensor_parallel=4", "pass"),
        ("50", "rollout.expert_parallel=false", "pass"),
        ("0", "rollout.expert_parallel=false", "fail"),
        # 256 tokens a rank may need 304 MiB: the default is enough for fewer.
        (None, "rollout.tensor_parallel=2", "warn"),
        ("200", "rollout.tensor_parallel=2", "fail"),
    ],
)
def test_buffer_holds_the_tokens_of_a_rank(
    tmp_path_factory: pytest.TempPathFactory, value: str | None, assignment: str, status: str
) -> None:
    machine = Machine("small-hccl-buffer", tmp_path_factory.mktemp("machine"))
    del machine.environment["HCCL_BUFFSIZE"]
    if value is not None:
        machine.environment["HCCL_BUFFSIZE"] = value
    assert machine.check("environment.hccl-buffer", assignment).status == status


@pytest.mark.parametrize(("value", "status"), [("AIV", "warn"), ("AI_CPU", "pass"), ("", "pass")])
def test_collectives_of_a_trainer_are_not_for_the_vector_cores(npu: Machine, value: str, status: str) -> None:
    npu.environment["HCCL_OP_EXPANSION_MODE"] = value
    result = npu.check("environment.expansion-mode")
    assert result.status == status
    assert "A3" not in result.found
