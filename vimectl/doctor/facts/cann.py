"""Read where the CANN toolkit is, its version files, and for which chip vllm-ascend was built."""

from __future__ import annotations

from collections import defaultdict

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.driver import read_fields
from vimectl.doctor.facts.packages import read_editable_installs
from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

# From CANN 8.5 on the directory is called cann; images keep the older name as a link to it.
_TOOLKITS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann")


def read_home(host: Host) -> str:
    """Return the toolkit that the environment names, otherwise that in a usual place; empty for none."""
    given = host.environment.get("ASCEND_TOOLKIT_HOME") or host.environment.get("ASCEND_HOME_PATH")
    homes = (given,) if given else _TOOLKITS
    return next((home for home in homes if host.is_dir(home)), "")


def read_install_info(host: Host, home: str, package: str = "toolkit") -> defaultdict[str, str]:
    """Return ``ascend_<package>_install.info`` of a toolkit; it is in the directory of an architecture."""
    for file in host.glob(f"{home}/*-linux/ascend_{package}_install.info"):
        if found := read_fields(host, file):
            return found
    return defaultdict(str)


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
