"""Find a Python interpreter for a stack.

uv finds one too, but fails at the first on the PATH that does not start, such as a shim of pyenv for a
version that is not selected.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from packaging.specifiers import SpecifierSet
from vime_runtime.spec.errors import MissingRequirement

from vimectl.util.host import Host

# Prints the version and the interpreter; inside a virtual environment, the one that it was made with.
_PRINT_VERSION = (
    "import json, platform, sys; "
    "print(json.dumps([platform.python_version(), getattr(sys, '_base_executable', sys.executable)]))"
)
_MINORS = range(20, 7, -1)


def find_interpreter(specifier: str, host: Host) -> Path:
    """Return an interpreter whose version is in ``specifier`` (``>=3.11,<3.12``).

    The running interpreter is tried first, then ``python3.N`` on the PATH.

    Raises:
        MissingRequirement: none matches; the message lists the versions found.
    """
    allowed = SpecifierSet(specifier)
    named = [f"python3.{minor}" for minor in _MINORS if allowed.contains(f"3.{minor}.99")]
    seen: list[str] = []
    for candidate in (sys.executable, *named, "python3"):
        answer = host.run([candidate, "-c", _PRINT_VERSION], 20)
        if answer.code != 0:
            continue
        try:
            version, base = json.loads(answer.stdout)
        except ValueError:
            continue  # a wrapper that prints something else
        if allowed.contains(version, prereleases=True):
            return Path(base)
        seen.append(f"{version} ({candidate})")
    wanted = named[0] if named else "a matching Python"
    raise MissingRequirement(
        f"no Python {specifier} on this machine; found {', '.join(dict.fromkeys(seen)) or 'none'}",
        f"install {wanted} and put it on the PATH, or: {sys.executable} -m uv python install '{specifier}'",
    )
