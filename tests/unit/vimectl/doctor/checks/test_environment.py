from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine


@pytest.mark.parametrize(
    ("value", "status", "found", "fix"),
    [
        (None, "pass", "not set: all 8 are seen", ""),
        ("4,5,6,7", "pass", "4,5,6,7", ""),
        ("0,1,2,3,4,5,6,7", "pass", "0,1,2,3,4,5,6,7", ""),
        ("0,1,1", "fail", "1 more than once", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("0,1,2,3,3", "fail", "3 more than once", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("0, 1,2,3", "fail", "of it CANN reads 0", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("npu:0", "fail", "of it CANN reads nothing", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("", "fail", "empty: not a list", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("0,1,2,3,8", "fail", "8 is beyond the 8 devices 0 to 7", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("3,2,1,0", "fail", "not ascending", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("0,1", "fail", "2 devices", "unset ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_visible_devices_are_read_like_cann(
    npu: Machine, value: str | None, status: str, found: str, fix: str
) -> None:
    if value is not None:
        npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    result = npu.check("environment.visible-devices", "cluster.devices_per_node=4")
    assert (result.status, result.fix) == (status, fix)
    assert found in result.found


def test_visible_devices_of_the_recipe_have_precedence(npu: Machine) -> None:
    npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    own = 'env.ASCEND_RT_VISIBLE_DEVICES="0,1,2,3,4,5,6,7"'
    assert npu.check("environment.visible-devices", own).status == "pass"


def test_launcher_overrides_the_colocation_switch_of_the_shell(npu: Machine) -> None:
    npu.environment["VIME_COLOCATE"] = "0"
    result = npu.check("environment.colocate")
    found = "VIME_COLOCATE=0 here; the launcher gives the engine VIME_COLOCATE=1"
    assert (result.status, result.found) == ("pass", found)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("nobind", "pass"),
        ("0|1", "pass"),
        ("0-1|0", "pass"),
        ("0,1", "fail"),  # one list for two ranks
        ("0|2-3", "fail"),  # cores that are not allowed
        ("first|second", "fail"),
        ("auto", "fail"),  # one NUMA node for two ranks
    ],
)
def test_cores_of_the_engine(cpu: Machine, value: str, status: str) -> None:
    assignment = f'env.VLLM_CPU_OMP_THREADS_BIND="{value}"'
    assert cpu.check("environment.cores", assignment).status == status


@pytest.mark.parametrize(
    ("variable", "value", "check", "status"),
    [
        ("VLLM_PLUGINS", "ascend,vime_runtime", "platform-plugin", "pass"),
        ("VLLM_PLUGINS", "ascend, vime_runtime,lora", "platform-plugin", "pass"),
        ("VLLM_PLUGINS", "ascend", "platform-plugin", "fail"),
        ("VLLM_PLUGINS", "", "platform-plugin", "fail"),  # an empty list loads nothing
        ("VLLM_VERSION", "0.22.1", "vllm-version", "pass"),
        ("VLLM_VERSION", "0.22.1.dev0", "vllm-version", "fail"),
        ("TASK_QUEUE_ENABLE", "0", "task-queue", "pass"),
        ("TASK_QUEUE_ENABLE", "2", "task-queue", "warn"),  # the launcher overrides it for the engine
        ("LD_PRELOAD", "/lib/a.so /none.so", "preload", "warn"),
    ],
)
def test_variables_of_the_shell(npu: Machine, variable: str, value: str, check: str, status: str) -> None:
    npu.write("/lib/a.so")
    npu.environment[variable] = value
    assert npu.check(f"environment.{check}").status == status


def test_files_that_exist_stay_preloaded(npu: Machine) -> None:
    npu.write("/lib/a.so")
    npu.environment["LD_PRELOAD"] = "/lib/a.so:/none.so"
    assert npu.check("environment.preload").fix == "export LD_PRELOAD=/lib/a.so"


def test_task_queue_of_an_eager_engine_may_be_that_of_training(npu: Machine) -> None:
    own = ["env.TASK_QUEUE_ENABLE=2"]
    assert npu.check("environment.task-queue", *own).status == "fail"
    assert npu.check("environment.task-queue", *own, "rollout.eager=true").status == "skip"
