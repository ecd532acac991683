"""Ask ascend-dmi of MindCluster's ToolBox which packages do not fit. Its other tests load the devices."""

from __future__ import annotations

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import UNKNOWN_PROGRAM, Host

# The status of a package that does not fit; OK and NA (unknown to this user) are the others.
INCOMPATIBLE = "INCOMPATIBLE PACKAGE"
_TOOLS = ("ascend-dmi", "/usr/local/Ascend/toolbox/latest/Ascend-DMI/bin/ascend-dmi")
_TIMEOUT = 30
_MAX_LINES = 200


def read_compatibility(host: Host) -> list[str]:
    """Return the lines of ``ascend-dmi -c``, cleaned of its table's borders.

    Raises:
        Unavailable: there is no ascend-dmi, or it fails, with what it prints.
    """
    for tool in _TOOLS:
        if "/" in tool and not host.is_file(tool):
            continue
        answer = host.run([tool, "-c"], _TIMEOUT)
        if answer.code == UNKNOWN_PROGRAM:
            continue
        text = (answer.stdout + "\n" + answer.stderr).strip()
        if answer.code != 0:
            raise Unavailable(f"ascend-dmi -c: exit status {answer.code}: {' '.join(text.split())[:300]}")
        words = [" ".join(line.strip(" |+=-\t").split()) for line in text.splitlines()[:_MAX_LINES]]
        return [line for line in words if line]
    raise Unavailable("ascend-dmi is not installed")
