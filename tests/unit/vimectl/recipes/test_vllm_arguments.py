from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError

from harness.run_config import make_recipe
from vimectl.recipes import vllm_arguments
from vimectl.util.host import Host, refuse_command

SOURCE = '''
class Other:
    quantizaton: str = ""

@dataclass
class EngineArgs:
    """Arguments."""

    model: str = ModelConfig.model
    quantization: str | None = None
    async_scheduling: bool | None = None
    block_size: int | None = None
    _private: int = 0

    def __post_init__(self):
        local: int = 0
'''


def host(root: Path, folder: str = "site", source: str = SOURCE) -> Host:
    """Return a machine with this source of vLLM in a folder."""
    file = root / folder / "vllm/engine/arg_utils.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    (root / "site").mkdir(exist_ok=True)
    return Host(root, {}, refuse_command, package_directories=("/site",))


def check(machine: Host, name: str, device: str = "cpu", **rollout: Any) -> None:
    recipe = make_recipe(cluster={"device": device}, rollout={"engine": {name: 1}, **rollout})
    vllm_arguments.check(recipe, machine)


def test_arguments_of_the_installed_vllm_pass(tmp_path: Path) -> None:
    check(host(tmp_path), "async_scheduling")


@pytest.mark.parametrize("name", ["quantizaton", "_private", "local"])
def test_an_unknown_argument_is_refused_with_the_nearest_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(host(tmp_path), name)
    assert f"unknown argument of vLLM in [rollout.engine] {name!r}" in caught.value.message
    assert name != "quantizaton" or "Did you mean quantization" in caught.value.message


@pytest.mark.parametrize(
    ("name", "rollout", "hint"),
    [
        ("model", {}, "remove it and use model.path"),
        ("max_num_seqs", {}, "remove it and use rollout.max_num_seqs"),
        ("enable_chunked_prefill", {}, "remove it and use rollout.per_request_seeds"),
        ("enable_sleep_mode", {}, "remove it"),
        ("block_size", {}, "remove it"),
    ],
)
def test_an_argument_that_the_runtime_sets_is_refused_with_the_key_to_use(
    tmp_path: Path, name: str, rollout: dict[str, Any], hint: str
) -> None:
    with pytest.raises(UsageError, match=f"rollout.engine.{name}: the runtime sets") as caught:
        check(Host(tmp_path, {}, refuse_command, package_directories=()), name, **rollout)
    assert caught.value.hint == hint


def test_arguments_that_only_a_cpu_needs_are_free_on_npus(tmp_path: Path) -> None:
    check(host(tmp_path), "block_size", device="npu")


def test_chunked_prefill_is_free_without_seeds(tmp_path: Path) -> None:
    machine = host(tmp_path, source=SOURCE.replace("async_scheduling", "enable_chunked_prefill"))
    check(machine, "enable_chunked_prefill", per_request_seeds=False)


def test_an_editable_vllm_is_found(tmp_path: Path) -> None:
    info = tmp_path / "site/vllm-0.22.1+empty.dist-info"
    info.mkdir(parents=True)
    stated = {"url": "file:///vllm-workspace/vllm", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(stated))
    with pytest.raises(UsageError, match="unknown argument"):
        check(host(tmp_path, "vllm-workspace/vllm"), "quantizaton")


@pytest.mark.parametrize("source", ["", "class EngineArgs: def", "class EngineArgs: pass"])
def test_any_name_passes_if_the_arguments_are_not_known(tmp_path: Path, source: str) -> None:
    check(host(tmp_path, source=source), "anything")


def test_any_name_passes_without_vllm(tmp_path: Path) -> None:
    check(Host(tmp_path, {}, refuse_command, package_directories=("/none",)), "anything")


@pytest.mark.skipif(find_spec("vllm") is None, reason="needs an installed vLLM")
def test_the_real_vllm_has_these_arguments() -> None:
    check(Host(), "async_scheduling")
    with pytest.raises(UsageError, match="Did you mean async_scheduling"):
        check(Host(), "asinc_scheduling")


def test_the_notice_names_the_arguments() -> None:
    assert vllm_arguments.notice(make_recipe()) == ""
    notice = vllm_arguments.notice(make_recipe(rollout={"engine": {"swap_space": 1, "quantization": "fp8"}}))
    assert notice == (
        "warning: these arguments of vLLM are not tested with this runtime (rollout.engine): "
        "swap_space, quantization"
    )
