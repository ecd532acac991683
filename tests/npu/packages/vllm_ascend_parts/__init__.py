"""Stand in for the parts of vllm-ascend 0.22.1rc1 that cannot be loaded: compiled, generated, Triton.

Everything else of vLLM 0.22.1 and vllm-ascend is the released Python code with this project's patches, on the
released torch_npu: platform, worker, model runner, attention backend, sampler, sleep mode, MoE layers.

Not loaded are:

* ``vllm_ascend.vllm_ascend_C``, the extension with the allocator of sleep mode and the operators of the
  namespace ``_C_ascend``. 0.22.1rc1 has no wheel, and to compile the extension takes CANN's compiler of
  kernels. ``vllm_ascend_C`` and ``operators`` stand in, with those operators that Qwen3 calls in an eager
  engine.
* ``vllm_ascend._build_info``, which a build writes: ``_build_info``.
* ``libatb`` of CANN's NNAL. The released libop_plugin_atb.so loads over ``tests/npu/cann/atb.c`` and defines
  its operators; ``npu_operators.inference`` computes those that are called.
* pyACL, a part of CANN: the package ``acl`` next to this one.
* triton-ascend. vLLM finds no driver for the Triton of the CPU stack, and vllm-ascend then uses what it has
  for chips without Triton (Atlas 300I). It calls one kernel all the same: ``slot_mapping``.
* torchair and graphs: engines here are eager. vllm-ascend skips torchair when it cannot be imported.
* the modules of ``ABSENT``, which vllm-ascend requires and the CPU stack does not have.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

FILES = {
    f"vllm_ascend.{name}": Path(__file__).with_name(f"{name}.py") for name in ("_build_info", "vllm_ascend_C")
}
# Imported when a worker starts and not called for Qwen3, but for the one function in VALUES.
ABSENT = {
    "fla_npu": "ops/gdn.py of 0.30, kernels of linear attention",
    "scipy": "eplb/core/policy/policy_flashlb.py, expert load balancing",
    "torchvision": "patch/worker/patch_qwen3vl.py and others, image processors of transformers",
}
# policy_flashlb.py:509 takes a default from it.
VALUES = {"scipy.stats.norm.ppf": statistics.NormalDist().inv_cdf}


class AbsentName:
    """A name of an absent module. It has every attribute; calling it raises ImportError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = f"{self._path}.{name}"
        return VALUES.get(path) or AbsentName(path)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise ImportError(f"{self._path} is not installed")


class AbsentModule(ModuleType):
    """A module that has every name, so that sources which mention it can be imported."""

    __path__: Sequence[str] = ()
    __version__ = "1.15.0"  # numba requires this of a scipy
    __getattr__ = AbsentName.__getattr__

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._path = name


class _Files(MetaPathFinder):
    """Find the files of this package as modules of vllm-ascend."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, FILES[name]) if name in FILES else None


class _Absent(MetaPathFinder, Loader):
    """Find absent modules, and every module below them."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in ABSENT else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def find_modules() -> None:
    """Make modules of vllm-ascend importable. ``import torch`` calls this (``torch.backends``)."""
    sys.meta_path.append(_Files())


def prepare_worker() -> None:
    """Provide absent modules and the Triton kernel. vLLM calls this (``vllm.general_plugins``)."""
    from vllm_ascend_parts import slot_mapping

    sys.meta_path.append(_Absent())
    slot_mapping.install()
