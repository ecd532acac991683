"""Read how packages are installed for the examined interpreter: its package manager and its machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.markers import Environment, default_environment

from vimectl.stacks.installed import distributions
from vimectl.stacks.interpreters import Interpreter
from vimectl.util.host import Host

_WHEEL_MACHINE = re.compile(r"^Tag: \S+-(?:many|musl)?linux\w*_(x86_64|aarch64)\b", re.MULTILINE)
# The interpreter's own file says for which machine it is; the header is at the start of it.
_MACHINES = {b"\x3e\x00": "x86_64", b"\xb7\x00": "aarch64"}


@dataclass(frozen=True)
class PythonEnvironment:
    """The environment of an interpreter.

    ``python`` is its program. ``uses_uv`` is true where uv made the environment, or where it is a virtual one
    without pip. ``managed`` is true for the Python of a distribution that refuses pip (PEP 668). ``machine``
    is as in ``uname -m``, empty if nothing says it. ``root`` is the root that it is in, as this process names
    it, if commands are not run there; empty for a running machine.
    """

    python: str
    uses_uv: bool = False
    managed: bool = False
    machine: str = ""
    root: str = ""


def read_python_environment(host: Host, interpreter: Interpreter) -> PythonEnvironment:
    """Return the environment of the examined interpreter."""
    python = interpreter.path if interpreter.path not in interpreter.directories else ""
    prefix = _prefix(python, interpreter)
    config = host.read(f"{prefix}/pyvenv.cfg") if prefix else None
    without_pip = "pip" not in distributions(host)
    uses_uv = config is not None and (without_pip or re.search(r"^uv *=", config, re.MULTILINE) is not None)
    machine, runs = _machine(host, python)
    minor = ".".join(interpreter.version.split(".")[:2])
    managed = config is None and host.is_file(f"{prefix or '/usr'}/lib/python{minor}/EXTERNALLY-MANAGED")
    return PythonEnvironment(python or host.python, uses_uv, managed, machine, "" if runs else str(host.root))


def read_marker_environment(host: Host, interpreter: Interpreter) -> Environment:
    """Return the environment in which the markers of requirements are evaluated, that of the interpreter."""
    version = interpreter.version
    environment = default_environment()
    machine = read_python_environment(host, interpreter).machine
    if version:
        environment["python_version"] = ".".join(version.split(".")[:2])
        environment["python_full_version"] = version if version.count(".") > 1 else f"{version}.0"
    if machine:
        environment["platform_machine"] = machine
    return environment


def read_header(host: Host, interpreter: Interpreter) -> tuple[str, str]:
    """Return the path of Python.h of an interpreter, empty if there is none, and where it would be.

    Extensions are compiled with the headers of the prefix; a virtual environment has those of its base.
    """
    minor = ".".join(interpreter.version.split(".")[:2])
    config = f"{_prefix(interpreter.path, interpreter)}/pyvenv.cfg"
    base = host.search(config, r"^home *= *(/.+)/bin *$")
    found = (re.match(r"(/.+)/lib(?:64)?/python3", path) for path in interpreter.directories)
    programs = [interpreter.path.rpartition("/bin/")[0]]
    prefixes = [*([base[1]] if base else []), *programs, *(one[1] for one in found if one)]
    paths = [f"{prefix}/include/python{minor}/Python.h" for prefix in dict.fromkeys(filter(None, prefixes))]
    return next(filter(host.is_file, paths), ""), paths[0] if paths else ""


def _prefix(python: str, interpreter: Interpreter) -> str:
    """Return the directory of an interpreter, above ``bin`` and ``lib``."""
    if python.startswith("/"):
        return python.rpartition("/")[0].rpartition("/")[0]
    places = (re.match(r"(/.+)/lib(?:64)?/python3", path) for path in interpreter.directories)
    return next((place[1] for place in places if place), "")


def _machine(host: Host, python: str) -> tuple[str, bool]:
    """Return the machine, and True if commands can be run on it."""
    answer = host.run(["uname", "-m"], 5)
    if answer.code != 126:
        return answer.stdout.strip(), True
    start = host.read_start(python, 20) if python.startswith("/") else None
    if start and start.startswith(b"\x7fELF") and start[18:20] in _MACHINES:
        return _MACHINES[start[18:20]], False
    for items in distributions(host).values():
        if found := _WHEEL_MACHINE.search(host.read(f"{items[0].metadata}/WHEEL") or ""):
            return found[1], False
    return "", False
