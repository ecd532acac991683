"""python and packages: the interpreter and the versions of the packages are those of the stack."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, listed, result
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.installs import read_interrupted_installs, read_interrupted_removals
from vimectl.doctor.facts.packages import distribution_names, read_marker
from vimectl.doctor.facts.pins import PinnedSource
from vimectl.doctor.install_commands import Install, Uninstall, commands
from vimectl.doctor.stack_requirements import (
    PACKAGE_READS,
    differing,
    is_pinned_version,
    new_environment,
    pin_of,
    pinned_packages,
    pinned_source,
    repair,
    requirement_of,
)
from vimectl.stacks.installed import InstalledDistribution
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches

CHECKS = CheckList(reads=PACKAGE_READS)

_DIGITS = 12


@CHECKS.add(
    "python.version",
    source="requires-python of the stack's wheels, in the stack file",
)
def python_version(facts: Facts) -> CheckResult:
    """The stack's packages exist for these versions of Python."""
    stack, python = facts.stack, facts.interpreter
    if not python.version:
        raise Unavailable("there is no Python interpreter, and there are no packages")
    others = f"; not examined: {listed(python.others)}" if python.others else ""
    minor = stack.image.python if stack.image else "3.11"
    directory = f"~/{stack.name}"
    return result(
        stack.supports_python(python.version),
        f"{python.version}, {python.path} ({python.why}){others}",
        stack.stack.python,
        new_environment(stack)
        or f"uv venv --seed --python {minor} {directory}  # then install the stack there",
    )


def _sources(stack: Stack) -> dict[str, str]:
    return {
        name: stack.source(name) or "the stack is tested with this version only" for name in stack.packages
    }


@CHECKS.add_each(
    "packages.{}",
    _sources,
    source="[packages] of the stack file, which names the source of each version",
    after=("packages.interrupted", "packages.same-files", "packages.duplicates"),
)
def version(name: str, facts: Facts) -> CheckResult:
    """Compare the version of a package."""
    wanted, have = facts.stack.packages[name], facts.find(name)
    found = f"{have.name} {have.version}" if have else "not installed"
    if have is not None and matches(have.version, wanted):
        return CheckResult("pass", found, wanted)
    return CheckResult("fail", found, wanted, repair(facts))


def _pins(stack: Stack) -> dict[str, str]:
    return {name: stack.source(pin_of(stack, name)) for name in pinned_packages(stack)}


@CHECKS.add_each(
    "packages.{}",
    _pins,
    source="[commits] of the stack file, which names the source of each commit",
    after=("environment.pythonpath", "packages.interrupted", "packages.duplicates"),
)
def pinned(name: str, facts: Facts) -> CheckResult:
    """Compare the version and the commit of a package that is installed from its source."""
    pin, source = facts.stack.commits[pin_of(facts.stack, name)], pinned_source(facts, name)
    expected = f"{pin.version} at {pin.commit[:_DIGITS]}"
    found = _described(name, source)
    if not is_pinned_version(facts, name, source):
        return CheckResult("fail", found, expected, _to_pin(facts, name, source))
    assert source is not None
    if source.commit and source.commit != pin.commit and not source.descends:
        return CheckResult("warn", found, expected, _to_pin(facts, name, source))
    return CheckResult("pass", found, expected)


def _described(name: str, source: PinnedSource | None) -> str:
    if source is None:
        return "not installed"
    where = f" in {source.directory} ({source.how})" if source.directory else ""
    if not source.present:
        return f"no {name}{where}"
    commit = f" at {source.commit[:_DIGITS]}" if source.commit else ", its commit is not recorded"
    more = ", which has the pinned one among its ancestors" if source.descends else ""
    return f"{name} {source.version or 'of unknown version'}{commit}{more}{where}"


def _to_pin(facts: Facts, name: str, source: PinnedSource | None) -> str:
    """Return the command that installs the pinned commit, or moves the checkout to it."""
    pin = facts.stack.commits[pin_of(facts.stack, name)]
    if source is None or not source.directory:
        wrong = differing(facts)
        if name in wrong:
            return repair(facts)
        return commands(facts, Install([requirement_of(facts, name)], "replace"))
    directory = source.directory
    checkout = f"git -C {directory} checkout {pin.commit}"
    if not source.present and not source.commit:
        return commands(facts, f"git clone {pin.url} {directory}", checkout)
    again = [Install(editable=directory)] if source.how == "editable" else []
    return commands(facts, f"git -C {directory} fetch origin", checkout, *again)


