"""`vimectl doctor --address`: two raylets on this machine, each with another described machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.doctor.described_machine import Machine
from harness.doctor.two_nodes import ADDRESSES, TwoNodes
from vimectl.doctor import nodes as module
from vimectl.doctor.nodes import examine_nodes
from vimectl.doctor.runner import run_checks
from vimectl.patches.blobs import blob_id
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import CommandResult, Host

RECIPE = (
    *("--recipe", "qwen3-4b-tp2", "--set", "model.path=/models/Qwen3-4B"),
    *("--set", "data.path=/data/train.jsonl", "--set", "cluster.nodes=2"),
)
HEAD, OTHER = ADDRESSES

pytestmark = pytest.mark.slow


def doctor(nodes: TwoNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vimectl", "doctor", "--address", nodes.address, *arguments]
    return subprocess.run(argv, env=nodes.environment, capture_output=True, text=True)


def report(nodes: TwoNodes, *arguments: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the report as JSON, and the checks of the group nodes by id."""
    done = doctor(nodes, *RECIPE, "--json", *arguments)
    document: dict[str, Any] = json.loads(done.stdout)
    return document, {check["id"]: check for check in document["checks"] if check["group"] == "nodes"}


def configure(machine: Machine, number: int) -> None:
    """Give a machine its own addresses, in networks of all nodes."""
    hccn = [f"address_{npu}=29.89.{npu}.{number}\nnetmask_{npu}=255.255.255.0\n" for npu in range(8)]
    machine.write("/etc/hccn.conf", "".join(hccn))
    for npu in range(8):
        answer = f"ipaddr:29.89.{npu}.{number}\nnetmask:255.255.255.0\n"
        machine.commands[f"*/hccn_tool -i {npu} -ip -g"] = CommandResult(0, answer)
    machine.write("/usr/local/Ascend/driver/tools/hccn_tool")
    machine.write("/sys/class/net/eth0/flags", "0x1003\n")
    machine.write("/proc/net/fib_trie", f"  |-- 10.0.0.{number}\n     /32 host LOCAL\n")
    machine.write(
        "/proc/net/route", "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )  # 10.0.0.0/24
    machine.environment["HCCL_IF_IP"] = f"10.0.0.{number}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., TwoNodes]]:
    """Start two nodes with machines that a function changes, and clocks that are off by so many seconds."""
    started: list[TwoNodes] = []

    def two_nodes(change: Callable[[Machine], None] = lambda machine: None, clock: float = 0) -> TwoNodes:
        machines = [Machine("a2-host", tmp_path / name) for name in ("head", "other")]
        for number, machine in enumerate(machines, 1):
            configure(machine, number)
        change(machines[1])
        started.append(TwoNodes(machines, (0, clock)))
        return started[-1]

    yield two_nodes
    for nodes in started:
        nodes.close()


def break_everything(machine: Machine) -> None:
    """Make a node differ in a version, a patch, a chip, addresses, a variable and a file of the model."""
    (metadata,) = machine.root.glob("usr/local/lib/python3.11/site-packages/torch_npu-*.dist-info")
    metadata.rename(metadata.with_name("torch_npu-2.9.0.dist-info"))
    start = machine.path("/usr/local/lib/python3.11/site-packages/vllm/start.py")
    start.write_text(start.read_text().replace("strict = False", "strict = True"))
    machine.path("/dev/davinci7").unlink()
    listing = machine.commands["npu-smi info"].stdout
    rows = re.split(r"(?m)^(?=\+[-=+]+\+$)", listing)
    kept = "".join(row for row in rows if not re.search(r"^\| 7 +910B", row, re.MULTILINE))
    assert kept != listing
    machine.commands["npu-smi info"] = CommandResult(0, kept)
    hccn = machine.path("/etc/hccn.conf")
    hccn.write_text(hccn.read_text().replace("address_3=29.89.3.2", "address_3=29.89.3.1"))
    machine.environment["HCCL_BUFFSIZE"] = "512"
    config = machine.path("/models/Qwen3-4B/config.json")
    config.write_text(config.read_text() + "\n")


def test_nodes_that_agree_are_one_line(start: Callable[..., TwoNodes]) -> None:
    nodes = start()
    document, checks = report(nodes)
    assert {id: check["status"] for id, check in checks.items()} == dict.fromkeys(checks, "pass"), checks
    assert [(node["address"], node["ok"]) for node in document["nodes"]] == [(HEAD, True), (OTHER, True)]
    assert document["nodes"][0]["facts"]["package vllm"].startswith("0.22.1")
    assert f"2 nodes agree: {HEAD}, {OTHER}\n" in doctor(nodes, *RECIPE).stdout


def test_every_difference_is_named_with_its_node(start: Callable[..., TwoNodes]) -> None:
    nodes = start(break_everything, clock=90)
    document, checks = report(nodes)
    assert {id: check["status"] for id, check in checks.items()} == {
        "nodes.answer": "pass",
        "nodes.checks": "fail",
        "nodes.versions": "fail",
        "nodes.patches": "fail",
        "nodes.devices": "warn",
        "nodes.clocks": "warn",
        "nodes.networks": "fail",
        "nodes.model": "fail",
        "nodes.environment": "warn",
    }
    assert f"package torch-npu: 2.10.0 on {HEAD}; 2.9.0 on {OTHER}" in checks["nodes.versions"]["found"]
    assert checks["nodes.versions"]["fix"].startswith(f"on {OTHER}: install")
    assert re.search(rf"patches vllm: .*pristine.* on {re.escape(OTHER)}", checks["nodes.patches"]["found"])
    assert f"7 x 910B1 on {OTHER}" in checks["nodes.devices"]["found"]
    assert checks["nodes.clocks"]["found"] in (f"{OTHER} is {seconds} s ahead" for seconds in (89, 90))
    assert f"29.89.3.1 is that of NPU 3 of {HEAD} and NPU 3 of {OTHER}" in checks["nodes.networks"]["found"]
    assert "model config.json" in checks["nodes.model"]["found"]
    assert "variable HCCL_BUFFSIZE" in checks["nodes.environment"]["found"]
    assert "HCCL_IF_IP" not in checks["nodes.environment"]["found"]  # each node has its own address there
    assert [(node["address"], node["ok"]) for node in document["nodes"]] == [(HEAD, True), (OTHER, False)]
    text = doctor(nodes, *RECIPE).stdout
    assert "no two of 2 nodes agree\n" in text
    assert re.search(rf"(?m)^  check patches\.vllm: .*fail on {re.escape(OTHER)}", text)


def test_project_with_patches_of_its_own_is_sent_to_the_nodes(
    start: Callable[..., TwoNodes], tmp_path: Path
) -> None:
    project, nodes = tmp_path / "project", start()
    series = project / "series"
    series.mkdir(parents=True)
    (series / "series").write_text("own.patch\n")
    before = '"""Stands for vllm 0.22.1."""\n\nstrict = {}\n'
    old, new = (blob_id(before.format(value).encode()) for value in ("True", "None"))
    (series / "own.patch").write_text(
        "Description: An own change\n\n"
        f"diff --git a/vllm/start.py b/vllm/start.py\nindex {old}..{new} 100644\n"
        "--- a/vllm/start.py\n+++ b/vllm/start.py\n"
        '@@ -1,3 +1,3 @@\n """Stands for vllm 0.22.1."""\n \n-strict = True\n+strict = None\n'
    )
    file = project / "vimectl.toml"
    file.write_text('extends = "ascend-0.22"\n[patches]\nvllm = ["series"]\n')
    document, _ = report(nodes, "--stack", str(file), "--only", "patches.vllm")
    for node in document["nodes"]:
        (check,) = node["checks"]
        assert check["status"] == "fail"
        assert f"--stack {file}" in check["fix"]


def test_node_that_does_not_answer_is_named(
    start: Callable[..., TwoNodes], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = start()
    for name, value in nodes.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_SECONDS", 5)
    os.kill(nodes.raylets[1], signal.SIGSTOP)
    try:
        found = examine_nodes(run_checks(Host(), load_stack("cpu-0.32"), only=["host.system"]), nodes.address)
    finally:
        os.kill(nodes.raylets[1], signal.SIGCONT)
    (answer,) = (result for result in found.results if result.id == "nodes.answer")
    assert answer.status == "fail"
    # On a busy machine Ray may give the node up before.
    assert re.search(rf"{OTHER}: (no answer within|it has left the cluster)", answer.found)


def test_wrong_token_is_an_error_of_the_cluster(start: Callable[..., TwoNodes]) -> None:
    nodes = start()
    nodes.environment["RAY_AUTH_TOKEN"] = "0" * 64
    done = doctor(nodes, "--stack", "cpu-0.32", "--json")
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "machine-lacks"
    assert nodes.address in error["message"]
    assert "RAY_AUTH_TOKEN" in error["hint"]


def test_run_refuses_nodes_that_fail(start: Callable[..., TwoNodes], tmp_path: Path) -> None:
    nodes = start(break_everything)
    argv = ["run", "recipe", *RECIPE[1:], "--run-dir", str(tmp_path / "run"), "--address", nodes.address]
    done = subprocess.run(
        [sys.executable, "-m", "vimectl", *argv], env=nodes.environment, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert re.search(rf"nodes\.patches: .*{re.escape(OTHER)}", done.stderr)
    assert not (tmp_path / "run").exists()
