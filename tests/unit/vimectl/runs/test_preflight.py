from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.recipe import Recipe

from harness.patches import disk_operations
from harness.patches.toy_packages import STAGES, Tree, build_series, unpack
from harness.runs.killed_run import leave_scratch_directory
from vimectl.doctor.check import CheckResult
from vimectl.doctor.facts import Facts
from vimectl.doctor.runner import DoctorReport
from vimectl.patches import command
from vimectl.recipes.resolve import resolve
from vimectl.runs import preflight as module
from vimectl.runs.preflight import Preflight, examine, wait_for_leftovers
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

RECIPE = resolve("qwen3-tiny-tp2").recipe
GOOD = CheckResult("pass", "2 cores", "2", id="host.cores")
PATCH = CheckResult("fail", "pristine", "applied", "vimectl patch apply --stack cpu-0.32", id="patches.vllm")
MEMORY = CheckResult("fail", "1 GiB", "8 GiB", "end what uses the memory", id="host.memory")


def preflight(*results: CheckResult) -> Preflight:
    stack = load_stack("cpu-0.32")
    return Preflight(RECIPE, DoctorReport(stack, results, Facts(Host(), stack)), [], None)


def test_machine_that_passes_is_accepted() -> None:
    preflight(GOOD).require()
    assert not preflight(GOOD).only_patches_missing


def test_failure_names_every_check_and_the_first_fix() -> None:
    with pytest.raises(MissingRequirement) as error:
        preflight(GOOD, MEMORY, PATCH).require()
    assert error.value.message.splitlines() == [
        "this machine cannot run qwen3-tiny-tp2:",
        "  host.memory: 1 GiB; needed: 8 GiB",
        "  patches.vllm: pristine; needed: applied",
    ]
    assert error.value.hint.splitlines()[0] == "end what uses the memory"


def test_patches_are_offered_only_if_nothing_else_fails() -> None:
    assert preflight(GOOD, PATCH).only_patches_missing
    assert not preflight(MEMORY, PATCH).only_patches_missing


def test_machine_is_checked_for_the_stack_of_the_recipe() -> None:
    found = examine(resolve("qwen3-4b-tp2").recipe, Host())
    assert found.doctor.stack.name == "ascend-0.22"
    assert {"device.count", "tms.library"} <= {result.id for result in found.doctor.results}
    assert found.tms is not None
    assert examine(RECIPE, Host()).tms is None


def test_machine_is_checked_for_the_project_that_extends_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    project = tmp_path / "vimectl.toml"
    project.write_text('extends = "ascend-0.22"\n[packages]\nvllm = "0.22.2"\n')
    stacks = [
        examine(resolve(name).recipe, Host()).doctor.stack for name in ("qwen3-4b-tp2", "qwen3-tiny-tp2")
    ]
    assert [stack.argument for stack in stacks] == [str(project), "cpu-0.32"]
    assert stacks[0].packages["vllm"] == "0.22.2"


def test_interrupted_apply_is_named_with_the_command_that_finishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    release: Tree = {path: (0o644, content) for path, content in STAGES[0].items()}
    changed: Tree = release | {path: (0o644, content) for path, content in STAGES[1].items()}
    build_series("toy", [release, changed], tmp_path / "series")
    site = unpack(tmp_path / "site")
    file = tmp_path / "vimectl.toml"
    file.write_text('extends = "cpu-0.32"\n[patches]\ntoy = ["series"]\n[targets]\ntoy = "site"\n')
    monkeypatch.chdir(tmp_path)
    disk_operations.interrupt(lambda: command.change("apply", command.status(packages=["toy"])))
    found = examine(RECIPE, Host())
    with pytest.raises(MissingRequirement) as error:
        found.require()
    wanted = f"{site}: an interrupted apply: `vimectl patch recover` finishes it; needed: applied"
    assert wanted in error.value.message
    (failure,) = (one for one in found.doctor.failures if one.id == "patches.toy")
    assert failure.fix == f"vimectl patch recover toy --stack {file}"
    # Only the user who began a change finishes it, so that no run applies patches there.
    only = replace(found, doctor=replace(found.doctor, results=(failure,)))
    targets = command.status(packages=["toy"])
    assert replace(only, patches=targets).only_patches_missing
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert not replace(only, patches=command.status(packages=["toy"])).only_patches_missing


@pytest.mark.parametrize(("seconds", "ends"), [(2, True), (60, False)])
def test_processes_of_an_ending_run_are_waited_for(
    seconds: float, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEFTOVER_TIMEOUT", 15.0 if ends else 1.0)
    scratch = tmp_path / "vime-0123abcd"
    leave_scratch_directory(scratch)
    left = subprocess.Popen(
        [sys.executable, "-c", f"import time; print(flush=True); time.sleep({seconds})"],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
    )
    try:
        left.stdout.readline()
        while not (found := examine(RECIPE, Host())).has_leftover_processes:
            assert left.poll() is None
        found = wait_for_leftovers(found, Host())
        assert found.has_leftover_processes is not ends
        assert (left.poll() is None) is not ends
    finally:
        left.kill()
        left.wait()
        left.stdout.close()


def test_nodes_are_examined_for_several_nodes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(report: DoctorReport, address: str, recipe: Recipe) -> DoctorReport:
        asked.append(address)
        failure = CheckResult("fail", "0.22.0 on 10.0.0.2", "the same", "install it", id="nodes.versions")
        return replace(report, results=(GOOD, failure))

    monkeypatch.setattr(module, "examine_nodes", answer)
    assert "nodes.versions" not in {one.id for one in examine(RECIPE, Host(), "head:6379").doctor.results}
    several = resolve("qwen3-tiny-tp2", assignments=["cluster.nodes=2", "rollout.tensor_parallel=1"]).recipe
    found = examine(several, Host(), "head:6379")
    assert asked == ["head:6379"]
    with pytest.raises(MissingRequirement, match=r"nodes\.versions: 0\.22\.0 on 10\.0\.0\.2"):
        found.require()


def test_cluster_that_does_not_answer_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(report: DoctorReport, address: str, recipe: Recipe) -> DoctorReport:
        raise MissingRequirement(f"no Ray cluster at {address}", "start it")

    monkeypatch.setattr(module, "examine_nodes", refuse)
    several = resolve("qwen3-tiny-tp2", assignments=["cluster.nodes=2", "rollout.tensor_parallel=1"]).recipe
    result = examine(several, Host(), "head:6379").doctor.results[-1]
    assert (result.id, result.status, result.fix) == ("nodes.answer", "fail", "start it")
