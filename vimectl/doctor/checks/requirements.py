"""packages: what the packages of the stack require is there, and nothing that breaks them."""

from __future__ import annotations

from packaging.utils import canonicalize_name

from vimectl.doctor.check import CheckList, CheckResult, Status, listed
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.packages import TORCH_COMPANIONS, read_metadata
from vimectl.doctor.install_commands import Install, Uninstall, commands
from vimectl.doctor.stack_requirements import (
    PACKAGE_READS,
    SAME_MODULES,
    companion_versions,
    is_cuda,
    locked,
    pinned_packages,
    pinned_source,
    repair,
    requirement_of,
    unmet,
)
from vimectl.stacks.catalog import lock_path
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches, within

CHECKS = CheckList(reads=PACKAGE_READS)

# MindSpeed's adaptor imports it, which NVIDIA's build answers with an error without cuDNN.
_BREAKS_MINDSPEED = "transformer-engine"


@CHECKS.add(
    "packages.ranges",
    why=lambda stack: "; ".join(f"{name}: {stack.source(name)}" for name in stack.ranges),
    source="[ranges] of the stack file, which names the source of each range",
    after=("packages.interrupted", "packages.duplicates"),
)
def ranges(facts: Facts) -> CheckResult:
    """Compare the packages for which the stack accepts a range of versions."""
    stack = facts.stack
    have = {name: facts.find(name) for name in stack.ranges}
    outside = [
        name for name, item in have.items() if not item or not within(item.version, stack.ranges[name])
    ]
    found = ", ".join(f"{name} {item.version if item else 'not installed'}" for name, item in have.items())
    expected = ", ".join(f"{name} {wanted}" for name, wanted in stack.ranges.items())
    if not outside:
        return CheckResult("pass", found, expected)
    # With an exact version in its metadata a package is released for nothing else.
    exact = any(have[name] is None or stack.ranges[name].startswith("==") for name in outside)
    return CheckResult("fail" if exact else "warn", found, expected, repair(facts))


@CHECKS.add(
    "packages.partners",
    source="Requires-Dist of the wheels of torchvision and torchaudio; vllm-ascend#477",
    after=("packages.torch", "packages.unwanted", "packages.interrupted"),
)
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
        and not within(torch[0].version, str(requirement.specifier))
    }
    expected = f"built for torch {torch[0].version}"
    texts = {name: f"{name} {one.distribution.version}" for name, one in companions.items()}
    if not wrong:
        return CheckResult("pass", ", ".join(texts.values()) or "neither is installed", expected)
    found = "; ".join(f"{texts[name]} is for torch{one.specifier}" for name, one in wrong.items())
    unwanted = [name for name in wrong if name in facts.stack.unwanted]
    return CheckResult(
        "fail", found, expected, commands(facts, Uninstall(unwanted)) if unwanted else repair(facts)
    )


@CHECKS.add(
    "packages.torchvision",
    why=lambda stack: (
        "MindSpeed's adaptor imports torchvision if transformers can be imported, and vllm-ascend requires it"
        if "torchvision" in companion_versions(stack)
        else ""
    ),
    source="requirements.txt:18 of vllm-ascend 0.22.1rc1; mindspeed/patch_utils.py:123 of MindSpeed fc63de5",
    device="npu",
    after=("packages.interrupted",),
)
def torchvision(facts: Facts) -> CheckResult:
    """Find torchvision where the stack needs it."""
    wanted = companion_versions(facts.stack)["torchvision"]
    have = facts.installed.get("torchvision")
    if have is None and facts.find("transformers") is None:
        raise Unavailable("transformers is not installed (packages.ranges)")
    if have is not None:
        return CheckResult("pass", f"torchvision {have[0].version}", wanted)
    return CheckResult(
        "fail", "not installed", wanted, commands(facts, Install([requirement_of(facts, "torchvision")]))
    )


@CHECKS.add(
    "packages.requires",
    source="Requires-Dist of the installed packages, for this interpreter; vllm-ascend#1875, #2210",
    after=("packages.interrupted",),
)
def requirements(facts: Facts) -> CheckResult:
    """A package of the stack does not work without its requirements, each in a version that it accepts."""
    missing = unmet(facts)
    conflicts = [str(one) for one in missing if one.installed]
    absent = [str(one) for one in missing if not one.installed]
    expected = "everything that the packages of the stack require"
    if not missing:
        return CheckResult("pass", "all there", expected)
    texts = [listed(conflicts)] if conflicts else []
    texts += [f"absent: {listed(absent)}"] if absent else []
    found = "; ".join(texts)
    # Some packages are required for features that a run does not use.
    return CheckResult("fail" if conflicts else "warn", found, expected, repair(facts))


@CHECKS.add(
    "packages.unwanted",
    why=lambda stack: "; ".join(stack.unwanted.values()),
    source="[unwanted] of the stack file, each with what was measured",
)
def unwanted_packages(facts: Facts) -> CheckResult:
    """Find the packages that the stack must not have."""
    unwanted = facts.stack.unwanted
    found = [name for name in unwanted if canonicalize_name(name) in facts.installed]
    expected = "without " + ", ".join(unwanted)
    if not found:
        return CheckResult("pass", "none of them", expected)
    return CheckResult("fail", ", ".join(found), expected, commands(facts, Uninstall(found)))


