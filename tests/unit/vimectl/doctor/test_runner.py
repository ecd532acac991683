from __future__ import annotations

import ast
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.doctor.described_machine import Machine
from vimectl.doctor import checks
from vimectl.doctor.runner import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host, refuse_command

# Names with which code would read the machine itself.
TOUCHING = {"Host", "Path", "open", "subprocess", "os.environ", "os.path", "facts._host"}

TINY = resolve("qwen3-tiny-tp2").recipe


def test_only_selects_checks_and_groups(cpu: Machine) -> None:
    report = run_checks(cpu.host, load_stack("cpu-0.32"), TINY, ["host.memory", "leftovers"])
    assert [result.id for result in report.results] == [
        "host.memory",
        "leftovers.processes",
        "leftovers.folders",
        "leftovers.shm",
    ]
    with pytest.raises(UsageError, match=r"host\.memory"):
        run_checks(cpu.host, load_stack("cpu-0.32"), TINY, ["host.memry"])


def test_without_excludes_checks_and_groups(cpu: Machine) -> None:
    report = run_checks(
        cpu.host,
        load_stack("cpu-0.32"),
        TINY,
        ["leftovers", "host.memory"],
        without=["leftovers.shm", "host"],
    )
    assert [result.id for result in report.results] == ["leftovers.processes", "leftovers.folders"]


def test_unreadable_facts_are_skipped(tmp_path: Path) -> None:
    report = run_checks(Host(tmp_path, {}, refuse_command), load_stack("cpu-0.32"), TINY, ["host"])
    assert {result.status for result in report.results} == {"skip"}


def test_without_npu_only_the_device_count_fails(npu: Machine) -> None:
    for node in npu.path("/dev").glob("davinci?"):
        node.unlink()
    report = npu.examine()
    assert [result.id for result in report.failures] == ["device.count"]
    assert {result.status for result in report.results if result.id != "device.count"} == {"skip"}
    assert [result.status for result in npu.examine(["cluster.localhost"]).results] == ["pass"]


def test_checks_get_every_fact_from_readers() -> None:
    sources = sorted(Path(checks.__file__).parent.glob("*.py"))
    assert len(sources) >= 9
    for source in sources:
        code = {ast.unparse(node) for node in ast.walk(ast.parse(source.read_text()))}
        assert not code & TOUCHING, source.name
