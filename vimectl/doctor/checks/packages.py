"""python, packages and imports: the interpreter and the installed packages are those of the stack."""

from __future__ import annotations

from vimectl.doctor.check import CheckList, CheckResult, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.imports import read_imports
from vimectl.doctor.facts.packages import distribution_names, read_marker
from vimectl.stacks.catalog import lock_path
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches

CHECKS = CheckList()

# Packages with a module of another name than theirs with underscores.
_MODULES = {"megatron-core": "megatron.core", "triton-ascend": "triton", "python-dateutil": "dateutil"}
# The other packages load these, so they are imported first: an error is attributed to the right package.
_FIRST = ("torch", "torch-npu", "triton-ascend")
# CANN's own packages, without which torch_npu cannot compile an operator.
_CANN_MODULES = ("acl", "tbe")


@CHECKS.add("python.version")
def python_version(facts: Facts) -> CheckResult:
    """The stack's packages exist for these versions of Python."""
    stack, python = facts.stack, facts.interpreter
    if not python.version:
        raise Unavailable("there is no Python interpreter, and there are no packages")
    others = f"; not examined: {listed(python.others)}" if python.others else ""
    return result(
        stack.supports_python(python.version),
        f"{python.version}, {python.path} ({python.why}){others}",
        stack.stack.python,
        _new_environment(stack) or f"run vimectl with a Python {stack.stack.python}",
    )


def _sources(stack: Stack) -> dict[str, str]:
    return {
        name: stack.source(name) or "the stack is tested with this version only" for name in stack.packages
    }


@CHECKS.add_each("packages.{}", _sources)
def version(name: str, facts: Facts) -> CheckResult:
    """Compare the version of a package."""
    wanted, have = facts.stack.packages[name], facts.find(name)
    return result(
        have is not None and matches(have.version, wanted),
        f"{have.name} {have.version}" if have else "not installed",
        wanted,
        _install(facts.stack, name),
    )


@CHECKS.add_each("packages.{}-build", lambda stack: {name: one.note for name, one in stack.origin.items()})
def build(name: str, facts: Facts) -> CheckResult:
    """Find the marker of a package whose version does not identify its build."""
    marker = facts.stack.origin[name].marker
    path, good = facts.read(read_marker, marker)
    return result(
        good,
        f"{path}: the marker {'is there' if good else 'is missing'}",
        marker.meaning,
        _install(facts.stack, name),
    )


def _new_environment(stack: Stack) -> str:
    """Return the fix that installs the whole stack, or nothing if it has no lock."""
    has_lock = lock_path(stack.argument) is not None
    return f"vimectl env create DIR --stack {stack.argument}, then use DIR/bin/vimectl" if has_lock else ""


def _install(stack: Stack, name: str) -> str:
    distribution = stack.distributions(name)[0]
    pip = f"python -m pip install --no-deps {distribution}=={stack.packages[name]}"
    return _new_environment(stack) or pip


@CHECKS.add("packages.duplicates")
def duplicates(facts: Facts) -> CheckResult:
    """Python imports the first of two copies and hides the other."""
    names = distribution_names(facts.stack)
    twice = {
        name: items
        for name, items in facts.installed.items()
        if name in names and len({(item.version, item.location) for item in items}) > 1
    }
    found = "; ".join(
        f"{name}: " + ", ".join(f"{item.version} in {item.location}" for item in items)
        for name, items in twice.items()
    )
    fix = f"uninstall the later copies: {', '.join(twice)}"
    return warn_unless(not twice, found or "none", "each package of the stack once", fix)


def _modules(stack: Stack) -> dict[str, str]:
    """Return the package of each module, in the order of import; empty for CANN's own modules."""
    packages = sorted(stack.packages, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    modules = {_MODULES.get(name, name.replace("-", "_")): name for name in packages}
    return modules | (dict.fromkeys(_CANN_MODULES, "") if stack.cann else {})


def _import_reasons(stack: Stack) -> dict[str, str]:
    reason = "a missing library, or one built for something else, is only found when the module is imported"
    return dict.fromkeys(_modules(stack), reason)


@CHECKS.add_each("imports.{}", _import_reasons, imports=True)
def import_module(module: str, facts: Facts) -> CheckResult:
    """Import a module of the stack's packages."""
    packages = _modules(facts.stack)
    there = tuple(name for name, package in packages.items() if not package or facts.find(package))
    if module not in there:
        raise Unavailable(f"{packages[module]} is not installed (packages.{packages[module]})")
    # The arguments are the same for every module, so the modules are imported once.
    found = facts.read(read_imports, there, tuple(sorted(facts.stack.omitted))).get(module)
    if found is None:
        raise Unavailable("an import before this one did not finish")
    failed, text = found
    fix = f"{facts.python} -c 'import {module}'  shows the whole error"
    return result(not failed, text, f"import {module} works", fix)
