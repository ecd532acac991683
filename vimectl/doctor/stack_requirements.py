"""Compare the installed packages with a stack, and say what installs those that differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.markers import Environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.packages import TORCH_COMPANIONS, read_editable_installs, read_metadata
from vimectl.doctor.facts.pins import PinnedSource, read_pinned_source
from vimectl.doctor.facts.python_environment import read_marker_environment
from vimectl.doctor.install_commands import Install, Uninstall, commands, python_environment
from vimectl.stacks.catalog import lock_path
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches, within

# What the functions here read: the metadata of packages, the checkouts of pinned ones, the package manager.
PACKAGE_READS = (
    *("*-packages*", "*/bin/python*", "*/pyvenv.cfg", "*/EXTERNALLY-MANAGED", "uname -m", "$PYTHONPATH"),
    *("*/.git*", "*/setup.py", "*/package_info.py", "*/megatron/core", "*/mindspeed", "git * merge-base *"),
)
# The releases of torchvision and torchaudio for each torch: Requires-Dist of their released wheels.
_FOR_TORCH = {
    "2.7.1": {"torchvision": "0.22.1", "torchaudio": "2.7.1"},
    "2.8.0": {"torchvision": "0.23.0", "torchaudio": "2.8.0"},
    "2.9.0": {"torchvision": "0.24.0", "torchaudio": "2.9.0"},
    "2.10.0": {"torchvision": "0.25.0", "torchaudio": "2.10.0"},
}
# Distributions that provide the same modules: any one of them meets a requirement on another.
SAME_MODULES = (
    {"triton", "triton-ascend"},
    {
        "opencv-python",
        "opencv-python-headless",
        "opencv-contrib-python",
        "opencv-contrib-python-headless",
    },
)
# The packages for CUDA: the runtime libraries, and packages that are compiled for it only.
CUDA_PREFIXES = ("nvidia-", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "cupy-cuda")
CUDA_PACKAGES = frozenset(
    {"flash-attn", "flashinfer-python", "transformer-engine", "apex", "deep-ep", "xformers"}
)
# requirements/cuda.txt of vLLM 0.22.1: its wheel requires these too, an engine on NPUs imports none.
_VLLM_CUDA = frozenset(
    {
        *("flashinfer-cubin", "apache-tvm-ffi", "tilelang", "fastsafetensors", "quack-kernels"),
        *("tokenspeed-mla", "humming-kernels"),
    }
)


@dataclass(frozen=True)
class Unmet:
    """A requirement of a package of the stack that is not met; ``installed`` is empty if it is absent."""

    requirement: Requirement
    package: str
    installed: str

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    def __str__(self) -> str:
        if not self.installed:
            return f"{self.requirement.name} (for {self.package})"
        wanted = f"{self.requirement.name}{self.requirement.specifier}"
        return f"{self.name} {self.installed} is not {wanted} (for {self.package})"


def is_cuda(name: str) -> bool:
    """Return True for a distribution that is for CUDA only."""
    return name.startswith(CUDA_PREFIXES) or name in CUDA_PACKAGES


def requirement_of(facts: Facts, package: str) -> str:
    """Return the requirement that installs a package of the stack: exactly its version, for this machine."""
    stack = facts.stack
    if pin := pin_of(stack, package):
        return f"{package} @ git+{stack.commits[pin].url}@{stack.commits[pin].commit}"
    if package in stack.ranges:
        return f"{stack.distributions(package)[0]}{stack.ranges[package]}"
    version = stack.packages.get(package) or companion_versions(stack)[package]
    return f"{stack.distributions(package)[0]}=={version}{_build(facts, package)}"


def _build(facts: Facts, package: str) -> str:
    """Return the local version of a build without CUDA, where the package index has one with it.

    For aarch64 it has torch without CUDA.
    """
    if package not in ("torch", *TORCH_COMPANIONS) or "+" in facts.stack.packages.get("torch", ""):
        return ""
    return "+cpu" if python_environment(facts).machine == "x86_64" else ""


def companion_versions(stack: Stack) -> dict[str, str]:
    """Return the versions of TORCH_COMPANIONS for the torch of a stack, without unwanted ones."""
    torch = stack.packages.get("torch", "").partition("+")[0]
    return {name: one for name, one in _FOR_TORCH.get(torch, {}).items() if name not in stack.unwanted}


def pin_of(stack: Stack, distribution: str) -> str:
    """Return the name in ``[commits]`` of a distribution, or nothing."""
    return next((name for name, pin in stack.commits.items() if pin.distribution == distribution), "")


def pinned_packages(stack: Stack) -> list[str]:
    """Return the distributions that the stack pins to a commit."""
    return [pin.distribution for pin in stack.commits.values() if pin.distribution]


def pinned_source(facts: Facts, distribution: str) -> PinnedSource | None:
    """Return what is there of a distribution that the stack pins to a commit."""
    return facts.read(read_pinned_source, facts.stack, pin_of(facts.stack, distribution))


def is_pinned_version(facts: Facts, distribution: str, source: PinnedSource | None) -> bool:
    """Return True if the version of a pinned package is right, or unknown in a checkout with its commit."""
    wanted = facts.stack.commits[pin_of(facts.stack, distribution)]
    if source is None or not source.present:
        return False
    at_pin = source.descends or source.commit == wanted.commit
    return matches(source.version, wanted.version) if source.version else at_pin


def is_imported_from(facts: Facts, package: str, directory: str) -> bool:
    """Return True if a package of the stack may be imported from this entry of PYTHONPATH.

    It is where the package is installed, or is checked instead of an installed one, see ``PinnedSource``.
    """
    if package in pinned_packages(facts.stack):
        source = pinned_source(facts, package)
        return package not in facts.installed or is_pinned_version(facts, package, source)
    item = facts.find(package)
    if item is None:
        return False
    editable = {one.directory for one in facts.read(read_editable_installs) if one.name == item.name}
    return directory.rstrip("/") in {item.location, *editable}


def differing(facts: Facts) -> list[str]:
    """Return the packages of the stack that are absent or of another version, in the order of the stack."""
    stack = facts.stack
    found = [name for name, wanted in stack.packages.items() if not _is(facts, name, wanted)]
    found += [
        name for name, wanted in stack.ranges.items()
        if (have := facts.find(name)) is None or not within(have.version, wanted)
    ]  # fmt: skip
    for name in pinned_packages(stack):
        source = pinned_source(facts, name)
        # A checkout is moved to the commit by git, see ``checks.packages``.
        if not is_pinned_version(facts, name, source) and not (source and source.directory):
            found.append(name)
    return found


def _is(facts: Facts, name: str, wanted: str) -> bool:
    have = facts.find(name)
    return have is not None and matches(have.version, wanted)


def differing_companions(facts: Facts) -> list[str]:
    """Return the installed TORCH_COMPANIONS that are not for the torch of the stack."""
    wanted = companion_versions(facts.stack)
    have = facts.installed
    return [name for name in wanted if name in have and not matches(have[name][0].version, wanted[name])]


def unmet(facts: Facts) -> list[Unmet]:
    """Return the requirements of the stack's packages that are not met."""
    found = []
    for package, requirement in _requirements(facts):
        installed = _installed(facts, canonicalize_name(requirement.name))
        if not installed or not within(installed, str(requirement.specifier)):
            found.append(Unmet(requirement, package, installed))
    return found


