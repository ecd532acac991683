"""Read where CANN and NNAL are, their version files, and for which chip vllm-ascend was built."""

from __future__ import annotations

from collections import defaultdict

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.driver import read_fields
from vimectl.doctor.facts.packages import read_editable_installs
from vimectl.stacks.installed import site_directories
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches
from vimectl.util.cann import HOME_VARIABLES as HOME_VARIABLES
from vimectl.util.cann import read_home as read_home
from vimectl.util.host import Host

TOOLKIT_READS = (
    *(f"${name}" for name in HOME_VARIABLES),
    "/",
    "/usr",
    "/usr/local",
    "/usr/local/Ascend*",
    "uname -m",
)

_TOOLKIT_PATTERNS = ("/usr/local/Ascend/cann*", "/usr/local/Ascend/ascend-toolkit/*")
_ATB = "/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_1"


def read_toolkits(host: Host) -> dict[str, str]:
    """Return the installed toolkits in the usual places, with their versions."""
    homes = [home for pattern in _TOOLKIT_PATTERNS for home in host.glob(pattern)]
    found = {home: read_install_info(host, home)["version"] for home in homes}
    return {home: version for home, version in found.items() if version}


def read_machine(host: Host) -> str:
    """Return the machine as uname(1) names it; empty if nothing runs here."""
    return host.run(["uname", "-m"], 5).stdout.strip() if host.is_running else ""


def read_install_info(host: Host, home: str, package: str = "toolkit") -> defaultdict[str, str]:
    """Return ``ascend_<package>_install.info`` of a toolkit, that of this machine if there are several.

    It is in the directory of an architecture.
    """
    own, name = f"{read_machine(host)}-linux", f"ascend_{package}_install.info"
    files = sorted(host.glob(f"{home}/*-linux/{name}"), key=lambda file: f"/{own}/" not in file)
    for file in files if home else []:
        if found := read_fields(host, file):
            return found
    return defaultdict(str)


def read_nnal_home(host: Host) -> str:
    """Return the directory of ATB that the environment names, otherwise that in the usual place.

    It is .../atb/latest/atb/cxx_abi_1, two levels below the version file.
    """
    given = host.environment.get("ATB_HOME_PATH", "")
    return given if given and host.is_dir(given) else _ATB


def read_nnal_version(host: Host) -> str:
    """Return the version of NNAL; empty if it has no version file."""
    directory = read_nnal_home(host).rstrip("/").rsplit("/", 2)[0]
    found = host.search(f"{directory}/version.info", r"^\s*Ascend-cann-atb\s*:\s*(\S+)")
    return found[1] if found else ""


def is_stack_version(stack: Stack, version: str) -> bool:
    """Return True if a version is that of the stack's CANN."""
    return bool(version and stack.cann) and matches(version, str(stack.cann))


def read_vllm_ascend_build(host: Host) -> tuple[str, str]:
    """Return vllm-ascend's ``_build_info.py``, and the generation of Atlas that it names (empty: none).

    Raises:
        Unavailable: it is not installed.
    """
    directories = [one.directory for one in read_editable_installs(host)] + site_directories(host)
    files = [f"{directory}/vllm_ascend/_build_info.py" for directory in directories]
    file = next(filter(host.is_file, files), None)
    if file is None:
        raise Unavailable("no vllm_ascend/_build_info.py is installed")
    found = host.search(file, r"__device_type__\s*=\s*['\"](\w+)['\"]")
    return file, found[1] if found else ""
