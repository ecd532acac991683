"""What the worker extension and the plugin do to the real worker class of vllm-ascend; see ascend_probe.py.

Every order in which the fixes can come is played through on released classes, which are put back each time.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from harness.upstream import transfer_probe

EXPERTS, HIDDEN, ROWS = 2, 8, 6
# Who applies the fixes, in which order, before the worker is made.
ORDERS: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "the plugin": ("plugin",),
    "the extension": ("extension",),
    "the plugin, then the extension": ("plugin", "extension"),
    "the extension, then the plugin": ("extension", "plugin"),
    "both, twice": ("plugin", "extension", "plugin", "extension"),
}


def observe(rotary: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """For each order: what ``rotary`` finds, and what becomes of the weights of experts."""
    from vime_runtime.weight_sync import generations

    module = importlib.import_module("vllm_ascend.worker.worker")
    stand_in(module)
    generations.register()
    return {name: observe_order(module, order, rotary) for name, order in ORDERS.items()}


def observe_order(
    module: ModuleType, order: tuple[str, ...], rotary: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    from vime_runtime.rollout import npu_fixes

    with as_released(module):
        for who in order:
            if who == "plugin":
                npu_fixes.install()
            else:
                transfer_probe.mix_in(module.NPUWorker)
        worker = make(module)
        seen = {"rotary": rotary(), "wrapped": wrapped(module), **experts(module, worker)}
        if "extension" in order:
            seen["updated"] = updated(worker)
        return seen


@contextmanager
def as_released(module: ModuleType) -> Iterator[None]:
    """Put everything back that the fixes and vLLM change in classes."""
    from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb
    from vllm.v1.worker.worker_base import WorkerBase

    worker = module.NPUWorker
    places = [
        (ApplyRotaryEmb, "__init__"),
        (WorkerBase, "__init__"),
        (worker, "load_model"),
        (worker, "wake_up"),
    ]
    before, bases = [vars(owner)[name] for owner, name in places], worker.__bases__
    try:
        yield
    finally:
        worker.__bases__ = bases
        for (owner, name), method in zip(places, before, strict=True):
            setattr(owner, name, method)


def wrapped(module: ModuleType) -> int:
    """How many times a method that is fixed is wrapped."""
    count, method = 0, module.NPUWorker.load_model
    while hasattr(method, "__wrapped__"):
        count, method = count + 1, method.__wrapped__
    return count


def stand_in(module: ModuleType) -> None:
    """What the worker asks of the machine, and of a configuration that is not there."""
    settings = SimpleNamespace(
        weight_nz_mode=0,
        enable_fused_mc2=0,
        rl_config=SimpleNamespace(enabled=False),
        ascend_compilation_config=SimpleNamespace(enable_npugraph_ex=False),
    )
    module.get_ascend_config = lambda: settings
    torch.accelerator.synchronize = lambda *arguments: None
    for name in ("init_ascend_config", "register_ascend_customop", "check_ascend_device_type"):
        setattr(module, name, lambda *arguments: None)
    allocator = SimpleNamespace(wake_up=lambda tags=None: None, get_current_usage=lambda: 0)
    module.CaMemAllocator = SimpleNamespace(get_instance=lambda: allocator)
    methods = expert_methods()
    methods.get_ascend_config = lambda: settings
    methods.maybe_trans_nz = lambda weight, *arguments: weight


def expert_methods() -> ModuleType:
    """Where the release has what it does to the weights of experts after loading."""
    for name in ("vllm_ascend.ops.fused_moe.routed_experts", "vllm_ascend.ops.fused_moe.fused_moe"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(module, "AscendUnquantizedFusedMoEMethod"):
            return module
    raise ImportError("vllm_ascend has no AscendUnquantizedFusedMoEMethod")


class Experts(torch.nn.Module):
    """A layer of experts as vLLM makes it before loading: its weights, and what our loader reads of it."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (("w13_weight", (2 * ROWS, HIDDEN)), ("w2_weight", (HIDDEN, ROWS))):
            weight = torch.nn.Parameter(torch.zeros(EXPERTS, *shape), requires_grad=False)
            weight.weight_loader = self.weight_loader
            setattr(self, name, weight)
        self._expert_map = None
        self.local_num_experts = EXPERTS
        self.moe_config = SimpleNamespace(
            num_logical_experts=EXPERTS,
            hidden_dim=HIDDEN,
            intermediate_size_per_partition=ROWS,
            tp_size=1,
            tp_rank=0,
        )

    def weight_loader(self, *arguments: Any) -> None:
        """vLLM's own loaders call it."""


