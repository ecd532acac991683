from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import MissingRequirement, UsageError

from harness.doctor.described_machine import Machine
from vimectl import __version__
from vimectl.doctor import nodes as module
from vimectl.doctor.check import CheckResult
from vimectl.doctor.compare_nodes import NODE_CHECKS
from vimectl.doctor.facts import Facts
from vimectl.doctor.node_report import NodeReport, make_request, read_answer, report
from vimectl.doctor.nodes import ClusterReport, examine_nodes, with_nodes
from vimectl.doctor.runner import DoctorReport
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

STACK = load_stack("ascend-0.22")
RECIPE = resolve("qwen3-4b-tp2", assignments=["cluster.nodes=2"]).recipe
LOCAL = DoctorReport(STACK, (CheckResult("pass", "4", id="host.cores"),), Facts(Host(), STACK))
FACTS = {
    "vimectl": "0.1.0",
    "Python": "3.11.7",
    "CANN": "9.0.0 in /usr/local/Ascend/cann",
    "kernel": "5.10",
    "package vllm": "0.22.1",
    "package pip": "26.0",
    "patches vllm": "applied",
    "chips": "8 x 910B1",
    "chip health": "OK",
    "memory": "100 GiB of 200 GiB available",
    "model config.json": "10 bytes, sha256 0123",
    "variable HCCL_BUFFSIZE": "200",
}


def node(number: int, offset: tuple[float, float] = (-0.1, 0.2), **changes: Any) -> NodeReport:
    """Return the report of the node 10.0.0.NUMBER. ``facts`` are added; None removes one."""
    address = f"10.0.0.{number}"
    facts = {**FACTS, "network eth0": f"{address}/24", "hccn 0": f"29.0.0.{number}/16"}
    facts |= changes.pop("facts", {})
    facts = {label: value for label, value in facts.items() if value is not None}
    checks = [{"id": "host.cores", "status": "pass", "found": "4", "fix": "", "cause": None}]
    fields = {"vimectl": "0.1.0", "ok": True, "facts": facts, "checks": checks, **changes}
    return NodeReport(f"{number:056x}", address, address, offset=offset, **fields)


def compared(*nodes: NodeReport) -> dict[str, CheckResult]:
    """Return the results of the checks of nodes by name, those that pass left out."""
    found = with_nodes(LOCAL, nodes, RECIPE).results[1:]
    return {one.id.removeprefix("nodes."): one for one in found if one.status != "pass"}


def test_nodes_that_agree_pass_every_check() -> None:
    found = with_nodes(LOCAL, [node(2), node(1)], RECIPE)
    assert found.ok
    assert [one.id for one in found.results[1:]] == [check.id for check in NODE_CHECKS]
    assert {one.status for one in found.results} == {"pass"}
    assert list(found.lines()) == ["2 nodes agree: 10.0.0.1, 10.0.0.2"]


@pytest.mark.parametrize(
    ("facts", "check", "status", "found"),
    [
        ({"package vllm": "0.22.0"}, "versions", "fail", "vllm: 0.22.1 on 10.0.0.1; 0.22.0 on 10.0.0.2"),
        ({"CANN": "8.5.0 in /usr/local/Ascend/cann"}, "versions", "fail", "8.5.0"),
        ({"vimectl": "0.0.9"}, "versions", "fail", "vimectl: 0.1.0 on 10.0.0.1; 0.0.9 on 10.0.0.2"),
        ({"package pip": "25.0"}, "versions", "warn", "package pip: 26.0 on 10.0.0.1; 25.0 on 10.0.0.2"),
        ({"kernel": "6.6"}, "versions", "warn", "kernel"),
        ({"patches vllm": "pristine"}, "patches", "fail", "patches vllm"),
        ({"memory saver": "mine: known-bad"}, "patches", "fail", "memory saver: absent on 10.0.0.1"),
        ({"chips": "8 x 910B4"}, "devices", "fail", "8 x 910B4 on 10.0.0.2"),
        ({"chips": "7 x 910B1"}, "devices", "warn", "7 x 910B1 on 10.0.0.2"),
        ({"chip health": "NPU 3: Alarm"}, "devices", "warn", "NPU 3: Alarm on 10.0.0.2"),
        ({"network eth0": "10.0.0.2/16"}, "networks", "warn", "10.0.0.0/24 on 10.0.0.1; 10.0.0.0/16 on"),
        ({"network eth0": None}, "networks", "warn", "10.0.0.0/24 on 10.0.0.1; absent on 10.0.0.2"),
        ({"hccn 0": "29.0.0.1/16"}, "networks", "fail", "29.0.0.1 is that of NPU 0 of 10.0.0.1 and NPU 0 of"),
        ({"hccn 0": None}, "networks", "warn", "hccn 0: 29.0.0.0/16 on 10.0.0.1; absent on 10.0.0.2"),
        ({"hccn TLS": "1"}, "networks", "fail", "hccn TLS"),
        ({"model config.json": "11 bytes"}, "model", "fail", "model config.json"),
        ({"model x.safetensors": "9 bytes"}, "model", "fail", "absent on 10.0.0.1; 9 bytes on 10.0.0.2"),
        ({"variable HCCL_BUFFSIZE": "50"}, "environment", "warn", "200 on 10.0.0.1; 50 on 10.0.0.2"),
    ],
)  # fmt: skip
def test_difference_is_found_with_its_nodes(
    facts: dict[str, Any], check: str, status: str, found: str
) -> None:
    results = compared(node(1), node(2, facts=facts))
    assert {name: one.status for name, one in results.items()} == {check: status}
    assert found in results[check].found
    assert results[check].fix