def _requirements(facts: Facts) -> Iterator[tuple[str, Requirement]]:
    """Yield the requirements of the stack's packages that apply here, with their packages.

    Only packages of the right version count, and only requirements on what the stack does not determine
    itself. Pinned commits are left out: MindSpeed's requirements.txt has test tools and an old numpy.
    """
    stack = facts.stack
    environment = facts.read(read_marker_environment, facts.interpreter)
    left_out = {*differing(facts), *pinned_packages(stack), *TORCH_COMPANIONS}
    determined = {*stack.packages, *stack.ranges, *pinned_packages(stack), *stack.omitted, *stack.unwanted}
    determined |= stack.lock_without.keys()
    # Its version follows from that of torch, see ``companion_versions``.
    determined |= {"torchvision", *(set(companion_versions(stack)) & facts.installed.keys())}
    determined = {canonicalize_name(name) for name in determined}
    requires = {name: one.requires for name, one in facts.read(read_metadata, stack).items()}
    # vLLM and vllm-ascend contradict each other; vllm-ascend, installed last, is right (vllm-ascend#5710).
    first = {canonicalize_name(one.name) for one in requires.get("vllm-ascend", ()) if one.specifier}
    for package, own in requires.items():
        for requirement in own if package not in left_out else ():
            name = canonicalize_name(requirement.name)
            if package == "vllm" and name in first:
                continue
            if _provider(facts, name) not in determined and _applies(stack, requirement, environment):
                yield package, requirement
    for package, texts in stack.constraints.items():
        for requirement in map(Requirement, texts):
            if facts.find(package) and _installed(facts, canonicalize_name(requirement.name)):
                yield package, requirement