def make(module: ModuleType) -> Any:
    """A worker on a model with experts, constructed as far as vLLM's general part, not loaded yet."""
    from vllm.v1.worker.worker_base import WorkerBase

    model = torch.nn.Module()
    model.mlp = torch.nn.Module()
    model.mlp.experts = layer = Experts()
    method = expert_methods().AscendUnquantizedFusedMoEMethod
    quantization = method.__new__(method)
    torch.nn.Module.__init__(quantization)
    quantization.dynamic_eplb = False
    quantization._maybe_pad_weight = lambda weight: weight
    worker = module.NPUWorker.__new__(module.NPUWorker)
    with suppress(TypeError):  # its arguments are missing; whoever has wrapped it comes before
        WorkerBase.__init__(worker)
    worker.device = torch.device("cpu")
    worker.weight_transfer_engine, worker._weight_update_active = None, False
    worker._sleep_saved_buffers = {}
    worker.vllm_config = SimpleNamespace(
        model_config=SimpleNamespace(
            enable_sleep_mode=False, hf_text_config=SimpleNamespace(hidden_size=HIDDEN)
        ),
        quant_config=None,
        weight_transfer_config=SimpleNamespace(backend="vime-buckets"),
        parallel_config=SimpleNamespace(),
        compilation_config=SimpleNamespace(),
    )
    worker.model_runner = SimpleNamespace(
        model=model,
        get_model=lambda: model,
        reset_lora_state=lambda: None,
        load_model=lambda: quantization.process_weights_after_loading(layer),
    )
    module.set_current_vllm_config = lambda config: nullcontext()
    return worker


def experts(module: ModuleType, worker: Any) -> dict[str, Any]:
    """Shapes of the experts' weights, and whether they can be loaded, after loading and after waking."""
    seen = {}
    for when, method in (("loaded", worker.load_model), ("woken", worker.wake_up)):
        method()
        layer = worker.get_model().mlp.experts
        seen[when] = {
            name: [list(getattr(layer, name).shape), hasattr(getattr(layer, name), "weight_loader")]
            for name in ("w13_weight", "w2_weight")
        }
    return seen


def updated(worker: Any) -> bool:
    """Whether an update of a worker that has woken leaves the weights in the form that is multiplied with."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"gate_proj": (ROWS, HIDDEN), "up_proj": (ROWS, HIDDEN), "down_proj": (HIDDEN, ROWS)}
    tensors = {
        f"mlp.experts.{expert}.{name}.weight": torch.randn(shape, generator=draw)
        for expert in range(EXPERTS)
        for name, shape in shapes.items()
    }
    layer = worker.get_model().mlp.experts
    memory = layer.w13_weight.data_ptr(), layer.w2_weight.data_ptr()
    engine = transfer_probe.Engine(worker)
    worker.begin_buckets()
    engine.send(tensors)
    worker.end_buckets()
    expected = [
        torch.stack(
            [torch.cat([tensors[f"mlp.experts.{e}.{n}.weight"] for n in names]).T for e in range(EXPERTS)]
        )
        for names in (("gate_proj", "up_proj"), ("down_proj",))
    ]
    found = [layer.w13_weight, layer.w2_weight]
    return (
        all(
            torch.equal(one, other) and one.is_contiguous()
            for one, other in zip(found, expected, strict=True)
        )
        and all(hasattr(weight, "weight_loader") for weight in found)
        and (found[0].data_ptr(), found[1].data_ptr()) == memory
    )