@pytest.mark.parametrize(
    "facts",
    [
        {"memory": "1 GiB of 200 GiB available"},
        {"network docker0": "172.17.0.1/16"},
        {"network veth12ab34": "no address"},
        {"network ib0": "no address"},
        {"variable RAY_JOB_ID": "01000000"},
    ],
)
def test_what_differs_by_nature_is_not_compared(facts: dict[str, str]) -> None:
    assert compared(node(1), node(2, facts=facts)) == {}


def test_own_address_in_a_variable_is_no_difference() -> None:
    def named(number: int) -> NodeReport:
        return node(number, facts={"variable HCCL_IF_IP": f"10.0.0.{number}"})

    assert compared(named(1), named(2)) == {}
    assert "environment" in compared(named(1), node(2, facts={"variable HCCL_IF_IP": "10.0.0.1"}))


def test_pods_with_single_addresses_are_in_one_network() -> None:
    pods = [node(number, facts={"network eth0": f"172.20.{number}.9/32"}) for number in (1, 2)]
    assert compared(*pods) == {}


def test_the_nodes_to_change_are_those_unlike_the_stack_or_the_minority() -> None:
    older = {"package vllm": "0.22.0"}
    unlike_stack = compared(node(1, facts=older), node(2, facts=older), node(3))["versions"]
    assert unlike_stack.fix.startswith("on 10.0.0.1, 10.0.0.2: ")
    odd = {"patches vllm": "pristine"}
    minority = compared(node(1), node(2, facts=odd), node(3))["patches"]
    assert minority.fix == "on 10.0.0.2: vimectl patch apply --stack ascend-0.22"
    undecided = compared(node(1), node(2, facts=odd))["patches"]
    assert undecided.fix.startswith("on 10.0.0.1, 10.0.0.2: ")


@pytest.mark.parametrize(
    ("offset", "found"),
    [
        ((-0.1, 0.9), ""),
        ((-5.0, 5.0), ""),  # a slow call: the clock may agree
        ((89.7, 90.4), "10.0.0.2 is 90 s ahead"),
        ((-31.2, -30.0), "10.0.0.2 is 30 s behind"),
    ],
)
def test_clock_is_off_only_beyond_the_duration_of_the_call(offset: tuple[float, float], found: str) -> None:
    results = compared(node(1), node(2, offset=offset))
    assert {name: (one.status, one.found) for name, one in results.items()} == (
        {"clocks": ("warn", found)} if found else {}
    )


def test_failure_of_a_node_fails_the_cluster_and_its_cause_is_to_be_fixed() -> None:
    failed = [
        {"id": "driver.loaded", "status": "fail", "found": "old", "fix": "no", "cause": "driver.version"},
        {"id": "driver.version", "status": "fail", "found": "none", "fix": "mount it", "cause": None},
    ]
    result = compared(node(1), node(2, ok=False, checks=failed))["checks"]
    assert result.status == "fail"
    assert result.found == "driver.loaded: old on 10.0.0.2; driver.version: none on 10.0.0.2"
    assert result.fix == "on 10.0.0.2: mount it"


def test_node_without_an_answer_is_named() -> None:
    silent = NodeReport("f", "10.0.0.2", "10.0.0.2", problem="no answer within 90 s", hint="look at it")
    found = with_nodes(LOCAL, [node(1), silent], RECIPE)
    (result,) = found.failures
    assert (result.id, result.fix) == ("nodes.answer", "look at it")
    assert result.found == "10.0.0.2: no answer within 90 s"
    assert list(found.lines()) == ["no two of 2 nodes agree", "  10.0.0.2: no answer within 90 s"]


def test_cluster_with_fewer_nodes_than_the_recipe_fails() -> None:
    result = compared(node(1))["answer"]
    assert (result.status, result.found, result.expected) == ("fail", "1 nodes", "2 nodes")


def test_differences_are_one_line_each() -> None:
    other = node(3, facts={"package vllm": "0.22.0"}, offset=(60.0, 61.0))
    other.checks[0]["status"] = "warn"
    lines = list(with_nodes(LOCAL, [node(1), node(2), other], RECIPE).lines())
    assert lines == [
        "2 of 3 nodes agree: 10.0.0.1, 10.0.0.2",
        "  package vllm: 0.22.1 on 10.0.0.1, 10.0.0.2; 0.22.0 on 10.0.0.3",
        "  check host.cores: pass on 10.0.0.1, 10.0.0.2; warn on 10.0.0.3",
        "  clock: 60 s ahead on 10.0.0.3",
    ]


