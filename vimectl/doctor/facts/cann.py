"""Read the CANN toolkit, its kernels and Python packages, and for which chip vllm-ascend was built."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.driver import read_fields
from vimectl.doctor.facts.packages import read_editable_installs
from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

# From CANN 8.5 on the directory is called cann; images keep the older name as a link to it.
_TOOLKITS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann")
_KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
# The directory of the kernels for each generation of Atlas.
KERNEL_DIRECTORIES = {"A2": "ascend910b", "A3": "ascend910_93"}
# Compiling an operator imports tbe; the bindings of the CANN runtime are acl.
PYTHON_PACKAGES = ("acl", "tbe")


@dataclass(frozen=True)
class Toolkit:
    """A CANN toolkit. Empty: its version file is absent or does not have the line.

    ``branch`` and ``driver_branches`` are what ``compatible_version`` is compared with, see ``facts.driver``.
    ``kernels`` are the directories of KERNEL_DIRECTORIES that exist, ``python_packages`` the packages of
    PYTHON_PACKAGES.
    """

    home: str
    version: str
    branch: str
    driver_branches: str
    kernels: tuple[str, ...]
    kernels_version: str
    python_packages: tuple[str, ...]


def read_toolkit(host: Host) -> Toolkit | None:
    """Read the toolkit that the environment names, otherwise that in a usual place; None if there is none."""
    given = host.environment.get("ASCEND_TOOLKIT_HOME") or host.environment.get("ASCEND_HOME_PATH")
    homes = (given,) if given else _TOOLKITS
    home = next((home for home in homes if home and host.path(home).is_dir()), None)
    if home is None:
        return None
    info = _install_info(host, home, "toolkit")
    site = host.path(f"{home}/python/site-packages")
    return Toolkit(
        home=home,
        version=info["version"],
        branch=info["innerversion"],
        driver_branches=info["compatible_version"],
        kernels=tuple(
            name for name in KERNEL_DIRECTORIES.values() if host.path(f"{home}/{_KERNELS}/{name}").is_dir()
        ),
        kernels_version=_install_info(host, home, "ops")["version"],
        python_packages=tuple(name for name in PYTHON_PACKAGES if list(site.glob(f"{name}*"))),
    )


def read_vllm_ascend_build(host: Host) -> tuple[str, str]:
    """Return vllm-ascend's ``_build_info.py``, and the generation of Atlas that it names (empty: none).

    Raises:
        Unavailable: it is not installed.
    """
    directories = [host.path(one.directory) for one in read_editable_installs(host)] + site_directories(host)
    files = [directory / "vllm_ascend" / "_build_info.py" for directory in directories]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise Unavailable("no vllm_ascend/_build_info.py is installed")
    found = re.search(r"__device_type__\s*=\s*['\"](\w+)['\"]", file.read_text(errors="replace"))
    return str(file), found[1] if found else ""


def _install_info(host: Host, home: str, package: str) -> defaultdict[str, str]:
    """Return ``ascend_<package>_install.info`` of a toolkit; it is in the directory of an architecture."""
    for folder in sorted(host.path(home).glob("*-linux")):
        if found := read_fields(host, f"{home}/{folder.name}/ascend_{package}_install.info"):
            return found
    return defaultdict(str)
