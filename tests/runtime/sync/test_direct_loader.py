"""The direct loader against vLLM's own ``load_weights``, on vLLM's real models, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

# vLLM changes torch for the whole process: it has rank processes of its own here.
ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
}
MODELS = {
    "qwen3": {"family": "qwen3", "tie_word_embeddings": False, "vocab_size": 65},
    "qwen3-tied": {"family": "qwen3", "tie_word_embeddings": True},
    "qwen3-one-kv-head": {"family": "qwen3", "num_key_value_heads": 1},
    "qwen2": {"family": "qwen2", "tie_word_embeddings": False},
    "llama": {"family": "llama", "vocab_size": 65},
    "qwen3-moe": {"family": "qwen3_moe", "tie_word_embeddings": False},
}


@pytest.fixture(scope="module")
def engines(start_ranks: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        return start_ranks()


def with_model(
    rank: int,
    world_size: int,
    master: str,
    path: str,
    options: dict[str, Any],
    look: Callable[[Callable[[], torch.nn.Module], dict[str, torch.Tensor]], Any],
) -> Any:
    """Call ``look(build, tensors)``: how to build vLLM's model, and the checkpoint's tensors."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    config = EngineArgs(
        model=path,
        dtype="float32",
        tensor_parallel_size=world_size,
        enforce_eager=True,
        max_model_len=64,
        skip_tokenizer_init=True,
        **options,
    ).create_engine_config()
    with set_current_vllm_config(config):
        parallel_state.init_distributed_environment(world_size, rank, f"tcp://{master}", rank, "gloo")
        parallel_state.initialize_model_parallel(world_size, backend="gloo")
        try:

            def build() -> torch.nn.Module:
                # A second model would have layers of the same names.
                config.compilation_config.static_forward_context.clear()
                config.compilation_config.static_all_moe_layers.clear()
                with set_default_torch_dtype(torch.float32):
                    model = initialize_model(config)
                for parameter in model.parameters():
                    parameter.data.fill_(float("nan"))  # what nobody writes is not equal to itself
                return model

            return look(build, load_file(Path(path) / "model.safetensors"))
        finally:
            parallel_state.cleanup_dist_env_and_memory()


def compare(build: Callable[[], torch.nn.Module], tensors: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Which parameters are as vLLM's own loader makes them."""
    from vime_runtime.sync.direct_loader import DirectLoader

    own, direct = build(), build()
    own.load_weights(iter(tensors.items()))
    loader = DirectLoader(direct)
    for name, tensor in tensors.items():
        loader.load(name, tensor)
    loader.finish()
    expected = dict(own.named_parameters())
    found = dict(direct.named_parameters())
    assert found.keys() == expected.keys()
    return {name: torch.equal(found[name], expected[name]) for name in expected}


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_as_vllms_own_loader_makes_it(engines, make_model, model, tensor_parallel):
    directory = make_model(**MODELS[model])
    for same in engines.run(with_model, tensor_parallel, str(directory), {}, compare):
        assert same
        assert all(same.values()), [name for name, equal in same.items() if not equal]