@CHECKS.add("packages.same-files", source="sgl-project/sglang#21717; vllm-project/vllm#17249")
def same_files(facts: Facts) -> CheckResult:
    """Of two distributions with the same files, the one that was installed last is imported, and uninstalling
    one leaves the other without files.
    """
    wrong: dict[str, list[str]] = {}
    for package, names in facts.stack.provided_by.items():
        have = {name for name in (package, *names) if name in facts.installed}
        if len(have) > 1 or not have <= set(names):
            wrong[requirement_of(facts, package)] = sorted(have)
    of_the_stack = bool(wrong)
    for names in (sorted(one) for one in SAME_MODULES if "triton" not in one):  # see packages.cuda
        twice = [name for name in names if name in facts.installed]
        if len(twice) > 1:
            # The headless one is enough: a run opens no window.
            kept = next((name for name in twice if name.endswith("-headless")), twice[0])
            wrong[f"{kept}=={facts.installed[kept][0].version}"] = twice
    there = [name for names in wrong.values() for name in names]
    expected = "one distribution for each module"
    if not wrong:
        return CheckResult("pass", "none", expected)
    bad: Status = "fail" if of_the_stack else "warn"
    fix = commands(facts, Uninstall(there), Install(list(wrong)))
    return CheckResult(
        bad, ", ".join(f"{name} {facts.installed[name][0].version}" for name in there), expected, fix
    )


@CHECKS.add(
    "packages.cuda",
    source=(
        "vllm-ascend 0.22.1rc1, Dockerfile:80-82; vllm-ascend#7359, #7587; "
        "ms-swift#6968, requirements_basic.py:36 of MindSpeed fc63de5"
    ),
    after=("packages.intact", "packages.torch"),
)
def cuda(facts: Facts) -> CheckResult:
    """Packages for CUDA overwrite files of the stack's packages (triton) or are imported instead of them."""
    found = [name for name in sorted(facts.installed) if is_cuda(name)]
    found += ["triton"] if hides_triton_ascend(facts) else []
    torch = facts.find("torch")
    for_cuda = torch and not facts.missing([f"{torch.location}/torch/lib/libtorch_cuda.so"])
    shown = [*found, f"torch {torch.version} for CUDA"] if torch and for_cuda else found
    expected = "no package for CUDA"
    if not shown:
        return CheckResult("pass", "none", expected)
    steps: list[Install | Uninstall] = []
    if found:
        steps.append(Uninstall(uninstalled_with(facts, found)))
    if torch and for_cuda:
        steps.append(Install([requirement_of(facts, "torch")], "replace"))
    if "triton" in found:
        steps.append(Install([requirement_of(facts, "triton-ascend")], "replace"))
    bad: Status = "fail" if _breaks_mindspeed(facts, found) else "warn"
    return CheckResult(bad, listed(shown), expected, commands(facts, *steps))


def _breaks_mindspeed(facts: Facts, found: list[str]) -> bool:
    if _BREAKS_MINDSPEED not in found or "mindspeed" not in pinned_packages(facts.stack):
        return False
    return pinned_source(facts, "mindspeed") is not None


def hides_triton_ascend(facts: Facts) -> bool:
    """Return True if triton is installed in addition to triton-ascend, which has files of the same names."""
    if "triton-ascend" not in facts.stack.packages or "triton" not in facts.installed:
        return False
    metadata = facts.read(read_metadata, facts.stack).get("triton-ascend")
    return metadata is not None and metadata.requirement("triton") is None


def uninstalled_with(facts: Facts, names: list[str]) -> list[str]:
    """Return what to uninstall for these: triton takes the files of triton-ascend along."""
    return [*names, "triton-ascend"] if "triton" in names else names


def _why_locked(stack: Stack) -> str:
    """Return why the whole lock counts, see ``locked``."""
    tested = stack.stack.device == "cpu" and lock_path(stack.argument)
    return "the stack is tested with its whole lock" if tested else ""


@CHECKS.add(
    "packages.lock",
    why=_why_locked,
    source="the lock of the stack",
    after=("packages.*",),
)
def locked_packages(facts: Facts) -> CheckResult:
    """Compare all packages of the lock."""
    pinned = locked(facts)
    # A project may want other versions than the lock; each has its own check.
    own = facts.stack.packages
    pins = {name: pin for name, pin in pinned.items() if matches(pin.version, own.get(name, pin.version))}
    versions = {name: items[0].version for name, items in facts.installed.items()}
    other = [pin for pin in pins.values() if not matches(versions.get(pin.name, ""), pin.version)]
    shown = [f"{pin.name} {versions.get(pin.name, 'absent')} (not {pin.version})" for pin in other]
    found = f"{len(pins) - len(other)} of {len(pins)} as locked"
    if not other:
        return CheckResult("pass", found, f"all {len(pins)}")
    install = Install([f"{pin.name}=={pin.version}" for pin in other])
    fix = commands(facts, install) if any(facts.find(name) for name in own) else repair(facts)
    return CheckResult("warn", f"{found}; {listed(shown, 5)}", f"all {len(pins)}", fix)
