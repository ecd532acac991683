"""Find the CANN toolkit."""

from __future__ import annotations

from vimectl.util.host import Host

HOME_VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")
# From CANN 8.5 on the directory is called cann; images keep the older name as a link to it.
_TOOLKITS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann")


def read_home(host: Host) -> str:
    """Return the toolkit that the environment names, otherwise that in a usual place; empty for none."""
    given = (host.environment.get(name) for name in HOME_VARIABLES)
    return next((home for home in (*filter(None, given), *_TOOLKITS) if host.is_dir(home)), "")
