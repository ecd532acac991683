"""packages, patches and tms: the packages are complete and patched, and load a good library."""

from __future__ import annotations

import shlex

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.checks.requirements import hides_triton_ascend, uninstalled_with
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.facts.installs import read_editable_paths, read_missing_files
from vimectl.doctor.facts.packages import (
    DistributionMetadata,
    distribution_names,
    read_checkout,
    read_editable_installs,
    read_metadata,
)
from vimectl.doctor.install_commands import Install, Uninstall, commands, python_environment
from vimectl.doctor.stack_requirements import PACKAGE_READS, is_cuda, requirement_of
from vimectl.env.memory_saver import pinned_build
from vimectl.env.memory_saver.verify import all_good, required_backend, verify_installed
from vimectl.stacks.installed import site_directories
from vimectl.stacks.schema import Stack

CHECKS = CheckList()


@CHECKS.add(
    "packages.editable",
    source="direct_url.json (PEP 610), and the .pth files and finders that build backends write (PEP 660)",
    # The directory of a checkout can be anywhere.
    reads=("*",),
    after=("packages.interrupted",),
)
def editable(facts: Facts) -> CheckResult:
    """The directory of an editable install can be removed, or be at another commit than the release."""
    stack = facts.stack
    expected = "each in a directory that exists, at the tag of its version"
    gone = {}
    for name in stack.packages:
        item = facts.find(name)
        absent = facts.missing(facts.read(read_editable_paths, item)) if item else []
        if absent:
            gone[name] = f"{name}: {listed(absent)} does not exist"
    if gone:
        again = Install([requirement_of(facts, name) for name in gone], "replace")
        return CheckResult("fail", "; ".join(gone.values()), expected, commands(facts, again))
    found, moved = _checkouts(facts)
    text = "; ".join(found) or "none of the stack"
    return warn_unless(not moved, text, expected, commands(facts, *moved) if moved else "")


def _checkouts(facts: Facts) -> tuple[list[str], list[str]]:
    """Return the editable installs of the stack, and the commands for those at another commit."""
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
    return found, moved


@CHECKS.add(
    "packages.intact",
    source="the digests in RECORD; vllm-ascend#7359, triton-ascend#306, vllm-ascend PR 7790",
    reads=PACKAGE_READS,
    after=("packages.interrupted",),
)
def intact(facts: Facts) -> CheckResult:
    """Two distributions may have files in one directory (triton, triton-ascend): installing the second
    overwrites them, uninstalling it deletes them.
    """
    packages = facts.stack.packages
    metadata = {
        name: one
        for name, one in facts.read(read_metadata, facts.stack).items()
        if name in packages and one.modules
    }
    if not metadata:
        raise Unavailable("no package of the stack has a RECORD of its files")
    wrong = {name: text for name, one in metadata.items() if (text := _damage(facts, name, one))}
    expected = "the files that each package installed"
    if not wrong:
        read = sum(len(one.modules) for one in metadata.values())
        return CheckResult("pass", f"{read} modules as their packages installed them", expected)
    steps: list[Install | Uninstall] = []
    if "triton-ascend" in wrong and hides_triton_ascend(facts):
        cuda = [name for name in sorted(facts.installed) if is_cuda(name)]
        steps.append(Uninstall(uninstalled_with(facts, [*cuda, "triton"])))
    steps.append(Install([requirement_of(facts, name) for name in wrong], "replace"))
    return CheckResult("fail", "; ".join(wrong.values()), expected, commands(facts, *steps))


def _damage(facts: Facts, name: str, metadata: DistributionMetadata) -> str:
    """Return what is wrong with the files of a package, or nothing."""
    altered = [f"{path} {problem}" for path, problem in metadata.modules.items() if problem]
    missing = [f"{path} is missing" for path in facts.read(read_missing_files, metadata)]
    texts = list(dict.fromkeys([*reversed(altered), *missing]))
    return f"{name}: {listed(texts, 2)}" if texts else ""


def _series(stack: Stack) -> dict[str, str]:
    return {
        package: f"without the series {package} {' and '.join(entries)} the colocated job does not run"
        for package, entries in stack.patches.items()
    }


@CHECKS.add_each(
    "patches.{}",
    _series,
    expected="applied",
    source="the series of the stack, patches/README.md",
    reads=("*",),
    after=("environment.pythonpath", "packages.{}", "packages.intact", "packages.editable"),
)
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
    found = ", ".join(states)
    unfinished = [target.unfinished for target in targets if target.unfinished]
    if unfinished:
        found = facts.without_root("; ".join([found, *(one.text for one in unfinished)]))
        fix = f"vimectl patch recover {package} --stack {name}{target}"
        if not all(one.own for one in unfinished):
            fix = "; ".join(one.hint for one in unfinished if not one.own)
    return result(all(one.complete for one in targets), found, "applied", fix)


def _required_backend(facts: Facts) -> str:
    backend = required_backend(facts.stack)
    if backend is None:
        raise Unavailable("on the CPU the trainer's memory is offloaded without torch_memory_saver")
    return backend


@CHECKS.add(
    "tms.library",
    expected="a readable file of known builds",
    source="memory_saver/builds.toml, each build with its source; slime#2186, sglang#36643",
    reads=("*",),
    after=("packages.interrupted",),
)
def memory_saver_library(facts: Facts) -> CheckResult:
    """A library built for another accelerator, or one that ignores pause, corrupts the run."""
    expected = f"known-good {_required_backend(facts)} builds"
    builds = facts.read(verify_installed, facts.stack)
    if not builds:
        return CheckResult("fail", "torch_memory_saver is not installed", expected, _build_saver(facts))
    loaded = [build for build in builds if build.loads]
    found = "; ".join(f"{build.path}: {build.verdict}: {build.note}" for build in loaded or builds)
    found = facts.without_root(found)
    found = found if loaded else f"none would be loaded; {found}"
    if all_good(builds, facts.stack):
        return CheckResult("pass", found, expected)
    return CheckResult("fail", found, expected, _build_saver(facts))


def _build_saver(facts: Facts) -> str:
    """Return the command that builds the library with the CANN of this machine, and records its digest."""
    source = facts.stack.memory_saver
    if source is None:
        return f"vimectl tms verify --stack {facts.stack.argument}  # then replace what it names"
    package = f"git+{source.url}@{source.commit}#subdirectory={pinned_build.FOLDER}"
    build = commands(facts, Install([package], "replace"))
    places = (path for path in facts.read(site_directories) if path.endswith("-packages"))
    if python_environment(facts).managed or (place := next(places, None)) is None:
        return build
    note = f"built from {source.url} at {source.commit}"
    return f"{build} && " + shlex.join(["vimectl", "tms", "record", facts.root + place, "--note", note])


@CHECKS.add("tms.identity", source="memory_saver/builds.toml", reads=("*",))
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
