"""imports: the packages can be imported, each in a child process."""

from __future__ import annotations

from functools import partial

from vimectl.doctor.check import CheckList, CheckResult, result
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.imports import read_imports
from vimectl.doctor.facts.packages import module_of
from vimectl.doctor.stack_requirements import companion_versions, pinned_packages, pinned_source
from vimectl.stacks.schema import Stack

CHECKS = CheckList(imports=True, reads=("*",), source="what the interpreter says of the import")

# The other packages load these, so they are imported first: an error is attributed to the right package.
_FIRST = ("torch", "torch-npu", "triton-ascend")
# These import torch, and on NPUs torch_npu.
_ON_TORCH = (
    "torch_npu",
    "torchvision",
    "vllm",
    "vllm_ascend",
    "vllm_ascend.vllm_ascend_C",
    "megatron.core",
    "mindspeed",
)
# CANN's own packages, without which torch_npu cannot compile an operator.
_CANN_MODULES = ("acl", "tbe")
_EXTENSION = "vllm_ascend.vllm_ascend_C"
_REASON = "a missing library, or one built for something else, is only found when the module is imported"
# Importing vllm_ascend only warns without it: utils.py:383-414 of vllm-ascend 0.22.1rc1.
_REASONS = {
    _EXTENSION: "without its operators vllm-ascend disables them with a warning, and an engine cannot sleep",
    "torchvision": "MindSpeed's adaptor imports torchvision if transformers can be imported",
}


def _modules(stack: Stack) -> dict[str, str]:
    """Return the package of each module, in the order of import; empty for CANN's own modules."""
    packages = sorted(stack.packages, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    modules = {module_of(name): name for name in packages}
    if "vllm-ascend" in stack.packages:
        modules[_EXTENSION] = "vllm-ascend"
    modules |= {module_of(name): name for name in pinned_packages(stack)}
    if stack.commits and "torchvision" in companion_versions(stack):
        modules["torchvision"] = "torchvision"
    return modules | (dict.fromkeys(_CANN_MODULES, "") if stack.cann else {})


def _is_there(facts: Facts, package: str) -> bool:
    if package in pinned_packages(facts.stack):
        return pinned_source(facts, package) is not None
    return not package or facts.find(package) is not None


def _reasons(stack: Stack, *, on_torch: bool, of_cann: bool = False) -> dict[str, str]:
    """Return the modules of one kind, each with why it is imported."""
    return {
        module: _REASONS.get(module, _REASON)
        for module in _modules(stack)
        if (module in _ON_TORCH) == on_torch and (module in _CANN_MODULES) == of_cann
    }


def import_module(module: str, facts: Facts) -> CheckResult:
    """Import a module of the stack's packages."""
    packages = _modules(facts.stack)
    there = tuple(name for name, package in packages.items() if _is_there(facts, package))
    if module not in there:
        raise Unavailable(f"{packages[module]} is not installed (packages.{packages[module]})")
    # The arguments are the same for every module, so the modules are imported once.
    found = facts.read(read_imports, there, tuple(sorted(facts.stack.omitted))).get(module)
    if found is None:
        raise Unavailable("an import before this one did not finish")
    failed, text = found
    fix = f"{facts.python} -c 'import {module}'  # shows the whole error"
    return result(not failed, text, f"import {module} works", fix)


_CAUSES = (
    *("python.version", "host.processor", "host.glibc", "host.libstdcxx", "environment.pythonpath"),
    *("packages.*", "driver.mounts", "driver.libraries", "cann.*", "host.libraries", "environment.user"),
)
CHECKS.add_each("imports.{}", partial(_reasons, on_torch=False), after=_CAUSES)(import_module)
CHECKS.add_each(
    "imports.{}",
    partial(_reasons, on_torch=True),
    after=("imports.torch", "imports.torch_npu", *_CAUSES),
)(import_module)
CHECKS.add_each("imports.{}", partial(_reasons, on_torch=False, of_cann=True), after=("cann.*",))(
    import_module
)
