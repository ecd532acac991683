"""cann: CANN's toolkit, kernels, Python packages and NNAL fit the stack, and processes will find them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from vimectl.doctor.check import CheckList, CheckResult, result
from vimectl.doctor.facts import Facts, Unavailable, cann
from vimectl.doctor.facts.npu_smi import read_listing
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.versions import matches

CHECKS = CheckList()

_KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
# The directory of the kernels for each generation of Atlas.
_KERNEL_DIRECTORIES = {"A2": "ascend910b", "A3": "ascend910_93"}
# Compiling an operator imports tbe; the bindings of the CANN runtime are acl.
_PYTHON_PACKAGES = ("acl", "tbe")
# Exported by set_env.sh of the toolkit and of NNAL, and read by torch_npu and vllm-ascend.
_EXPORTED = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "ATB_HOME_PATH")
# The path may have the toolkit under the name of its version, and the environment under that of a link to it.
_LIBRARIES = re.compile(r"/(ascend-toolkit|cann)[^/]*(/[^/]+)?/lib64/?$")


def _cann_version(facts: Facts) -> str:
    """Return the version of CANN that the stack needs. Raises Unavailable if it needs none."""
    if facts.stack.cann is None:
        raise Unavailable(f"{facts.stack.name} needs no CANN")
    return facts.stack.cann


def _toolkit(facts: Facts) -> tuple[str, Mapping[str, str]]:
    """Return the directory of the toolkit of a stack that needs one, and its version file."""
    _cann_version(facts)
    home = facts.read(cann.read_home)
    if not home:
        raise Unavailable("there is no CANN toolkit (cann.toolkit)")
    return home, facts.read(cann.read_install_info, home)


def _machine_kind(facts: Facts) -> str | None:
    """Return the generation of Atlas of this machine, if all chips are of one known kind."""
    try:
        chips = facts.read(read_listing).chips if facts.running else ()
    except Unavailable:
        return None
    kinds = {chip.kind for chip in chips}
    return kinds.pop() if len(kinds) == 1 else None


def _or_image(facts: Facts) -> str:
    images = facts.stack.images
    if images is None:
        return ""
    kind = _machine_kind(facts)
    fitting = [image for name, image in (("A2", images.a2), ("A3", images.a3)) if kind in (name, None)]
    return f", or start from the image {' or '.join(fitting)}" if fitting else ""


@CHECKS.add("cann.toolkit")
def toolkit_version(facts: Facts) -> CheckResult:
    """torch-npu and vllm-ascend of a stack are built with one release of CANN."""
    wanted, home = _cann_version(facts), facts.read(cann.read_home)
    version = facts.read(cann.read_install_info, home)["version"] if home else ""
    found = f"{home}: {version}" if version else f"{home} without ascend_toolkit_install.info"
    return result(
        bool(version) and matches(version, wanted),
        found if home else "no toolkit",
        wanted,
        f"install Ascend-cann-toolkit {wanted}{_or_image(facts)}",
    )


@CHECKS.add("cann.kernels")
def kernels(facts: Facts) -> CheckResult:
    """The operators are a separate package for each kind of chip."""
    (home, info), kind = _toolkit(facts), _machine_kind(facts)
    installed, version = info["version"], facts.read(cann.read_install_info, home, "ops")["version"]
    have = [name for name in facts.names(f"{home}/{_KERNELS}") if name in _KERNEL_DIRECTORIES.values()]
    wanted = _KERNEL_DIRECTORIES[kind] if kind else " or ".join(_KERNEL_DIRECTORIES.values())
    return result(
        (bool(have) if kind is None else wanted in have) and version in ("", installed),
        f"kernels for {', '.join(have) or 'no chip'}" + (f", {version}" if version else ""),
        f"kernels for {wanted}" + (f", {installed}" if installed else ""),
        f"install the operators of CANN {facts.stack.cann} for this chip (Ascend-cann-<chip>-ops)",
    )


@CHECKS.add("cann.nnal")
def nnal(facts: Facts) -> CheckResult:
    # They are released together: a stack that does not name NNAL uses that of its CANN.
    """vllm-ascend loads libatb.so of NNAL, of the same release as CANN."""
    wanted = facts.stack.nnal or _cann_version(facts)
    # ATB_HOME_PATH is .../atb/latest/atb/cxx_abi_1, two levels below the version file.
    home = facts.environment.get("ATB_HOME_PATH") or "/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_1"
    directory = home.rsplit("/", 2)[0]
    version = facts.search(f"{directory}/version.info", r"^\s*Ascend-cann-atb\s*:\s*(\S+)")
    return result(
        bool(version) and matches(version, wanted),
        f"{directory}: {version}" if version else f"no ATB in {directory}",
        wanted,
        f"install Ascend-cann-nnal {wanted}, and source /usr/local/Ascend/nnal/atb/set_env.sh",
    )


@CHECKS.add("cann.environment")
def cann_environment(facts: Facts) -> CheckResult:
    """torch_npu finds CANN through the variables that its set_env.sh exports."""
    home, _ = _toolkit(facts)
    if not facts.running:
        raise Unavailable("a file system that is not running has no environment")
    absent = [name for name in _EXPORTED if not facts.environment.get(name)]
    libraries = facts.environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if not any(path.rstrip("/") == f"{home}/lib64" or _LIBRARIES.search(path) for path in libraries):
        absent.append("CANN's lib64 on LD_LIBRARY_PATH")
    scripts = f"source {home.removesuffix('/latest')}/set_env.sh"
    if "ATB_HOME_PATH" in absent:
        scripts += " && source /usr/local/Ascend/nnal/atb/set_env.sh"
    return result(
        not absent,
        f"not set: {', '.join(absent)}" if absent else f"CANN of {home}",
        "what set_env.sh exports",
        scripts,
    )


@CHECKS.add("cann.python")
def python_packages(facts: Facts) -> CheckResult:
    """Operators are compiled by CANN's own Python packages (PYTHONPATH)."""
    directory = f"{_toolkit(facts)[0]}/python/site-packages"
    have = facts.names(directory)
    absent = [name for name in _PYTHON_PACKAGES if not any(found.startswith(name) for found in have)]
    return result(
        not absent,
        f"{directory} without {', '.join(absent)}"
        if absent
        else f"{', '.join(_PYTHON_PACKAGES)} in {directory}",
        ", ".join(_PYTHON_PACKAGES),
        f"install the whole Ascend-cann-toolkit {facts.stack.cann} again",
    )


