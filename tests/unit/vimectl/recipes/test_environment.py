from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.process_roles import ROLES, Role

from vimectl.recipes.environment import Setting, environment
from vimectl.recipes.resolve import resolve
from vimectl.util.host import Host

SCRATCH = Path("/tmp/vime-1")


def decided(name: str, role: Role, *assignments: str, **inherited: str) -> dict[str, Setting]:
    return environment(
        resolve(name, assignments=list(assignments)).recipe, role, Host(environment=inherited), SCRATCH
    )


def values(name: str, role: Role, *assignments: str, **inherited: str) -> dict[str, str]:
    return {key: s.value for key, s in decided(name, role, *assignments, **inherited).items()}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["qwen3-tiny-tp2", "qwen3-4b-tp2"])
def test_every_variable_has_a_value_and_a_reason(name: str, role: Role) -> None:
    settings = decided(name, role)
    assert settings
    assert all(s.value and len(s.reason) > 10 and "{" not in s.value for s in settings.values())


@pytest.mark.parametrize("role", ROLES)
def test_on_npu_every_colocated_process_has_the_allocator_setting(role: Role) -> None:
    assert values("qwen3-4b-tp2", role)["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:False"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("exported", ["expandable_segments:True", "", "max_split_size_mb:256"])
def test_on_npu_the_allocator_setting_overrides_that_of_shell_and_image(role: Role, exported: str) -> None:
    settings = decided("qwen3-4b-tp2", role, PYTORCH_NPU_ALLOC_CONF=exported)
    setting = settings["PYTORCH_NPU_ALLOC_CONF"]
    assert setting.value == "expandable_segments:False"
    assert setting.required is not None
    assert not re.fullmatch(setting.required.accepts, exported)
    assert re.fullmatch(setting.required.accepts, "max_split_size_mb:256,expandable_segments:False")


def test_the_driver_of_an_npu_run_does_not_import_torch_npu_with_torch() -> None:
    found = {role: values("qwen3-4b-tp2", role)["TORCH_DEVICE_BACKEND_AUTOLOAD"] for role in ROLES}
    assert found == {"driver": "0", "train": "1", "rollout": "1"}


# Without these a process must not start; what it is for others is told in its log.
REQUIRED = {
    "driver": {"PYTORCH_NPU_ALLOC_CONF", "TMS_INIT_ENABLE"},
    "train": {"PYTORCH_NPU_ALLOC_CONF", "TMS_INIT_ENABLE", "TMS_HOOK_MODE", "CUDA_DEVICE_MAX_CONNECTIONS"},
    "rollout": {"PYTORCH_NPU_ALLOC_CONF", "TMS_INIT_ENABLE", "VIME_COLOCATE", "VLLM_ASCEND_ENABLE_NZ"},
}


@pytest.mark.parametrize("role", ROLES)
def test_on_npu_a_process_refuses_to_start_without_what_the_memory_depends_on(role: Role) -> None:
    settings = decided("qwen3-4b-tp2", role)
    assert {name for name, setting in settings.items() if setting.required} == REQUIRED[role]
    for name in REQUIRED[role]:
        required = settings[name].required
        assert required
        assert re.fullmatch(required.accepts, settings[name].value)
        assert required.reason == settings[name].reason


def test_the_recipe_cannot_talk_a_process_out_of_what_it_needs() -> None:
    setting = decided("qwen3-4b-tp2", "train", "env.TMS_HOOK_MODE=preload")["TMS_HOOK_MODE"]
    assert setting.value == "preload"
    assert setting.required is not None
    assert not re.fullmatch(setting.required.accepts, "preload")


def test_on_npu_the_memory_saver_is_the_trainers() -> None:
    assert values("qwen3-4b-tp2", "train")["TMS_HOOK_MODE"] == "torch"
    for role in ROLES:
        settings = values("qwen3-4b-tp2", role)
        assert settings["TMS_INIT_ENABLE"] == "0"
        assert "LD_PRELOAD" not in settings
        assert ("TMS_HOOK_MODE" in settings) == (role == "train")


@pytest.mark.parametrize("role", ROLES)
def test_on_npu_every_process_finds_cann_and_its_ports(role: Role) -> None:
    settings = values(
        "qwen3-4b-tp2", role, ASCEND_TOOLKIT_HOME="/cann", PYTHONPATH="/mine:/cann/python/site-packages"
    )
    assert settings["PYTHONPATH"].split(":") == [
        "/cann/python/site-packages", "/cann/opp/built-in/op_impl/ai_core/tbe", "/mine",
    ]  # fmt: skip
    assert settings["HCCL_HOST_SOCKET_PORT_RANGE"] == "60000-60050"
    assert settings["HCCL_NPU_SOCKET_PORT_RANGE"] == "61000-61050"
    assert settings["RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES"] == "1"


def test_on_npu_the_rest_goes_where_it_is_needed() -> None:
    assert values("qwen3-4b-tp2", "rollout")["VLLM_ASCEND_ENABLE_NZ"] == "0"
    assert values("qwen3-4b-tp2", "train")["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    # vLLM's Ascend platform is a plugin itself: restricting plugins would switch it off.
    assert "VLLM_PLUGINS" not in values("qwen3-4b-tp2", "rollout")


def test_on_npu_the_warnings_of_vllm_ascend_are_shown() -> None:
    assert values("qwen3-4b-tp2", "rollout")["VLLM_LOGGING_LEVEL"] == "WARNING"
    assert values("qwen3-tiny-tp2", "rollout")["VLLM_LOGGING_LEVEL"] == "ERROR"


def test_on_npu_launches_do_not_block_while_the_engine_captures_graphs() -> None:
    inherited = {"ASCEND_LAUNCH_BLOCKING": "1"}
    assert values("qwen3-4b-tp2", "rollout", **inherited)["ASCEND_LAUNCH_BLOCKING"] == "0"
    assert "ASCEND_LAUNCH_BLOCKING" not in values(
        "qwen3-4b-tp2", "rollout", "rollout.eager=true", **inherited
    )
    assert "ASCEND_LAUNCH_BLOCKING" not in values("qwen3-4b-tp2", "train", **inherited)


def test_on_npu_every_rank_takes_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(192)))
    found = {role: values("qwen3-4b-tp2", role).get("OMP_NUM_THREADS") for role in ROLES}
    assert found == {"driver": None, "train": "24", "rollout": "24"}


