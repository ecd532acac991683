"""What every vLLM worker on an NPU needs, whether trainer and engine share the devices or not.

Applied once in a process, by whichever comes first: the plugin, which every worker meets whatever its
extension class, or our extension, where the plugin is not loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import torch

EXPERTS = ("w13_weight", "w2_weight")
# Set on what was wrapped, so that it is not wrapped again.
MARK = "_vime_fixed"


def install() -> None:
    """Let every worker that this process makes get the fixes before its own constructor goes on."""
    from vllm.v1.worker.worker_base import WorkerBase

    def with_fixes(init: Callable[..., None]) -> Callable[..., None]:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            apply(type(self))
            init(self, *args, **kwargs)

        return __init__

    _wrap(WorkerBase, "__init__", with_fixes)


def apply(worker: type) -> None:
    """Apply the fixes in this process; nothing on any other platform, and nothing the second time."""
    from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb
    from vllm.platforms import current_platform

    if current_platform.device_type == "npu":
        _wrap(ApplyRotaryEmb, "__init__", _without_flash_attn)
        for method in ("load_model", "wake_up"):
            _wrap(worker, method, _with_expert_loaders)


def lay_experts_back(model: torch.nn.Module) -> None:
    """Give the weights of experts the form again in which vllm-ascend multiplies with them.

    It turns them after loading. Up to 0.23 its worker turns them back at waking, as views, for loaders that
    then process the weights anew; a direct load does not, and needs not: the memory is as it was.
    """
    for module, name, weight in _expert_weights(model):
        turned = weight.transpose(1, 2)
        if not weight.is_contiguous() and turned.is_contiguous():
            back = torch.nn.Parameter(turned.detach(), requires_grad=False)
            vars(back).update(vars(weight))
            setattr(module, name, back)


def _without_flash_attn(init: Callable[..., None]) -> Callable[..., None]:
    """Construct the rotary embedding as if there were no flash_attn.

    vLLM imports its Triton kernel wherever a package of that name is found. vllm-ascend's embedding never
    calls it; but a flash_attn that was built for CUDA, or is a stand-in, ends the worker there.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        names = [name for name in sys.modules if name == "flash_attn" or name.startswith("flash_attn.")]
        hidden = {name: sys.modules.pop(name) for name in names}
        sys.modules["flash_attn"] = None  # type: ignore[assignment]  # the import system's "there is none"
        try:
            init(self, *args, **kwargs)
        finally:
            del sys.modules["flash_attn"]
            sys.modules.update(hidden)

    return __init__


def _with_expert_loaders(method: Callable[..., Any]) -> Callable[..., Any]:
    """Give the experts' weights their ``weight_loader`` again after ``method`` has made new ones.

    vllm-ascend replaces them after loading, and up to 0.23 at waking, by parameters without it; then
    vLLM's ``load_weights`` fails for every MoE model.
    """

    def replacing(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        for module, _, weight in _expert_weights(self.get_model()):
            if not hasattr(weight, "weight_loader"):
                weight.weight_loader = module.weight_loader  # type: ignore[attr-defined]
        return result

    return replacing


def _expert_weights(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Parameter]]:
    for module in model.modules():
        for name in EXPERTS:
            weight = module._parameters.get(name)
            if weight is not None:
                yield module, name, weight


def _wrap(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``make(method)`` in the place of a method, once, on the class that has it."""
    holder = next(each for each in owner.__mro__ if name in vars(each))
    method = vars(holder)[name]
    if not hasattr(method, MARK):
        wrapped = wraps(method)(make(method))
        setattr(wrapped, MARK, True)
        setattr(holder, name, wrapped)
