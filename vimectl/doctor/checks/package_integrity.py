"""packages, patches and tms: the packages are complete, compatible and patched, and load a good library."""

from __future__ import annotations

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import VimeError

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.facts.packages import (
    TORCH_COMPANIONS,
    distribution_names,
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
    names = distribution_names(facts.stack)
    found, moved = [], []
    for one in facts.read(read_editable_installs):
        if one.name not in names:
            continue
        state = facts.read(read_checkout, one.directory)
        if state is None:
            found.append(f"{one.name} in {one.directory}, not a git checkout")
            continue
        described, changed = state
        changes = f", {changed} files changed" if changed else ""
        found.append(f"{one.name} in {one.directory} at {described}{changes}")
        # git describe prints the tag alone if the commit has one; a version may have a local part.
        tag = "v" + one.version.partition("+")[0]
        if described.removeprefix("v") != tag.removeprefix("v"):
            moved.append(f"git -C {one.directory} checkout {tag}")
    return warn_unless(
        not moved,
        "; ".join(found) or "none of the stack",
        "each at the tag of its version",
        "; ".join(moved),
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
    return warn_unless(
        not found,
        listed(found) or "none",
        "no package for CUDA",
        f"python -m pip uninstall --yes {' '.join(found)}",
    )


@CHECKS.add("packages.partners")
def torch_companions(facts: Facts) -> CheckResult:
    """torchvision and torchaudio are compiled against one version of torch and need it."""
    torch = facts.installed.get("torch")
    if not torch:
        raise Unavailable("torch is not installed")
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
        raise Unavailable("no package of the stack has a RECORD of its files")
    wrong = {
        name: f"{name}: {path} {problem}"
        for name, own in modules.items()
        for path, problem in reversed(own.items())
        if problem
    }
    return result(
        not wrong,
        "; ".join(wrong.values()) or f"{read} modules as their packages installed them",
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
    return warn_unless(
        not absent,
        f"absent: {shown}" if absent else "all there",
        "everything that the packages of the stack require",
        "python -m pip install --no-deps " + " ".join(dict.fromkeys(name for name, _ in absent)),
    )


@CHECKS.add(
    "packages.ranges",
    why=lambda stack: "; ".join(f"{name}: {stack.source(name)}" for name in stack.ranges),
)
def ranges(facts: Facts) -> CheckResult:
    """Compare the packages for which the stack accepts a range of versions."""
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


@CHECKS.add("packages.unwanted", why=lambda stack: "; ".join(stack.unwanted.values()))
def unwanted_packages(facts: Facts) -> CheckResult:
    """Find the packages that the stack must not have."""
    unwanted = facts.stack.unwanted
    found = [name for name in unwanted if canonicalize_name(name) in facts.installed]
    return result(
        not found,
        ", ".join(found) or "none of them",
        "without " + ", ".join(unwanted),
        f"python -m pip uninstall --yes {' '.join(found)}",
    )


@CHECKS.add(
    "packages.lock",
    why=lambda stack: "the stack is tested with its whole lock" if lock_path(stack.argument) else "",
)
def locked_packages(facts: Facts) -> CheckResult:
    """Compare all packages of the lock."""
    lock = lock_path(facts.stack.argument)
    assert lock is not None
    # A project may want other versions than the lock; each has its own check.
    own = facts.stack.packages
    pins = {
        name: pin for name, pin in read_lock(lock).items() if matches(pin.version, own.get(name, pin.version))
    }
    versions = {name: items[0].version for name, items in facts.installed.items()}
    other = [
        f"{pin.name} {versions.get(pin.name, 'absent')} (not {pin.version})"
        for pin in pins.values()
        if not matches(versions.get(pin.name, ""), pin.version)
    ]
    return warn_unless(
        not other,
        f"{len(pins) - len(other)} of {len(pins)} as locked" + (f"; {listed(other, 5)}" if other else ""),
        f"all {len(pins)}",
        f"vimectl env create DIR --stack {facts.stack.argument}",
    )


def _series(stack: Stack) -> dict[str, str]:
    return {
        package: f"without the series {package} {' and '.join(entries)} the colocated job does not run"
        for package, entries in stack.patches.items()
    }


@CHECKS.add_each("patches.{}", _series, expected="applied", after=("environment.pythonpath",))
def patches(package: str, facts: Facts) -> CheckResult:
    """Compare the state of a patch series."""
    name = facts.stack.argument
    targets, directory = facts.read(read_patch_state, facts.stack, package)
    if not targets:
        raise Unavailable(f"{package} is not installed (packages.{package})")
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
        f"vimectl tms verify --stack {facts.stack.argument}, then replace what it names",
    )


@CHECKS.add("tms.identity")
def memory_saver_identity(facts: Facts) -> CheckResult:
    """Eight digits of an MD5 identify a file among the known ones; they do not authenticate it."""
    _required_backend(facts)
    try:
        builds = facts.read(verify_installed, facts.stack)
    except VimeError as e:
        raise Unavailable("the known builds cannot be read (tms.library)") from e
    known = [build for build in builds if build.loads and build.verdict == "known-good"]
    if not known:
        raise Unavailable("no library that would be loaded is known (tms.library)")
    return warn_unless(
        all(build.match != "md5-prefix" for build in known),
        facts.without_root("; ".join(f"{build.path}: known by {build.match}" for build in known)),
        "known by its whole digest",
        "get the file from its builder, and record its digest: vimectl tms record FILE --note TEXT",
    )
