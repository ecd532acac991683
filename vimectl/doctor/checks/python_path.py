"""environment: PYTHONPATH and the working directory, from which Python imports before installed packages."""

from __future__ import annotations

import os
import shlex
from pathlib import PurePosixPath

from vimectl.doctor.check import CheckList, CheckResult
from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.installs import is_found_by_hook
from vimectl.doctor.facts.packages import module_of
from vimectl.doctor.stack_requirements import PACKAGE_READS, is_imported_from, pinned_packages

CHECKS = CheckList(running=True)

_HERE = "/proc/self/cwd"


@CHECKS.add(
    "environment.pythonpath",
    source="PYTHONPATH and the working directory precede installed packages: docs.python.org, sys.path; "
    "PEP 420; ms-swift#9661, vllm-ascend#527, Megatron-Bridge#1168",
    # An entry can be any directory.
    reads=(*PACKAGE_READS, "*"),
)
def pythonpath(facts: Facts) -> CheckResult:
    """A module on PYTHONPATH or in the working directory hides the package of the stack. Of the namespace
    package megatron, only megatron/core does. A directory without __init__.py hides only an editable install
    that is found by an import hook, which Python asks last.
    """
    entries = list(filter(None, facts.environment.get("PYTHONPATH", "").split(os.pathsep)))
    place = facts.environment.get("PWD", "the working directory")
    searched = {entry: entry for entry in entries}
    if place not in entries and not facts.environment.get("PYTHONSAFEPATH"):
        searched[_HERE] = place
    hiding = {
        path.replace(entry, name, 1): name
        for entry, name in searched.items()
        for path in _hiding(facts, entry, name)
    }
    rest = os.pathsep.join(entry for entry in entries if entry not in hiding.values())
    steps = [f"export PYTHONPATH={shlex.quote(rest)}" if rest else "unset PYTHONPATH"]
    if place in hiding.values():
        moved = next(path for path, name in hiding.items() if name == place)
        steps = [f"start in another directory, or rename {moved}", *(steps if place in entries else [])]
    if hiding:
        return CheckResult("fail", ", ".join(hiding), "no package of the stack on it", "; ".join(steps))
    for entry in entries:
        if checkout := _checkout_of_empty(facts, entry):
            rest = os.pathsep.join(one for one in entries if one != entry)
            return CheckResult(
                "warn",
                f"{entry} is empty: a git submodule that is not checked out",
                "directories with packages",
                f"git -C {checkout} submodule update --init --recursive; or export PYTHONPATH={rest}",
            )
    good = f"{len(entries)} entries, none hides a package of the stack" if entries else "not set"
    return CheckResult("pass", good, "no package of the stack on it")


def _checkout_of_empty(facts: Facts, entry: str) -> str:
    """Return the directory with submodules that has an empty one of this path, or nothing."""
    if facts.missing([entry]) or facts.names(entry):
        return ""
    above = (str(path) for path in PurePosixPath(entry).parents)
    return next((path for path in above if not facts.missing([f"{path}/.gitmodules"])), "")


def _hiding(facts: Facts, entry: str, name: str) -> list[str]:
    """Return the modules in a directory that hide a package of the stack."""
    stack = facts.stack
    found = []
    for package in (*stack.packages, *pinned_packages(stack), "vime_runtime"):
        path = f"{entry}/{module_of(package).replace('.', '/')}"
        if facts.missing([path]) and facts.missing([f"{path}.py"]):
            continue
        if is_imported_from(facts, package, name):
            continue
        item = facts.find(package)
        regular = not facts.missing([f"{path}/__init__.py"]) or not facts.missing([f"{path}.py"])
        if regular or (item is not None and facts.read(is_found_by_hook, item)):
            found.append(path)
    return found