@pytest.mark.parametrize("role", ["train", "rollout"])
def test_on_npu_ranks_may_connect_as_late_as_a_hang_is_noticed(role: Role) -> None:
    hang_timeout = resolve("qwen3-4b-tp2").recipe.cluster.hang_timeout
    assert int(values("qwen3-4b-tp2", role)["HCCL_CONNECT_TIMEOUT"]) == hang_timeout


@pytest.mark.parametrize("role", ROLES)
def test_loopback_never_goes_through_a_proxy(role: Role) -> None:
    settings = values("qwen3-tiny-tp2", role, no_proxy="corp.example,localhost")
    assert settings["no_proxy"] == settings["NO_PROXY"] == "corp.example,localhost,127.0.0.1,::1"


def test_on_cpu_nothing_of_an_accelerator_is_set() -> None:
    names = {name for role in ROLES for name in values("qwen3-tiny-tp2", role)}
    assert not [name for name in names if name.startswith(("HCCL", "CUDA", "PYTORCH_NPU", "TMS"))]


@pytest.mark.parametrize(
    ("allowed", "engine", "threads"),
    [({2, 3, 4, 5, 9}, "2,3|4,5,9", "2"), ({4, 5, 6}, "4|5,6", "1"), ({7}, "7|7", "1")],
)
def test_on_cpu_the_ranks_share_the_allowed_cores(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], engine: str, threads: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    rollout = values("qwen3-tiny-tp2", "rollout")
    assert (rollout["VLLM_CPU_OMP_THREADS_BIND"], rollout["OMP_NUM_THREADS"]) == (engine, threads)
    assert values("qwen3-tiny-tp2", "train")["OMP_NUM_THREADS"] == threads


def test_on_cpu_alone_activations_lie_in_huge_pages_that_stay() -> None:
    for role in ("train", "rollout"):
        tunables = values("qwen3-tiny-tp2", role)["GLIBC_TUNABLES"].split(":")
        assert "glibc.malloc.hugetlb=1" in tunables
        kept = {f"glibc.malloc.{name}={1024**3}" for name in ("mmap_threshold", "trim_threshold", "top_pad")}
        assert set(tunables) >= kept
        assert "GLIBC_TUNABLES" not in values("qwen3-4b-tp2", role)


def test_with_them_the_c_library_keeps_what_was_freed() -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = ctypes.c_void_p(libc.malloc(200 << 20))
ctypes.memset(block, 1, 200 << 20)
libc.free(block)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))
"""
    tunables = {"GLIBC_TUNABLES": values("qwen3-tiny-tp2", "train")["GLIBC_TUNABLES"]}
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", program], env=os.environ | environment))
        for environment in (tunables, {"GLIBC_TUNABLES": ""})
    )
    assert returned < 100 << 10 < kept


def test_the_recipe_has_the_last_word() -> None:
    setting = decided("qwen3-tiny-tp2", "rollout", "env.VLLM_LOGGING_LEVEL=DEBUG")["VLLM_LOGGING_LEVEL"]
    assert setting == Setting(value="DEBUG", reason="[env] of the recipe")


def test_temporary_files_of_all_processes_lie_in_the_scratch_folder() -> None:
    assert {values("qwen3-tiny-tp2", role)["TMPDIR"] for role in ROLES} == {str(SCRATCH)}


def test_on_several_nodes_only_the_engine_stays_on_loopback() -> None:
    several = ["cluster.nodes=2", "rollout.tensor_parallel=1"]
    assert values("qwen3-tiny-tp2", "train")["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in values("qwen3-tiny-tp2", "train", *several)
    rollout = values("qwen3-tiny-tp2", "rollout", *several)
    assert (rollout["GLOO_SOCKET_IFNAME"], rollout["VLLM_HOST_IP"]) == ("lo", "127.0.0.1")


@pytest.mark.parametrize("role", ROLES)
def test_in_an_external_cluster_nothing_depends_on_the_cores_of_this_machine(role: Role) -> None:
    recipe = resolve("qwen3-tiny-tp2").recipe
    settings = environment(recipe, role, Host(environment={}), SCRATCH, private_cluster=False)
    threads = {"train": "1", "rollout": "1", "driver": None}[role]
    assert (settings["OMP_NUM_THREADS"].value if threads else None) == threads
    if role == "rollout":
        assert settings["VLLM_CPU_OMP_THREADS_BIND"].value == "nobind"
