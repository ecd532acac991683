"""Run the doctor on every node of a Ray cluster, and compare the nodes.

Ray is used by a child process: vimectl imports none of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.recipe import Recipe

from vimectl.doctor.compare_nodes import check_nodes, clock_error, comparable, differences, grouped, show
from vimectl.doctor.node_report import NodeReport, make_request, read_answer
from vimectl.doctor.runner import DoctorReport

# Seconds for the report of a node: the checks take about one, imports up to minutes on busy cores.
_SECONDS, _SECONDS_WITH_IMPORTS = 60, 300
# And for Ray: to find the cluster, to connect, to start a worker on each node, and to shut down.
_RAY_SECONDS = 120


@dataclass(frozen=True)
class ClusterReport(DoctorReport):
    """The report of this machine, followed by the checks that compare the nodes of a cluster."""

    nodes: tuple[NodeReport, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the report of this machine with those of all nodes."""
        return {**super().as_json(), "nodes": [node.as_json() for node in self.nodes]}

    def lines(self) -> Iterator[str]:
        """Yield which nodes agree, then each label and each check in which others differ."""
        answers = [node for node in self.nodes if not node.problem]
        statuses = {node.name: {check["id"]: check["status"] for check in node.checks} for node in answers}
        same = grouped(
            {
                node.name: json.dumps([comparable(node), statuses[node.name]], sort_keys=True)
                for node in answers
            }
        )
        agree = next(iter(same.values()), [])
        total = len(self.nodes)
        if len(agree) == total:
            yield f"{total} nodes agree: {', '.join(agree)}" if total > 1 else f"1 node: {agree[0]}"
        elif len(agree) > 1:
            yield f"{len(agree)} of {total} nodes agree: {', '.join(agree)}"
        else:
            yield f"no two of {total} nodes agree"
        for node in self.nodes:
            if node.problem:
                yield f"  {node.name}: {node.problem}"
        for label, values in differences(answers).items():
            yield f"  {label}: {show(values)}"
        for id in dict.fromkeys(id for found in statuses.values() for id in found):
            values = grouped({name: found.get(id, "unknown") for name, found in statuses.items()})
            if len(values) > 1:
                yield f"  check {id}: {show(values)}"
        for node in answers:
            if error := clock_error(node):
                yield f"  clock: {error} on {node.name}"


def examine_nodes(
    report: DoctorReport,
    address: str,
    recipe: Recipe | None = None,
    only: Sequence[str] = (),
    imports: bool = False,
) -> ClusterReport:
    """Add the reports of all nodes of the cluster at ``address`` ("host:port") to that of this machine.

    Raises:
        MissingRequirement: there is no such cluster, or it does not accept a driver from here.
    """
    request = make_request(report.stack, recipe, only, imports)
    seconds = _SECONDS_WITH_IMPORTS if imports else _SECONDS
    nodes = [read_answer(answer) for answer in _ask_nodes(address, request, seconds)]
    return with_nodes(report, nodes, recipe)


def with_nodes(report: DoctorReport, nodes: Sequence[NodeReport], recipe: Recipe | None) -> ClusterReport:
    """Add the reports of nodes and the checks that compare them to the report of this machine."""
    named = _named(sorted(nodes, key=lambda node: (node.address, node.node)))
    results = (*report.results, *check_nodes(report.stack, recipe, named))
    return ClusterReport(report.stack, results, report.facts, tuple(named))


def _ask_nodes(address: str, request: str, seconds: float) -> list[dict[str, Any]]:
    document = {
        "address": address,
        "module": "vimectl.doctor.node_report",
        "document": request,
        "seconds": seconds,
    }
    hint = "give host:port of its head node; `ray status` shows whether it is up"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vime_runtime.cluster.node_commands"],
            input=json.dumps(document),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + _RAY_SECONDS,
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as e:
        raise MissingRequirement(f"no answer of Ray at {address} within {e.timeout:g} s", hint) from e
    except ValueError as e:
        lines = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise MissingRequirement(
            f"the Ray cluster at {address} cannot be asked: {lines[0]}",
            f"{sys.executable} needs the Ray of the cluster; {hint}",
        ) from e
    if error := answer.get("error"):
        raise MissingRequirement(error["message"], error["hint"])
    nodes: list[dict[str, Any]] = answer["nodes"]
    return nodes


def _named(nodes: Sequence[NodeReport]) -> list[NodeReport]:
    """Give the nodes names that differ: one machine may have several raylets."""
    counts = Counter(node.address for node in nodes)
    return [
        replace(node, name=f"{node.address} ({node.node[:8]})") if counts[node.address] > 1 else node
        for node in nodes
    ]
