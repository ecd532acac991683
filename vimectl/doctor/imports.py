"""imports: the packages of the stack, imported in a child process that may crash or hang."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from vimectl.doctor.finding import Check, Outcome, Subject, skipped
from vimectl.stacks.detection import find
from vimectl.stacks.schema import Stack
from vimectl.util.host import CommandResult, Host

# Modules that are not called like their package. What is not here is, with underscores.
_MODULES = {
    "megatron-core": "megatron.core",
    "triton-ascend": "triton",
    "python-dateutil": "dateutil",
}
_FIRST = ("torch", "torch-npu", "triton-ascend")
# CANN's own, without which torch_npu cannot compile an operator.
_OF_CANN = ("acl", "tbe")
# All of them together. vLLM takes 9 s on two cores, and much longer on busy ones.
_SECONDS = 120
_MARK = "vimectl-import "
# It says before each what it is about to do, so that whoever reads knows what it died of. The mark tells
# its lines from those of the modules.
#
# The first argument names, with commas, what the stack leaves out although a package imports it: for these
# something stands in that can be imported and not be used, as in the runtime.
PROGRAM = f"""
import importlib, importlib.util, json, sys, time, types
class Missing(types.ModuleType):
    def __getattr__(self, name):
        raise (AttributeError if name.startswith("__") else ModuleNotFoundError)(name)
def say(**what):
    sys.__stdout__.write("\\n{_MARK}" + json.dumps(what) + "\\n")
    sys.__stdout__.flush()
for name in filter(None, sys.argv[1].split(",")):
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = Missing(name)
for name in sys.argv[2:]:
    say(starts=name)
    begin = time.monotonic()
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        say(name=name, error=(type(error).__name__ + ": " + str(error))[:500])
    else:
        took = round(time.monotonic() - begin, 1)
        say(name=name, file=str(getattr(module, "__file__", None)), seconds=took)
"""


@dataclass(frozen=True)
class Import:
    """How the import of one module went: ``error`` is None when well, ``found`` says where or of what."""

    found: str
    error: bool


def checks(stack: Stack) -> list[Check]:
    why = "a library that lacks, or one built for something else, shows only when the module is imported"
    return [
        Check(f"imports.{name}", why, partial(_imports, name), imports=True) for name in _modules(stack)
    ]  # fmt: skip


def import_in_child(
    host: Host, modules: Sequence[str], omitted: Sequence[str] = (), seconds: float = _SECONDS
) -> dict[str, Import] | None:
    """Import modules in turn in a process of their own, and say for each how that went.

    ``omitted`` are modules that may be imported by these and need not be there.
    When one of them ends the process, another goes on with those after it. ``seconds`` bounds each
    process; the module that it ran out at is to blame, and those after it are left out of the answer.
    None: the machine has no interpreter that could be started.
    """
    found: dict[str, Import] = {}
    left = list(modules)
    while left:
        answer = host.run([host.python, "-c", PROGRAM, ",".join(omitted), *left], seconds)
        if answer.code in (126, 127) and not answer.stdout:
            return None
        said, blamed = _read(answer, left)
        found |= said
        if blamed is None:
            break
        found[blamed] = Import(_ended(answer, seconds), True)
        if answer.code == 124:
            break
        left = left[left.index(blamed) + 1 :]
    return found


def _modules(stack: Stack) -> dict[str, str]:
    """Module name to the package of the stack that has it; CANN's are of no package."""
    # What others load first comes first, so that none of them is blamed for it.
    packages = sorted(stack.packages, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    modules = {_MODULES.get(name, name.replace("-", "_")): name for name in packages}
    return modules | (dict.fromkeys(_OF_CANN, "") if stack.cann else {})


def _imports(module: str, subject: Subject) -> Outcome:
    modules = _modules(subject.stack)
    installed = subject.installed
    there = [
        name for name, package in modules.items() if not package or find(subject.stack, package, installed)
    ]
    if module not in there:
        return skipped(f"{modules[module]} is not installed (packages.{modules[module]})")
    # The same question for every module: the machine is asked once.
    answers = import_in_child(subject.host, there, sorted(subject.stack.omitted))
    if answers is None:
        return skipped(f"{subject.host.python} cannot be started here")
    found = answers.get(module)
    if found is None:
        return skipped("an import before this one did not come to an end")
    fix = f"{subject.host.python} -c 'import {module}'  shows the whole error"
    return Outcome(
        "fail" if found.error else "pass", found.found, f"import {module} works", fix if found.error else ""
    )


def _read(answer: CommandResult, asked: Sequence[str]) -> tuple[dict[str, Import], str | None]:
    """What the child said, and the module it was at when it ended without a word."""
    found: dict[str, Import] = {}
    at: str | None = None
    for line in answer.stdout.splitlines():
        said = _said(line)
        if said.get("starts") in asked:
            at = said["starts"]
        elif said.get("name") in asked:
            at = None
            error = said.get("error")
            found[said["name"]] = Import(
                error or f"{said.get('file')} in {said.get('seconds')} s", error is not None
            )
    if at is None and len(found) < len(asked) and answer.code != 0:
        at = next(name for name in asked if name not in found)
    return found, at


def _said(line: str) -> dict[str, str]:
    if not line.startswith(_MARK):
        return {}
    try:
        said = json.loads(line.removeprefix(_MARK))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _ended(answer: CommandResult, seconds: float) -> str:
    if answer.code == 124:
        return f"no end within {seconds:g} s"
    # A shell that started it reports 128 + the number.
    number = -answer.code if answer.code < 0 else answer.code - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = ""
    lines = [line for line in answer.stderr.strip().splitlines() if line.strip()]
    last = f": {lines[-1][:200]}" if lines else ""
    return (
        f"the process was killed by {name}"
        if name
        else f"the process ended with exit status {answer.code}{last}"
    )
