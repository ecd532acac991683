"""Answers of hccn_tool for the NPUs of the job."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine
from vimectl.util.host import CommandResult


@pytest.fixture
def node(tmp_path: Path) -> Machine:
    """One of two nodes without problems."""
    return Machine("two-nodes", tmp_path / "machine")


@pytest.mark.parametrize("check", ["network.link", "network.addresses", "network.tls", "network.health"])
def test_unknown_answers_are_shown_and_not_judged(node: Machine, check: str) -> None:
    node.commands["*/hccn_tool *"] = CommandResult(1, "", "Command execute failed!\nreason: 0x12\n")
    result = node.check(check)
    assert result.status == "skip"
    assert "NPU 0: Command execute failed! / reason: 0x12; NPU 1:" in result.found


def test_only_the_npus_of_the_job_matter(node: Machine) -> None:
    node.commands["*/hccn_tool -i 1 -link -g"] = CommandResult(0, "link status: DOWN\n")
    assert node.check("network.link").status == "fail"
    node.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0,2,3,4"
    four = ("cluster.devices_per_node=4", "memory.host_bytes=300_000_000_000")
    assert node.check("network.link", *four).status == "pass"


def test_npu_without_an_address_in_the_file(node: Machine) -> None:
    file = node.path("/etc/hccn.conf")
    file.write_text(file.read_text().replace("address_3=29.1.0.13\n", ""))
    result = node.check("network.addresses")
    assert (result.status, result.found) == ("fail", "NPU 3 has 29.1.0.13, /etc/hccn.conf no address of it")
    assert result.fix.endswith("hccn_tool -i 3 -ip -s address 29.1.0.13 netmask 255.255.0.0")


@pytest.mark.parametrize(("state", "status"), [("Init", "pass"), ("Receive timeout", "warn")])
def test_health_of_the_network(node: Machine, state: str, status: str) -> None:
    node.commands["*/hccn_tool -i 4 -net_health -g"] = CommandResult(0, f"net health status: {state}\n")
    assert node.check("network.health").status == status


def test_tool_on_the_path_needs_no_mount(node: Machine) -> None:
    node.path("/usr/local/Ascend/driver/tools/hccn_tool").unlink()
    node.commands["*/hccn_tool *"] = CommandResult(127)
    assert node.check("network.files").status == "fail"
    node.commands["hccn_tool -i *"] = CommandResult(0, "link status: UP\n")
    assert node.check("network.files").status == "pass"
