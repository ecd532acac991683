"""The direct loader against vLLM's own ``load_weights``, on vLLM's real models, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

# In rank processes, because vLLM changes torch for the whole process.
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
    store: str,
    path: str,
    options: dict[str, Any],
    look: Callable[[Callable[[], torch.nn.Module], dict[str, torch.Tensor]], Any],
) -> Any:
    """Call ``look(build, tensors)`` with a builder of vLLM's model, and the checkpoint's tensors."""
    import os

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
    # With AVX-512 the ranks of a group share memory under this name. It is set by vLLM's worker.
    os.environ["VLLM_DIST_IDENT"] = Path(store).name
    with set_current_vllm_config(config):
        parallel_state.init_distributed_environment(world_size, rank, f"file://{store}", rank, "gloo")
        parallel_state.initialize_model_parallel(world_size, backend="gloo")
        try:

            def build() -> torch.nn.Module:
                # A second model would have layers of the same names.
                config.compilation_config.static_forward_context.clear()
                config.compilation_config.static_all_moe_layers.clear()
                with set_default_torch_dtype(torch.float32):
                    model = initialize_model(config)
                for parameter in model.parameters():
                    # An element that is not written is not equal to itself.
                    parameter.data.fill_(float("nan"))
                return model

            return look(build, load_file(Path(path) / "model.safetensors"))
        finally:
            parallel_state.cleanup_dist_env_and_memory()


def load(model: torch.nn.Module, tensors: dict[str, torch.Tensor], rows: int = 5) -> None:
    """Load every tensor in parts of so many rows, as one that is larger than a bucket."""
    from vime_runtime.weight_sync.direct_loader import DirectLoader

    loader = DirectLoader(model)
    for name, tensor in tensors.items():
        for start in range(0, len(tensor), rows):
            loader.load(name, tensor[start : start + rows], tuple(tensor.shape), start)
    loader.finish()


def compare(build: Callable[[], torch.nn.Module], tensors: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Return for each parameter whether it is as vLLM's own loader makes it."""
    own, direct, parted = build(), build(), build()
    own.load_weights(iter(tensors.items()))
    load(direct, tensors, rows=1000)
    load(parted, tensors)
    expected = dict(own.named_parameters())
    found, in_parts = dict(direct.named_parameters()), dict(parted.named_parameters())
    assert found.keys() == in_parts.keys() == expected.keys()
    return {
        name: torch.equal(found[name], tensor) and torch.equal(in_parts[name], tensor)
        for name, tensor in expected.items()
    }


def compare_transposed(
    build: Callable[[], torch.nn.Module], tensors: dict[str, torch.Tensor]
) -> dict[str, bool]:
    """Do the same with experts' weights transposed after loading, as vllm-ascend does it."""
    own, direct = build(), build()
    own.load_weights(iter(tensors.items()))
    for model in (own, direct):
        for module in model.modules():
            if hasattr(module, "w13_weight"):
                for name in ("w13_weight", "w2_weight"):
                    transposed = getattr(module, name).data.transpose(1, 2).contiguous()
                    setattr(module, name, torch.nn.Parameter(transposed, requires_grad=False))
    # And a copy of the router's weight in fp32.
    direct.model.layers[0].mlp.gate.weight_fp32 = torch.full_like(direct.model.layers[0].mlp.gate.weight, 7)
    load(direct, tensors)
    gate = direct.model.layers[0].mlp.gate
    found, expected = dict(direct.named_parameters()), dict(own.named_parameters())
    return {name: torch.equal(found[name], expected[name]) for name in expected} | {
        "weight_fp32": torch.equal(gate.weight_fp32, gate.weight)
    }


