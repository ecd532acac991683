"""Read the network of the NPUs with ``hccn_tool``. Changes nothing.

The forms of the answers are those of MindCluster's fault diagnosis guide (environment check before training)
and of its device manager (ascend-common/devmanager/hccn). NPUs are numbered as their device nodes.
"""

from __future__ import annotations

import re

from vimectl.util import npu_devices
from vimectl.util.host import TIMED_OUT, UNKNOWN_PROGRAM, Host

TOOL = "/usr/local/Ascend/driver/tools/hccn_tool"
LINK, ADDRESS, TLS, HEALTH = "-link", "-ip", "-tls", "-net_health"

_TIMEOUT = 5
_MAX_LINES = 3
# A health is one of CANN driver's g_net_health_status.
_VALUES = {
    LINK: re.compile(r"^link status:\s*(\S+)", re.MULTILINE),
    ADDRESS: re.compile(r"^ipaddr:\s*(\S+)", re.MULTILINE),
    TLS: re.compile(r"\btls switch\[(\d+)\]"),
    HEALTH: re.compile(r"^net health status:\s*(\S.*?)\s*$", re.MULTILINE),
}
_NETMASK = re.compile(r"^netmask:\s*(\S+)", re.MULTILINE)


def read_tool(host: Host) -> str:
    """Return the command that runs hccn_tool here; empty if there is none."""
    for command in ("hccn_tool", TOOL):
        numbers = npu_devices.device_numbers(host)
        if numbers and host.run(_query(command, numbers[0], ADDRESS), _TIMEOUT).code != UNKNOWN_PROGRAM:
            return command
    return ""


def read_answers(host: Host, option: str) -> dict[int, str]:
    """Return what hccn_tool answers for each NPU, errors included, shortened to a few lines.

    After the first one that does not answer in time the others are not asked.
    """
    tool, found = read_tool(host), {}
    for number in npu_devices.device_numbers(host) if tool else []:
        answer = host.run(_query(tool, number, option), _TIMEOUT)
        lines = [line.rstrip() for line in (answer.stdout + answer.stderr).strip().splitlines()]
        found[number] = "\n".join(lines[:_MAX_LINES]) or f"exit status {answer.code}"
        if answer.code == TIMED_OUT:
            break
    return found


def parse(option: str, answer: str) -> str:
    """Return the value in an answer; empty if the answer has another form."""
    found = _VALUES[option].search(answer)
    return found[1] if found else ""


def parse_netmask(answer: str) -> str:
    """Return the netmask in the answer to ``-ip -g``; empty if there is none."""
    found = _NETMASK.search(answer)
    return found[1] if found else ""


def _query(tool: str, number: int, option: str) -> list[str]:
    return [tool, "-i", str(number), option, "-g"]
