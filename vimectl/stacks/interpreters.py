"""Find the Python interpreters of a machine, and choose the one whose packages are examined.

On the running machine it is the one that runs vimectl, or a given one, which is asked. In another root
nothing is run: interpreters are found where distributions, images, conda and ModelArts have them, and the
directories of their packages follow from the rules of CPython (Modules/getpath.py, Lib/site.py), Debian and
Fedora.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.stacks.catalog import load_summary, stack_names
from vimectl.stacks.installed import site_directories
from vimectl.util.dist_info import canonical_name
from vimectl.util.host import Host

_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The prefixes of interpreters that are not on PATH: images for NPUs (/usr/local/python3.11.10), conda and its
# environments, ModelArts (/home/ma-user/anaconda3/envs), and where virtual environments usually are.
_PREFIXES = (
    "/usr/local", "/usr", "/usr/local/python*", "/opt/*", "/root/*", "/home/*/*", "/workspace/*", "/app/*",
    "/*/.venv", "/*/venv", "/opt/*/*", "/root/*/envs/*", "/opt/*/envs/*", "/home/*/*/envs/*",
)  # fmt: skip
# In the order in which they are tried.
_PROGRAMS = re.compile(r"python3|python|python3\.\d+")
_LIBS = ("lib64", "lib")
_ASK = "import json, sys; print(json.dumps([sys.version.split()[0], sys.path]))"
_SECONDS = 20
_HINT = "give the bin/python of an environment: vimectl doctor --python DIR/bin/python"


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter: its program, its version, and the directories of packages in import order.

    ``path`` is the first of these directories in a root that has packages but no program for them; without
    any it is empty, like ``version``. ``packages`` counts the packages of all known stacks. ``why`` says why
    it is examined; ``others`` are the interpreters that are not.
    """

    path: str
    version: str
    directories: tuple[str, ...]
    packages: int = 0
    why: str = ""
    others: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the entry ``python`` of `doctor --json`."""
        return {"path": self.path, "version": self.version, "why": self.why, "others": self.others}


def examined_interpreter(host: Host) -> Interpreter:
    """Return the interpreter to examine.

    In another root it is the one that has most packages of the known stacks; of several, the first on PATH.

    Raises:
        UsageError: the given interpreter does not exist, or does not run.
    """
    if host.is_here:
        return _running(host)
    if host.given_python is not None:
        if (found := _given(host, host.given_python)) is None:
            raise UsageError(f"no Python interpreter at {host.given_python} in {host.root}", _HINT)
        return replace(found, why="--python")
    candidates = list(_candidates(host))
    if not candidates:
        return Interpreter("", "", ())
    default, best = candidates[0], max(candidates, key=lambda one: one.packages)
    why = f"the default one, {best.packages} packages of a stack"
    if best is not default:
        why = f"{best.packages} packages of a stack; {default.path}, the default one, has {default.packages}"
    return replace(best, why=why, others=tuple(one.path for one in candidates if one is not best))


def _running(host: Host) -> Interpreter:
    if host.given_python is None:
        directories = tuple(site_directories(host))
        return Interpreter(sys.executable, platform.python_version(), directories, why="it runs vimectl")
    program = next(_programs(host, f"{host.given_python}/bin"), host.given_python)
    answer = host.run([program, "-c", _ASK], _SECONDS)
    try:
        version, path = json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError, TypeError) as e:
        reason = answer.stderr.strip().splitlines()[-1:] or [f"exit status {answer.code}"]
        raise UsageError(f"{program} does not run as Python: {reason[0]}", _HINT) from e
    # The empty entry is the working directory.
    directories = tuple(entry for entry in path if entry and host.is_dir(entry))
    return Interpreter(program, version, directories, why="--python")


def _given(host: Host, path: str) -> Interpreter | None:
    """Return the interpreter of a program, or of the directory of an environment."""
    if not host.is_dir(path):
        return _of_program(host, path)
    return next(chain(_of_bin(host, f"{path}/bin"), _without_program(host, f"{path}/bin")), None)


def _candidates(host: Host) -> Iterator[Interpreter]:
    """Yield the interpreters of another root, each once, the default one first."""
    bins = [entry for entry in host.environment.get("PATH", _USUAL_PATH).split(":") if entry.startswith("/")]
    bins += [f"{prefix}/bin" for pattern in _PREFIXES for prefix in host.glob(pattern)]
    bins = list(dict.fromkeys(path.rstrip("/") for path in bins))
    seen: set[str] = set()
    for one in chain.from_iterable(find(host, path) for find in (_of_bin, _without_program) for path in bins):
        # One interpreter has several names.
        names = one.directories or (one.path,)
        if not seen.issuperset(names):
            yield one
            seen.update(names)


def _of_bin(host: Host, path: str) -> Iterator[Interpreter]:
    """Yield the interpreters in a directory of programs."""
    yield from (one for program in _programs(host, path) if (one := _of_program(host, program)))


def _without_program(host: Host, path: str) -> Iterator[Interpreter]:
    """Yield the interpreters of which there are packages next to a directory of programs."""
    for version in _versions(host, prefix := _parent(path)):
        directories = _existing(host, _site_packages(host, prefix, version))
        one = _with_packages(host, Interpreter("", version, directories))
        if one.packages:
            yield replace(one, path=directories[0])


def _programs(host: Host, path: str) -> Iterator[str]:
    names = [name for name in host.names(path) if _PROGRAMS.fullmatch(name)]
    for name in sorted(names, key=lambda name: (name != "python3", len(name))):
        yield f"{path}/{name}"


def _of_program(host: Host, program: str) -> Interpreter | None:
    """Return the interpreter that a program would be; None if it is none."""
    real = _resolved(host, program)
    if real is None or not host.is_file(program):
        return None
    # The configuration of a virtual environment is next to the link, everything else next to its target.
    prefix, base = _parent(_parent(program)), _parent(_parent(real))
    settings = host.read(f"{prefix}/pyvenv.cfg")
    if settings is None:
        prefix = base
    elif base == prefix and (home := re.search(r"(?m)^home\s*=\s*(/\S+)", settings)):
        base = _parent(home[1])  # the program is a copy, not a link
    named = re.search(r"python(3\.\d+)$", real)
    version = named[1] if named else next(iter(_versions(host, prefix)), "")
    if not version:
        return None
    sites = _site_packages(host, prefix, version)
    if settings is None or re.search(r"(?mi)^include-system-site-packages\s*=\s*true\s*$", settings):
        sites = [_user_site(host, version), *sites]
        sites += _site_packages(host, base, version) if base != prefix else []
    given = [entry for entry in host.environment.get("PYTHONPATH", "").split(":") if entry.startswith("/")]
    directories = _existing(host, [*given, *chain.from_iterable(_with_additions(host, one) for one in sites)])
    exact = host.search(f"{base}/include/python{version}/patchlevel.h", r'^#define PY_VERSION\s+"(\S+)"')
    return _with_packages(host, Interpreter(program, exact[1] if exact else version, directories))


def _site_packages(host: Host, prefix: str, version: str) -> list[str]:
    """Return where an interpreter looks for packages, whether or not these directories exist."""
    if prefix != "/usr":
        return [f"{prefix}/{lib}/python{version}/site-packages" for lib in _LIBS]
    # Debian: Lib/site.py with its patch distutils-install-layout.diff.
    debian = ["/usr/local/lib/python{}/dist-packages", "/usr/lib/python3/dist-packages"]
    debian = [path.format(version) for path in (*debian, "/usr/lib/python{}/dist-packages")]
    if any(map(host.is_dir, debian)):
        return debian
    # Fedora and openEuler: pip installs into /usr/local (their 00251-change-user-install-location.patch).
    bases = ("/usr/local", "/usr")
    return [f"{base}/{lib}/python{version}/site-packages" for base in bases for lib in _LIBS]


def _versions(host: Host, prefix: str) -> list[str]:
    """Return the versions of Python for which a prefix has libraries, as far as its directories tell."""
    prefixes = ("/usr", "/usr/local") if prefix == "/usr" else (prefix,)
    names = (name for one in prefixes for lib in _LIBS for name in host.names(f"{one}/{lib}"))
    return list(dict.fromkeys(found[1] for name in names if (found := re.fullmatch(r"python(3\.\d+)", name))))


def _user_site(host: Host, version: str) -> str:
    return f"{host.environment.get('HOME', '/root')}/.local/lib/python{version}/site-packages"


def _with_additions(host: Host, site: str) -> Iterator[str]:
    """Yield a directory of packages, then those that its .pth files add."""
    yield site
    for name in host.names(site):
        lines = (host.read(f"{site}/{name}") or "").splitlines() if name.endswith(".pth") else []
        for line in map(str.strip, lines):
            if line and not line.startswith(("#", "import ", "import\t")):
                yield str(PurePosixPath(site, line))


def _existing(host: Host, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the directories that exist, each once: lib64 is often a link to lib."""
    found: dict[str | None, str] = {}
    for path in dict.fromkeys(paths):
        if host.is_dir(path):
            found.setdefault(_resolved(host, path), path)
    return tuple(found.values())


def _with_packages(host: Host, one: Interpreter) -> Interpreter:
    """Count the packages of the known stacks."""
    names = (name for directory in one.directories for name in host.names(directory))
    found = {canonical_name(name.partition("-")[0]) for name in names if name.endswith(".dist-info")}
    return replace(one, packages=len(found & _stack_packages()))


@cache
def _stack_packages() -> frozenset[str]:
    stacks = [load_summary(name) for name in stack_names()]
    names = (name for stack in stacks for package in stack.packages for name in stack.distributions(package))
    return frozenset(map(canonical_name, names))


def _resolved(host: Host, path: str) -> str | None:
    """Return a path with its links followed, as the machine names it; None if that is impossible."""
    try:
        return f"/{host.path(path).relative_to(host.root)}"
    except OSError:
        return None


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