def errors(build: Callable[[], torch.nn.Module], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return the error for everything that does not fit, and whether anything was written."""
    from vime_runtime.weight_sync.direct_loader import DirectLoader

    model = build()
    name, expert = "model.layers.1.self_attn.k_proj.weight", "model.layers.0.mlp.experts.7.down_proj.weight"
    tensor, down = tensors[name], tensors[expert]
    found = {}

    def note(what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except ValueError as e:
            found[what] = str(e)

    loader = DirectLoader(model)
    note("unknown", lambda: loader.load("model.layers.9.mlp.gate.weight", tensor))
    note("too many rows", lambda: loader.load(name, torch.cat([tensor, tensor])))
    note("too few columns", lambda: loader.load(name, tensor[:, :-1]))
    note("another rank", lambda: loader.load(name, tensor.flatten()))
    note("a gap", lambda: loader.load(name, tensor[4:8], tuple(tensor.shape), 4))
    note("beyond the end", lambda: loader.load(name, torch.cat([tensor, tensor]), tuple(tensor.shape)))
    note("expert transposed", lambda: loader.load(expert, down.t().contiguous()))
    found["written"] = str(not all(p.isnan().all() for p in model.parameters()))
    loader.load(name, tensor)
    note("twice", lambda: loader.load(name, tensor))
    note("missing", loader.finish)

    extra = build()
    extra.model.layers[0].mlp.unknown = torch.nn.Parameter(torch.zeros(3))
    whole = DirectLoader(extra)
    for key, value in tensors.items():
        whole.load(key, value)
    note("parameter without a tensor", whole.finish)
    packed = build()
    packed.model.layers[0].self_attn.qkv_proj.weight.data = torch.empty(0)
    note("packed after loading", lambda: DirectLoader(packed))
    half = build()
    half.model.layers[0].mlp.experts.routed_experts.w2_weight.data = torch.empty(8, 47, 64)
    note("experts of another shape", lambda: DirectLoader(half))
    return found


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_is_as_vllms_own_loader_makes_it(engines, make_model, model, tensor_parallel):
    directory = make_model(**MODELS[model])
    for same in engines.run(with_model, tensor_parallel, str(directory), {}, compare):
        assert same
        assert all(same.values()), [name for name, equal in same.items() if not equal]


@pytest.mark.parametrize("options", [{}, {"enable_expert_parallel": True}], ids=["rows", "whole-experts"])
def test_experts_that_vllm_ascend_has_transposed_are_filled(engines, make_model, options):
    directory = make_model(**MODELS["qwen3-moe"])
    for same in engines.run(with_model, 2, str(directory), options, compare_transposed):
        assert same["weight_fp32"]
        assert all(same.values()), [name for name, equal in same.items() if not equal]


def test_whole_experts_are_on_their_own_rank(engines, make_model):
    directory = make_model(**MODELS["qwen3-moe"])
    options = {"enable_expert_parallel": True}
    for same in engines.run(with_model, 2, str(directory), options, compare):
        assert all(same.values()), [name for name, equal in same.items() if not equal]


def test_everything_that_does_not_fit_is_an_error(engines, make_model):
    directory = make_model(**MODELS["qwen3-moe"])
    (found,) = engines.run(with_model, 1, str(directory), {}, errors)
    k_proj = "tensor model.layers.1.self_attn.k_proj.weight"
    filled = "model.layers.1.self_attn.qkv_proj.weight is filled from [64, 64]"
    assert found == {
        "unknown": "the weight update has a tensor model.layers.9.mlp.gate.weight, "
        "which the model does not have",
        "too many rows": f"{k_proj} of the weight update has the shape [128, 64]; {filled}",
        "too few columns": f"{k_proj} of the weight update has the shape [64, 63]; {filled}",
        "another rank": f"{k_proj} of the weight update has the shape [4096]; {filled}",
        "a gap": f"rows 4 to 8 of {k_proj}, [4, 64], do not follow row 0 of [64, 64] in the weight update",
        "beyond the end": f"rows 0 to 128 of {k_proj}, [128, 64], do not follow row 0 of [64, 64] "
        "in the weight update",
        "expert transposed": "tensor model.layers.0.mlp.experts.7.down_proj.weight of the weight update has "
        "the shape [48, 64]; model.layers.0.mlp.experts.routed_experts.w2_weight is filled from [64, 48]",
        "written": "False",
        "twice": f"the weight update has {k_proj} twice",
        "missing": found["missing"],
        "parameter without a tensor": "the weight update lacks 1 of 70 tensors: model.layers.0.mlp.unknown",
        "packed after loading": "parameter model.layers.0.self_attn.qkv_proj.weight of the engine is [0], "
        "expected [256, 64]: weights cannot be written into it directly",
        "experts of another shape": "model.layers.0.mlp.experts.routed_experts: w13_weight and w2_weight are "
        "[8, 96, 64] and [8, 47, 64], expected [8, 96, 64] and [8, 64, 48], or both transposed",
    }
    assert found["missing"].startswith(
        "the weight update lacks 68 of 69 tensors: model.embed_tokens.weight, "
    )


def test_slices_that_overlap_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from vime_runtime.weight_sync import direct_loader
    from vime_runtime.weight_sync.tensor_slice import TensorSlice

    layer = torch.nn.Linear(2, 4, bias=False)
    upper = layer.weight.detach()[:2]
    slices = [("weight", TensorSlice(name, (2, 2), 0, 0, upper)) for name in ("k", "v")]
    monkeypatch.setattr(direct_loader, "find_slices", lambda model: iter(slices))
    monkeypatch.setattr(direct_loader, "remote_expert_shapes", lambda model: {})
    with pytest.raises(ValueError, match="parameter weight: v would be written over another tensor"):
        direct_loader.DirectLoader(layer)
