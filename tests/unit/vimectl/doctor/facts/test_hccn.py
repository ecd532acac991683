"""Answers of hccn_tool in the forms that MindCluster documents, and others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vimectl.doctor.facts import hccn
from vimectl.util.host import CommandResult, Host


@pytest.mark.parametrize(
    ("option", "answer", "value"),
    [
        (hccn.LINK, "link status: UP", "UP"),
        (hccn.LINK, "link status: DOWN\n", "DOWN"),
        (hccn.LINK, "vnic link status: UP", ""),
        (hccn.ADDRESS, "ipaddr:29.1.0.10\nnetmask:255.255.0.0", "29.1.0.10"),
        (hccn.TLS, "dev_id:0, tls switch[1](0:disable, 1:enable), tls preconfigured[1](...)", "1"),
        (hccn.HEALTH, "net health status: Receive timeout \n", "Receive timeout"),
        (hccn.HEALTH, "Command execute failed!", ""),
        (hccn.TLS, "", ""),
    ],
)
def test_value_of_an_answer(option: str, answer: str, value: str) -> None:
    assert hccn.parse(option, answer) == value


def test_netmask_of_an_answer() -> None:
    assert hccn.parse_netmask("ipaddr:29.1.0.10\nnetmask:255.255.0.0\n") == "255.255.0.0"
    assert hccn.parse_netmask("ipaddr:29.1.0.10\n") == ""


class Tool:
    """A machine with NPUs 0, 2 and 10, and a tool that answers with its own arguments."""

    def __init__(self, root: Path, programs: Sequence[str], slow: str = "none") -> None:
        (root / "dev").mkdir()
        for name in ("davinci0", "davinci2", "davinci10", "davinci_manager"):
            (root / "dev" / name).write_text("")
        self.programs, self.slow, self.asked = programs, slow, [""]
        self.host = Host(root, {}, self.run)

    def run(self, argv: Sequence[str], timeout: float) -> CommandResult:
        self.asked.append(" ".join(argv))
        if argv[0] not in self.programs:
            return CommandResult(127)
        if argv[2] == self.slow:
            return CommandResult(124, "", "no answer")
        return CommandResult(0, "".join(f"{word}\n" for word in argv[1:]))


@pytest.mark.parametrize("program", ["hccn_tool", hccn.TOOL])
def test_every_npu_is_asked_with_the_tool_that_exists(tmp_path: Path, program: str) -> None:
    tool = Tool(tmp_path, [program])
    assert hccn.read_tool(tool.host) == program
    found = hccn.read_answers(tool.host, hccn.LINK)
    assert found == {number: f"-i\n{number}\n-link" for number in (0, 2, 10)}
    assert f"{program} -i 10 -link -g" in tool.asked


def test_tool_that_hangs_is_not_asked_again(tmp_path: Path) -> None:
    found = hccn.read_answers(Tool(tmp_path, ["hccn_tool"], slow="2").host, hccn.TLS)
    assert found == {0: "-i\n0\n-tls", 2: "no answer"}


def test_machine_without_the_tool(tmp_path: Path) -> None:
    tool = Tool(tmp_path, [])
    assert hccn.read_tool(tool.host) == ""
    assert hccn.read_answers(tool.host, hccn.LINK) == {}