def _applies(stack: Stack, requirement: Requirement, environment: Environment) -> bool:
    name = canonicalize_name(requirement.name)
    if stack.stack.device == "npu" and (is_cuda(name) or name in _VLLM_CUDA):
        return False
    if requirement.marker is None:
        return True
    context = {name: str(value) for name, value in environment.items()}
    return requirement.marker.evaluate(context | {"extra": ""})


def _provider(facts: Facts, name: str) -> str:
    """Return the installed distribution with the modules of a distribution, by default that itself."""
    same = next((names for names in SAME_MODULES if name in names), {name})
    return next((one for one in (name, *sorted(same)) if one in facts.installed), name)


def _installed(facts: Facts, name: str) -> str:
    """Return the version of a distribution or of another one with the same modules; empty for none."""
    items = facts.installed.get(_provider(facts, name))
    return items[0].version if items else ""


def repair(facts: Facts) -> str:
    """Return the one command that installs everything that differs from the stack."""
    stack = facts.stack
    wrong = differing(facts)
    if not any(facts.find(name) for name in stack.packages):
        return new_environment(stack) or _whole_stack(facts, wrong)
    requirements = [requirement_of(facts, name) for name in (*wrong, *differing_companions(facts))]
    requirements += unmet_requirements(facts)
    return commands(facts, Install(requirements))


def locked(facts: Facts) -> dict[str, Pin]:
    """Return the pins of a lock that the stack is tested with.

    Not those of a stack for NPUs, whose images have the versions of their base.
    """
    lock = lock_path(facts.stack.argument) if facts.stack.stack.device == "cpu" else None
    return read_lock(lock, python_environment(facts).machine or None) if lock else {}


def unmet_requirements(facts: Facts) -> list[str]:
    """Return the requirements that install what ``unmet`` names, each distribution once."""
    pins = {name: f"=={pin.version}" for name, pin in locked(facts).items()}
    names = dict.fromkeys(one.name for one in unmet(facts))
    ranges: defaultdict[str, SpecifierSet] = defaultdict(SpecifierSet)
    for _, requirement in _requirements(facts):
        ranges[canonicalize_name(requirement.name)] &= requirement.specifier
    return [f"{name}{pins.get(name, ranges[name])}" for name in names]


def new_environment(stack: Stack) -> str:
    """Return the command that installs the whole stack, or nothing if it has no lock."""
    if lock_path(stack.argument) is None:
        return ""
    directory = f"~/{stack.name}"
    return f"vimectl env create {directory} --stack {stack.argument}  # then use {directory}/bin/vimectl"


def _whole_stack(facts: Facts, packages: list[str]) -> str:
    """Return the command for an environment without the stack: with what the packages require.

    triton-ascend comes last, since vLLM brings triton, which has files of the same names.
    """
    last = [name for name in packages if name == "triton-ascend" or pin_of(facts.stack, name)]
    first = [requirement_of(facts, name) for name in packages if name not in last]
    steps: list[Install | Uninstall] = [Install(first, dependencies=True)]
    if "triton-ascend" in last:
        steps.append(Uninstall(["triton", "triton-ascend"]))
    if last:
        steps.append(Install([requirement_of(facts, name) for name in last], over="replace"))
    return commands(facts, *steps)