def test_two_raylets_of_one_machine_have_different_names() -> None:
    found = with_nodes(LOCAL, [node(1), NodeReport("abcdef0123", "10.0.0.1", "10.0.0.1")], RECIPE)
    assert [one.name for one in found.nodes] == ["10.0.0.1 (00000000)", "10.0.0.1 (abcdef01)"]
    assert [one["address"] for one in found.as_json()["nodes"]] == ["10.0.0.1", "10.0.0.1"]


# The request and the answer.


def answer(stdout: str, **changes: Any) -> dict[str, Any]:
    found = {"node": "f", "address": "10.0.0.9", "code": 0, "stdout": stdout, "stderr": ""}
    return {**found, "sent": 100.0, "began": 190.2, "ended": 191.0, "received": 101.5, **changes}


def test_report_is_made_from_a_request_and_read_again(npu: Machine) -> None:
    request = json.loads(make_request(STACK, npu.recipe()))
    document = report(request, npu.host)
    found = read_answer(answer(json.dumps({"vimectl": __version__, **document})))
    assert (found.vimectl, found.problem) == (__version__, "")
    assert found.offset == (89.5, pytest.approx(90.2))
    assert found.facts["chips"] == "8 x 910B1"
    ids = {check["id"] for check in found.checks}
    assert "device.count" in ids
    assert not ids & {"cluster.ray", "cluster.address"}


def test_stack_and_series_are_sent_as_content_and_named_as_the_user_did(tmp_path: Path) -> None:
    series, file = tmp_path / "own", tmp_path / "mine.toml"
    series.mkdir()
    (series / "series").write_text("gone.patch\n")
    file.write_text('extends = "cpu-0.32"\n[patches]\nvllm = ["own"]\n')
    text = make_request(load_stack(str(file)), None, only=["patches.vllm"])
    (series / "series").unlink()
    (check,) = report(json.loads(text), Host())["checks"]
    assert check["status"] == "fail"
    assert str(series) in check["found"] + check["fix"]
    assert "vimectl-node-" not in json.dumps(check)


def test_request_that_another_version_does_not_understand_is_an_error() -> None:
    request = json.loads(make_request(STACK, RECIPE))
    request["recipe"]["cluster"]["new_key"] = 1
    with pytest.raises(UsageError, match=r"unknown key 'cluster\.new_key'"):
        report(request, Host())


@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        (
            answer("", code=1, stderr="x\nNo module named vimectl"),
            "No module named vimectl",
            "install vimectl",
        ),
        (answer("[]"), "no report: exit status 0", "install vimectl"),
        (
            answer('{"vimectl": "0.0.9", "error": {"message": "unknown key", "hint": "correct it"}}'),
            "vimectl 0.0.9: unknown key",
            "correct it",
        ),
        ({"node": "f", "address": "a", "problem": "not finished within 60 s"}, "not finished within", "logs"),
    ],
)
def test_answer_without_a_report_says_why(given: dict[str, Any], problem: str, hint: str) -> None:
    found = read_answer(given)
    assert problem in found.problem
    assert hint in found.hint
    assert not found.ok


# Ray, in a child process.


@pytest.fixture
def ray_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the child process print this text and exit."""

    def answers(program: str) -> None:
        run = subprocess.run
        monkeypatch.setattr(
            module.subprocess, "run", lambda argv, **options: run([sys.executable, "-c", program], **options)
        )

    return answers


def test_nodes_are_those_that_ray_reports(ray_answers: Callable[[str], None]) -> None:
    document = {"nodes": [{"node": "f", "address": "10.0.0.9", "problem": "no answer within 90 s"}]}
    ray_answers(f"print({json.dumps(document)!r})")
    found = examine_nodes(LOCAL, "10.0.0.1:6379")
    assert isinstance(found, ClusterReport)
    assert [one.address for one in found.nodes] == ["10.0.0.9"]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ('print(\'{"error": {"message": "Version mismatch", "hint": "x"}}\')', "Version mismatch"),
        (
            "import sys; sys.exit('ModuleNotFoundError: no ray')",
            "be asked: ModuleNotFoundError: no ray",
        ),
        ("import time; time.sleep(60)", "no answer of Ray at 10.0.0.1:6379 within"),
    ],
)
def test_cluster_that_cannot_be_asked_is_an_error(
    program: str, message: str, ray_answers: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_answers(program)
    if "sleep" in program:
        monkeypatch.setattr(module, "_SECONDS", 0.2)
        monkeypatch.setattr(module, "_RAY_SECONDS", 0.2)
    with pytest.raises(MissingRequirement, match=message):
        examine_nodes(LOCAL, "10.0.0.1:6379")