@CHECKS.add_each(
    "packages.{}-build",
    lambda stack: {name: stack.origin[name].note for name in stack.markers},
    source="[origin] of the stack file: the digests of the package's files",
    after=("packages.interrupted",),
)
def build(name: str, facts: Facts) -> CheckResult:
    """Find the marker of a package whose version does not identify its build."""
    marker = facts.stack.markers[name]
    path, good = facts.read(read_marker, marker)
    if good:
        return CheckResult("pass", f"{path}: the marker is there", marker.meaning)
    fix = commands(facts, Install([requirement_of(facts, name)], "replace"))
    return CheckResult("fail", f"{path}: the marker is missing", marker.meaning, fix)


def _names(facts: Facts) -> set[str]:
    """Return the canonical names of all distributions of the stack."""
    stack = facts.stack
    return distribution_names(stack, *stack.packages, *stack.ranges) | set(pinned_packages(stack))


def _package(facts: Facts, distribution: str) -> str:
    """Return the package of the stack that a distribution provides, or nothing."""
    stack = facts.stack
    for name in (*stack.packages, *stack.ranges, *pinned_packages(stack)):
        if distribution == name or distribution in distribution_names(stack, name):
            return name
    return ""


def _requirement(facts: Facts, item: InstalledDistribution) -> str:
    """Return the requirement that installs a distribution again: as the stack has it, else as it is."""
    package = _package(facts, item.name)
    return requirement_of(facts, package) if package else f"{item.name}=={item.version}"


@CHECKS.add(
    "packages.duplicates",
    source="importlib.metadata takes the first that it finds: PathDistribution of CPython, and sys.path",
)
def duplicates(facts: Facts) -> CheckResult:
    """Python imports the first of two copies and hides the other. Of two in one directory, files of both are
    imported.
    """
    names = _names(facts)
    twice = {
        name: items
        for name, items in facts.installed.items()
        if name in names and len({(item.version, item.location) for item in items}) > 1
    }
    expected = "each package of the stack once"
    if not twice:
        return CheckResult("pass", "none", expected)
    found = "; ".join(
        f"{name}: " + ", ".join(f"{item.version} in {item.location}" for item in items)
        for name, items in twice.items()
    )
    # Each call removes one copy of each.
    most = max(map(len, twice.values()))
    removals = [Uninstall([name for name, items in twice.items() if len(items) > n]) for n in range(most)]
    again = Install([_requirement(facts, items[0]) for items in twice.values()])
    mixed = any(len({item.location for item in items}) < len(items) for items in twice.values())
    bad = mixed or any(_package(facts, name) in differing(facts) for name in twice)
    return CheckResult("fail" if bad else "warn", found, expected, commands(facts, *removals, again))


@CHECKS.add(
    "packages.interrupted",
    source="pip/_internal: operations/install/wheel.py, which writes RECORD last, and utils/temp_dir.py",
)
def interrupted(facts: Facts) -> CheckResult:
    """An installation that was interrupted leaves a package without some of its files."""
    names, installed = _names(facts), facts.installed
    broken = {name: text for name, text in facts.read(read_interrupted_installs).items() if name in names}
    hidden = facts.read(read_interrupted_removals)
    removed = {
        name: f"{hidden[name[1:]]} is left of a removal"
        for name in sorted(names)
        if name not in installed and name[1:] in hidden
    }
    found = broken | removed
    expected = "complete metadata of each package of the stack"
    if not found:
        return CheckResult("pass", "none", expected)
    items = [
        installed[name][0] if name in installed else InstalledDistribution(name, "", "", "") for name in found
    ]
    # It cannot be uninstalled: pip finds what to remove in RECORD.
    fix = commands(facts, Install([_requirement(facts, item) for item in items], "ignore"))
    return CheckResult("fail", "; ".join(found.values()), expected, fix)
