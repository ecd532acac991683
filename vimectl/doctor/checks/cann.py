"""cann: CANN's toolkit, kernels, Python packages and NNAL are whole and fit the stack."""

from __future__ import annotations

from collections.abc import Mapping

from vimectl.doctor.check import CheckList, CheckResult, result
from vimectl.doctor.facts import Facts, Unavailable, cann, loader
from vimectl.doctor.facts.npu_smi import read_listing
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.versions import matches

CHECKS = CheckList()

_KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
# The directory of the kernels for each generation of Atlas.
_KERNEL_DIRECTORIES = {"A2": "ascend910b", "A3": "ascend910_93"}
# Compiling an operator imports tbe; the bindings of the CANN runtime are acl.
_PYTHON_PACKAGES = ("acl", "tbe")
# The package of the operators for each generation of Atlas, as its install.info names it.
_KERNEL_PACKAGES = {"A2": "Ascend-cann-910b-ops", "A3": "Ascend-cann-A3-ops"}
# The default SOC_VERSION of vllm-ascend's Dockerfiles.
_SOC_VERSIONS = {"A2": "ascend910b1", "A3": "ascend910_9391"}
# The libraries that torch_npu and vllm-ascend load.
LIBRARIES = ("libascendcl.so", "libhccl.so")
ATB_LIBRARY = "libatb.so"
_MATRIX = "vllm-ascend's release matrix"


def _cann_version(facts: Facts) -> str:
    """Return the version of CANN that the stack needs. Raises Unavailable if it needs none."""
    if facts.stack.cann is None:
        raise Unavailable(f"{facts.stack.name} needs no CANN")
    return facts.stack.cann


def toolkit(facts: Facts) -> tuple[str, Mapping[str, str]]:
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


@CHECKS.add(
    "cann.toolkit",
    source=f"{_MATRIX}, row of the stack's vllm-ascend; vllm-ascend#750",
    reads=(*cann.TOOLKIT_READS, *loader.READS, "npu-smi info"),
)
def toolkit_version(facts: Facts) -> CheckResult:
    """torch-npu and vllm-ascend of a stack are built with one release of CANN, for one machine."""
    wanted, home = _cann_version(facts), facts.read(cann.read_home)
    info = facts.read(cann.read_install_info, home)
    version, built, machine = info["version"], info["arch"], facts.read(cann.read_machine)
    found, fix = f"{home}: {version}", f"install Ascend-cann-toolkit {wanted}{_or_image(facts)}"
    if not version:
        found = f"{home} without ascend_toolkit_install.info" if home else "no toolkit"
    elif not matches(version, wanted):
        fitting = [
            other
            for other, found_version in facts.read(cann.read_toolkits).items()
            if matches(found_version, wanted)
        ]
        fix = f"source {set_env(facts, fitting[0])}, in a new shell" if fitting else fix
    elif built and machine and built != machine:
        found, version = f"{found} for {built}, this machine is {machine}", ""
        fix = f"install Ascend-cann-toolkit {wanted} for {machine}{_or_image(facts)}"
    elif absent := _absent_libraries(facts, home):
        found, version = f"{found}, without {', '.join(absent)}", ""
        fix = f"install the whole Ascend-cann-toolkit {wanted} again"
    return result(bool(version) and matches(version, wanted), found, _for(wanted, machine), fix)


def _absent_libraries(facts: Facts, home: str) -> list[str]:
    """Return the libraries that are neither in the toolkit nor elsewhere on the loader's path."""
    elsewhere = [name for name in LIBRARIES if facts.read(loader.find_library, name)]
    return facts.missing(f"{home}/lib64/{name}" for name in LIBRARIES if name not in elsewhere)


def _for(version: str, machine: str) -> str:
    return f"{version} for {machine}" if machine else version


def set_env(facts: Facts, home: str) -> str:
    """Return the script that sets the environment of a toolkit: in it, or next to it for older releases."""
    scripts = [f"{home}/set_env.sh", f"{home.rpartition('/')[0]}/set_env.sh"]
    absent = facts.missing(scripts)
    usual = scripts[1] if "/ascend-toolkit/" in home else scripts[0]
    return next((script for script in scripts if script not in absent), usual)


