"""packages, patches and tms: the packages are complete, compatible and patched, and load a good library."""

from __future__ import annotations

from functools import partial

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import VimeError

from vimectl.doctor.check import Check, CheckList, CheckResult, listed, result, skip
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.facts.packages import (
    TORCH_COMPANIONS,
    read_checkout,
    read_editable_installs,
    read_metadata,
)
from vimectl.env.memory_saver.verify import all_good, required_backend, verify_installed
from vimectl.stacks.catalog import lock_path
from vimectl.stacks.lock import read_lock
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches, within

CHECKS = CheckList()

# The runtime libraries of CUDA, and packages that are compiled for it only.
_CUDA_PREFIXES = ("nvidia-", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "cupy-cuda")
_CUDA = frozenset({"flash-attn", "flashinfer-python", "transformer-engine", "apex", "deep-ep", "xformers"})


@CHECKS.add("packages.editable")
def editable(facts: Facts) -> CheckResult:
    """A checkout can be at another commit than the release of its version."""
    stack = facts.stack
    names = {canonicalize_name(name) for p in stack.packages for name in stack.distributions(p)}
    found, moved = [], []
    for one in facts.read(read_editable_installs):
        if one.name not in names:
            continue
        state = facts.read(read_checkout, one.directory)
        if state is None:
            found.append(f"{one.name} in {one.directory}, not a git checkout")
            continue
        changed = f", {state.changed} files changed" if state.changed else ""
        found.append(f"{one.name} in {one.directory} at {state.described}{changed}")
        # git describe prints the tag alone if the commit has one; a version may have a local part.
        if state.described.removeprefix("v") != one.version.partition("+")[0]:
            moved.append(one)
    return result(
        not moved,
        "; ".join(found) or "none of the stack",
        "each at the tag of its version",
        "; ".join(f"git -C {one.directory} checkout v{one.version.partition('+')[0]}" for one in moved),
        "warn",
    )


@CHECKS.add("packages.cuda")
def cuda(facts: Facts) -> CheckResult:
    """Packages for CUDA overwrite files of the stack's packages (triton) or are imported instead of them."""
    installed = facts.installed
    found = [name for name in sorted(installed) if name.startswith(_CUDA_PREFIXES) or name in _CUDA]
    if facts.stack.stack.device == "npu" and "triton" in installed and "triton-ascend" in installed:
        triton_ascend = facts.read(read_metadata, facts.stack).get("triton-ascend")
        needed = triton_ascend is not None and triton_ascend.requirement("triton") is not None
        found += [] if needed else ["triton"]
    return result(
        not found,
        listed(found) or "none",
        "no package for CUDA",
        f"python -m pip uninstall --yes {' '.join(found)}",
        "warn",
    )


@CHECKS.add("packages.partners")
def torch_companions(facts: Facts) -> CheckResult:
    """torchvision and torchaudio are compiled against one version of torch and need it."""
    torch = facts.installed.get("torch")
    if not torch:
        return skip("torch is not installed")
    metadata = facts.read(read_metadata, facts.stack)
    companions = {name: metadata[name] for name in TORCH_COMPANIONS if name in metadata}
    wrong = {
        name: requirement
        for name, one in companions.items()
        if (requirement := one.requirement("torch"))
        and not requirement.specifier.contains(torch[0].version, prereleases=True)
    }
    texts = {name: f"{name} {one.distribution.version}" for name, one in companions.items()}
    return result(
        not wrong,
        "; ".join(f"{texts[name]} is for torch{requirement.specifier}" for name, requirement in wrong.items())
        or ", ".join(texts.values())
        or "neither is installed",
        f"built for torch {torch[0].version}",
        f"python -m pip uninstall --yes {' '.join(wrong)}",
    )


@CHECKS.add("packages.intact")
def intact(facts: Facts) -> CheckResult:
    """Two distributions may have files in one directory (triton, triton-ascend): installing the second
    overwrites them, uninstalling it deletes them.
    """
    packages = facts.stack.packages
    modules = {
        name: one.modules for name, one in facts.read(read_metadata, facts.stack).items() if name in packages
    }
    read = sum(map(len, modules.values()))
    if not read:
        return skip("no package of the stack has a RECORD of its files")
    texts = {"absent": "is missing", "overwritten": "is of another package"}
    wrong = {
        name: next(f"{module.path} {texts[module.state]}" for module in own if module.state != "intact")
        for name, own in modules.items()
        if any(module.state != "intact" for module in own)
    }
    return result(
        not wrong,
        "; ".join(f"{package}: {text}" for package, text in wrong.items())
        or f"{read} modules as their packages installed them",
        "the files that each package installed",
        "python -m pip install --force-reinstall --no-deps "
        + " ".join(f"{package}=={packages[package]}" for package in wrong),
    )


@CHECKS.add("packages.requires")
def requirements(facts: Facts) -> CheckResult:
    """A package of the stack cannot be imported without its requirements."""
    stack = facts.stack
    omitted = {canonicalize_name(name) for name in {**stack.omitted, **stack.unwanted}}
    # Names only: a package may be provided under another name, and packages.lock checks versions.
    absent = [
        (requirement.name, package)
        for package, one in facts.read(read_metadata, stack).items()
        if package in stack.packages
        for requirement in one.requires
        if canonicalize_name(requirement.name) not in {*facts.installed, *omitted}
    ]
    shown = listed([f"{name} (for {package})" for name, package in absent])
    return result(
        not absent,
        f"absent: {shown}" if absent else "all there",
        "everything that the packages of the stack require",
        "python -m pip install --no-deps " + " ".join(dict.fromkeys(name for name, _ in absent)),
        "warn",
    )


