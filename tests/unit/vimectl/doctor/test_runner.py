from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.doctor.described_machine import Machine
from vimectl.doctor import checks
from vimectl.doctor.runner import DoctorReport, run_checks
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.util.host import Host, refuse_command

# Names with which code would read the machine itself.
TOUCHING = {"Host", "Path", "open", "subprocess", "os.environ", "os.path", "facts._host"}

# Check ids are stable: scripts use them. Add new ones, and remove none.
STABLE = Path(__file__).with_name("ids.txt").read_text().split()


def report_of_nothing(stack: str) -> DoctorReport:
    """Examine an empty file system."""
    return run_checks(Host(Path("/nowhere"), {}, refuse_command), load_stack(stack), with_imports=True)


def test_ids_are_kept_and_unique() -> None:
    known: set[str] = set()
    for stack in stack_names():
        found = [result.id for result in report_of_nothing(stack).results]
        assert len(found) == len(set(found)) >= 45
        known |= set(found)
    assert set(STABLE) <= known
    assert all(re.fullmatch(r"[a-z]+\.[\w.-]+", name) for name in known)


def test_checks_of_an_empty_file_system_have_results() -> None:
    for result in report_of_nothing("ascend-0.22").results:
        assert result.found
        assert result.rationale
        assert result.status not in ("warn", "fail") or (result.expected and result.fix)
        assert result.status == "skip" or result.group != "host" or result.id == "host.readable"


def test_only_and_without_select_checks_and_groups(cpu: Machine) -> None:
    only = ["host.memory", "leftovers"]
    assert [result.id for result in cpu.examine(only).results] == [
        "host.memory",
        "leftovers.processes",
        "leftovers.folders",
        "leftovers.shm",
    ]
    report = cpu.examine(only, without=["leftovers.shm", "host"])
    assert [result.id for result in report.results] == ["leftovers.processes", "leftovers.folders"]
    with pytest.raises(UsageError, match=r"host\.memory"):
        cpu.examine(["host.memry"])


def test_without_npu_only_the_device_count_fails(npu: Machine) -> None:
    for node in npu.path("/dev").glob("davinci?"):
        node.unlink()
    report = npu.examine()
    assert [result.id for result in report.failures] == ["device.count"]
    assert {result.status for result in report.results if result.id != "device.count"} == {"skip"}
    assert npu.check("cluster.localhost").status == "pass"


def test_checks_get_every_fact_from_readers() -> None:
    sources = sorted(Path(checks.__file__).parent.glob("*.py"))
    assert len(sources) >= 9
    for source in sources:
        code = {ast.unparse(node) for node in ast.walk(ast.parse(source.read_text()))}
        assert not code & TOUCHING, source.name