@CHECKS.add(
    "cann.kernels",
    source="vllm-ascend 0.22.1rc1, installation guide (CANN kernels); MindSpeed-LLM#2",
    reads=(*cann.TOOLKIT_READS, "npu-smi info"),
    after=("cann.toolkit",),
)
def kernels(facts: Facts) -> CheckResult:
    """The operators are a separate package for each kind of chip."""
    (home, info), kind = toolkit(facts), _machine_kind(facts)
    installed, version = info["version"], facts.read(cann.read_install_info, home, "ops")["version"]
    have = [name for name in facts.names(f"{home}/{_KERNELS}") if name in _KERNEL_DIRECTORIES.values()]
    wanted = _KERNEL_DIRECTORIES[kind] if kind else " or ".join(_KERNEL_DIRECTORIES.values())
    packages = [_KERNEL_PACKAGES[kind]] if kind else list(_KERNEL_PACKAGES.values())
    return result(
        (bool(have) if kind is None else wanted in have) and version in ("", installed),
        f"kernels for {', '.join(have) or 'no chip'}" + (f", {version}" if version else ""),
        f"kernels for {wanted}" + (f", {installed}" if installed else ""),
        f"install {' or '.join(packages)} {facts.stack.cann}{_or_image(facts)}",
    )


@CHECKS.add(
    "cann.nnal",
    source="vllm-ascend 0.22.1rc1, installation guide (requirements); Ascend/pytorch#99, vllm-ascend#2727",
    reads=("$ATB_HOME_PATH", "/usr/local/Ascend/nnal/*", "*/version.info", f"*/{ATB_LIBRARY}"),
)
def nnal(facts: Facts) -> CheckResult:
    # They are released together: a stack that does not name NNAL uses that of its CANN.
    """vllm-ascend loads libatb.so of NNAL, of the same release as CANN."""
    wanted = facts.stack.nnal or _cann_version(facts)
    home, version = facts.read(cann.read_nnal_home), facts.read(cann.read_nnal_version)
    directory = home.rstrip("/").rsplit("/", 2)[0]
    absent = facts.missing([f"{home}/lib/{ATB_LIBRARY}"])
    found = f"{directory}: {version}" if version else f"no ATB in {directory}"
    if version and absent:
        found += f", without {absent[0]}"
    return result(
        bool(version) and matches(version, wanted) and not absent,
        found,
        wanted,
        f"install Ascend-cann-nnal {wanted}, and source /usr/local/Ascend/nnal/atb/set_env.sh",
    )


@CHECKS.add(
    "cann.python",
    source="CANN 9.0.0, set_env.sh (PYTHONPATH)",
    reads=cann.TOOLKIT_READS,
    after=("cann.toolkit",),
)
def python_packages(facts: Facts) -> CheckResult:
    """Operators are compiled by CANN's own Python packages (PYTHONPATH)."""
    directory = f"{toolkit(facts)[0]}/python/site-packages"
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


@CHECKS.add(
    "cann.torch-npu",
    source=_MATRIX,
    reads=(*cann.TOOLKIT_READS, "$PYTHONPATH", "*"),
    after=("cann.toolkit", "packages.torch-npu"),
)
def torch_npu(facts: Facts) -> CheckResult:
    """A torch_npu is built for one release of CANN. If they do not fit, the one that is not the stack's is at
    fault.
    """
    installed = toolkit(facts)[1]["version"]
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
    fix = f"install CANN {facts.stack.cann}, which the stack needs"
    if cann.is_stack_version(facts.stack, installed):
        fix = f"install torch-npu {facts.stack.packages.get('torch-npu')}; CANN {installed} is right"
    return result(
        any(matches(installed, version) for version in built),
        f"torch_npu {have.version} on CANN {installed}",
        f"CANN {' or '.join(built)}",
        fix,
    )


@CHECKS.add(
    "cann.vllm-ascend",
    source="vllm-ascend 0.22.1rc1, vllm_ascend/utils.py:778-809; vllm-ascend#11160",
    reads=("$PYTHONPATH", "npu-smi info", "*"),  # every directory of sys.path
)
def vllm_ascend_build(facts: Facts) -> CheckResult:
    """vllm-ascend asserts at start that the chip is of the kind it was built for (_build_info.py). The
    wheels on the package index are for A2.
    """
    _cann_version(facts)
    (file, built), kind = facts.read(cann.read_vllm_ascend_build), _machine_kind(facts)
    if not built:
        raise Unavailable(f"{file} does not say for which chip")
    if kind is None:
        raise Unavailable("the kind of the chips is not known (device.chip)")
    version = facts.stack.packages.get("vllm-ascend")
    return result(
        built == kind,
        f"vllm-ascend built for {built}, the chips are {kind}",
        kind,
        f"git clone --recurse-submodules --branch v{version} https://github.com/vllm-project/vllm-ascend && "
        f"SOC_VERSION={_SOC_VERSIONS[kind]} python -m pip install --no-deps --no-build-isolation "
        f"./vllm-ascend{_or_image(facts)}",
    )
