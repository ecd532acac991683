"""The page of the checks of the doctor: the rule of each, its source, and the machines that show it."""

from __future__ import annotations

from collections import defaultdict

from harness.doctor.described_machine import lineage, names
from harness.doctor.shown_checks import shown_checks
from reference.markdown import code, entry, prose
from vimectl.doctor.check import Check
from vimectl.doctor.compare_nodes import NODE_CHECKS, NodeCheck
from vimectl.doctor.runner import GROUPS

MACHINES = "tests/unit/vimectl/doctor/gallery/machines"
# Nodes are compared in pairs there: alike, and with one difference.
NODE_TESTS = "tests/unit/vimectl/doctor/test_nodes.py"
HEADER = """\
# Checks of the doctor

{checks} checks, shown by {machines} machines. The [how-to of the doctor](../how-to/doctor.md) explains
the report. `vimectl doctor --list` prints the checks of a stack. `vimectl doctor --only ID` runs one
check or group. The groups are in the order in which to fix problems.

Each machine is a description in [the gallery](../../{folder}), most of them of a public report. A test
compares the whole report of each with the expected one.
"""


def render() -> str:
    """Return the text of the page."""
    shown = shown_checks()
    groups: dict[str, list[str]] = defaultdict(list)
    for _, one in sorted(shown.items()):
        bad, good = next(iter(one.first or one.bad)), next(iter(one.good))
        machines = f"Fails on {_machine(bad)}: {prose(lineage(bad)[-1].about)}. Passes on {_machine(good)}."
        groups[one.check.group].append(_entry(one.check, machines))
    for node_check in NODE_CHECKS:
        shown_in = f"Shown by [{NODE_TESTS.rpartition('/')[2]}](../../{NODE_TESTS})."
        groups[node_check.group].append(_entry(node_check, shown_in))
    order = [*GROUPS, *sorted(groups.keys() - set(GROUPS))]
    header = HEADER.format(checks=len(shown) + len(NODE_CHECKS), machines=len(names()), folder=MACHINES)
    return header + "".join(f"\n## {group}\n\n" + "\n".join(groups[group]) for group in order)


def _entry(check: Check | NodeCheck, machines: str) -> str:
    facts = [
        f"Applies: {prose(check.when)}.",
        f"Reads: {', '.join(map(code, check.reads))}.",
        f"Source: {prose(check.source)}.",
        machines,
    ]
    return entry(check.id, [prose(check.rationale), "<br>\n    ".join(facts) + "\n    {: .facts }"])


def _machine(name: str) -> str:
    return f"[{name}](../../{MACHINES}/{name}.toml)"
