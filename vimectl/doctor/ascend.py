"""Where the driver, CANN and NNAL are on a machine, and what their version files say."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from vimectl.util.host import Host

DRIVER = "/usr/local/Ascend/driver"
FIRMWARE = "/usr/local/Ascend/firmware"
# The second is the name from 8.5 on; images keep the first as a link to it.
_TOOLKITS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann")
_ATB = "/usr/local/Ascend/nnal/atb"
_BRANCH = re.compile(r"V(\d+)R(\d+)C(\d+)")

Branch = tuple[int, ...]


def fields(host: Host, path: str) -> dict[str, str]:
    """Return the ``name=value`` lines of a version file; empty when it is absent or has none."""
    lines = (host.read(path) or "").splitlines()
    pairs = (line.strip().partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def toolkit(host: Host) -> str | None:
    """Return the directory of the CANN toolkit: what a sourced set_env.sh says, else the usual places."""
    given = host.environment.get("ASCEND_TOOLKIT_HOME") or host.environment.get("ASCEND_HOME_PATH")
    places = (given,) if given else _TOOLKITS
    return next((place for place in places if place and host.path(place).is_dir()), None)


def toolkit_info(host: Host, home: str, package: str) -> dict[str, str]:
    """Return ``ascend_<package>_install.info`` of a toolkit, which lies in a folder of its machine."""
    for folder in sorted(host.path(home).glob("*-linux")):
        if found := fields(host, f"{home}/{folder.name}/ascend_{package}_install.info"):
            return found
    return {}


def atb_version(host: Host) -> tuple[str, str | None]:
    """Return the directory of NNAL's ATB and its version, None when it is not there or does not say."""
    home = host.environment.get("ATB_HOME_PATH")
    # ATB_HOME_PATH is .../atb/latest/atb/cxx_abi_1, two below the version file.
    place = str(PurePosixPath(home).parent.parent) if home else f"{_ATB}/latest"
    found = re.search(
        r"^\s*Ascend-cann-atb\s*:\s*(\S+)", host.read(f"{place}/version.info") or "", re.MULTILINE
    )
    return place, found[1] if found else None


def branch(text: str) -> Branch | None:
    """Return the branch that a version like ``V100R001C23SPC002B212`` belongs to, for comparison."""
    found = _BRANCH.search(text)
    return tuple(map(int, found.groups())) if found else None


def ranges(text: str) -> list[tuple[str, str]]:
    """Return the ranges of a ``compatible_version`` line: ``[a],[b,c]`` is a to a, and b to c."""
    found = []
    for inside in re.findall(r"\[([^\[\]]*)\]", text):
        first, _, last = (part.strip() for part in inside.partition(","))
        found.append((first, last or first))
    return found


def accepts(text: str, version: str) -> bool:
    """Whether a ``compatible_version`` line of branches has the branch of ``version`` in it."""
    wanted = branch(version)
    for first, last in ranges(text):
        low, high = branch(first), branch(last)
        if wanted and low and high and low <= wanted <= high:
            return True
    return False


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a dotted version: (7, 8, 0) of ``7.8.0.rc1``."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