@CHECKS.add("cann.torch-npu")
def torch_npu(facts: Facts) -> CheckResult:
    """A torch_npu is built for one release of CANN."""
    installed = _toolkit(facts)[1]["version"]
    if not installed:
        raise Unavailable("the toolkit has no version (cann.toolkit)")
    have = facts.find("torch-npu")
    if have is None:
        raise Unavailable("torch_npu is not installed (packages.torch-npu)")
    stacks = [load_stack(name) for name in stack_names()]
    fitting = [stack for stack in stacks if matches(have.version, stack.packages.get("torch-npu", ""))]
    built = sorted({stack.cann for stack in fitting if stack.cann})
    if not built:
        raise Unavailable(f"no known stack has torch_npu {have.version}")
    return result(
        any(matches(installed, version) for version in built),
        f"torch_npu {have.version} on CANN {installed}",
        f"CANN {' or '.join(built)}",
        f"install CANN {built[-1]}, or the torch_npu of the stack whose CANN is {installed}",
    )


@CHECKS.add("cann.vllm-ascend")
def vllm_ascend_build(facts: Facts) -> CheckResult:
    """vllm-ascend asserts at start that the chip is of the kind it was built for (_build_info.py)."""
    _cann_version(facts)
    (file, built), kind = facts.read(cann.read_vllm_ascend_build), _machine_kind(facts)
    if not built:
        raise Unavailable(f"{file} does not say for which chip")
    if kind is None:
        raise Unavailable("the kind of the chips is not known (device.chip)")
    return result(
        built == kind,
        f"vllm-ascend built for {built}, the chips are {kind}",
        kind,
        f"build vllm-ascend for {kind}{_or_image(facts)}",
    )