@CHECKS.add_for_stack
def ranges_and_lock(stack: Stack) -> list[Check]:
    """Return the checks of the tables that only some stacks have."""
    found = []
    if stack.ranges:
        sources = "; ".join(f"{name}: {stack.source(name)}" for name in stack.ranges)
        found.append(Check("packages.ranges", sources, _ranges))
    if stack.unwanted:
        found.append(Check("packages.unwanted", "; ".join(stack.unwanted.values()), _unwanted))
    if lock_path(stack.name):
        found.append(Check("packages.lock", "the stack is tested with its whole lock", _lock))
    return found


def _ranges(facts: Facts) -> CheckResult:
    stack = facts.stack
    have = {name: facts.find(name) for name in stack.ranges}
    outside = [
        name for name, item in have.items() if not item or not within(item.version, stack.ranges[name])
    ]
    names = " ".join(f"'{stack.distributions(name)[0]}{stack.ranges[name]}'" for name in outside)
    return result(
        not outside,
        ", ".join(f"{name} {item.version if item else 'not installed'}" for name, item in have.items()),
        ", ".join(f"{name} {wanted}" for name, wanted in stack.ranges.items()),
        f"python -m pip install {names}",
        "fail" if None in have.values() else "warn",
    )


def _unwanted(facts: Facts) -> CheckResult:
    unwanted = facts.stack.unwanted
    found = [name for name in unwanted if canonicalize_name(name) in facts.installed]
    return result(
        not found,
        ", ".join(found) or "none of them",
        "without " + ", ".join(unwanted),
        f"python -m pip uninstall --yes {' '.join(found)}",
    )


def _lock(facts: Facts) -> CheckResult:
    lock = lock_path(facts.stack.name)
    assert lock is not None
    pins = read_lock(lock)
    versions = {name: items[0].version for name, items in facts.installed.items()}
    other = [
        f"{pin.name} {versions.get(pin.name, 'absent')} (not {pin.version})"
        for pin in pins.values()
        if not matches(versions.get(pin.name, ""), pin.version)
    ]
    return result(
        not other,
        f"{len(pins) - len(other)} of {len(pins)} as locked" + (f"; {listed(other, 5)}" if other else ""),
        f"all {len(pins)}",
        f"vimectl env create DIR --stack {facts.stack.name}",
        "warn",
    )


@CHECKS.add_for_stack
def patches(stack: Stack) -> list[Check]:
    """Return a check for each patch series of the stack."""
    return [
        Check(
            f"patches.{package}",
            f"without the series {package} {version} the colocated job does not run",
            partial(_patches, package),
            expected="applied",
        )
        for package, version in stack.patches.items()
    ]


def _patches(package: str, facts: Facts) -> CheckResult:
    name = facts.stack.name
    targets, directory = facts.read(read_patch_state, facts.stack, package)
    if not targets:
        return skip(f"{package} is not installed (packages.{package})")
    states = [target.state for target in targets]
    target = f" --target {directory}" if directory else ""
    fix = f"vimectl patch apply --stack {name}{target}"
    if "drifted" in states:
        fix = f"vimectl patch diff {package} --stack {name}{target}  (these files were edited)"
    return result(states == ["applied"], ", ".join(states), "applied", fix)


def _required_backend(facts: Facts) -> str:
    backend = required_backend(facts.stack)
    if backend is None:
        raise Unavailable("on the CPU the trainer's memory is offloaded without torch_memory_saver")
    return backend


@CHECKS.add("tms.library", expected="a readable file of known builds")
def memory_saver_library(facts: Facts) -> CheckResult:
    """A library built for another accelerator, or one that ignores pause, corrupts the run."""
    expected = f"known-good {_required_backend(facts)} builds"
    builds = facts.read(verify_installed, facts.stack)
    if not builds:
        return CheckResult("fail", "torch_memory_saver is not installed", expected, "vimectl tms list")
    loaded = [build for build in builds if build.loads]
    found = "; ".join(f"{build.path}: {build.verdict}: {build.note}" for build in loaded or builds)
    found = facts.without_root(found)
    return result(
        all_good(builds, facts.stack),
        found if loaded else f"none would be loaded; {found}",
        expected,
        f"vimectl tms verify --stack {facts.stack.name}, then replace what it names",
    )


@CHECKS.add("tms.identity")
def memory_saver_identity(facts: Facts) -> CheckResult:
    """Eight digits of an MD5 identify a file among the known ones; they do not authenticate it."""
    _required_backend(facts)
    try:
        builds = facts.read(verify_installed, facts.stack)
    except VimeError:
        return skip("the known builds cannot be read (tms.library)")
    known = [build for build in builds if build.loads and build.verdict == "known-good"]
    if not known:
        return skip("no library that would be loaded is known (tms.library)")
    return result(
        all(build.match != "md5-prefix" for build in known),
        facts.without_root("; ".join(f"{build.path}: known by {build.match}" for build in known)),
        "known by its whole digest",
        "get the file from its builder, and record its digest: vimectl tms record FILE --note TEXT",
        "warn",
    )
