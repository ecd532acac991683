"""The report of one node of a cluster: request it, make it on the node, and read it.

``python -m vimectl.doctor.node_report`` is what runs on the node. The request on stdin has the stack and the
recipe as content, because their files need not exist on the node. The report is one JSON document on stdout.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__
from vimectl.doctor.machine_summary import summarize
from vimectl.doctor.runner import run_checks
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
from vimectl.stacks.standalone import standalone_text
from vimectl.util.host import Host
from vimectl.util.toml import validate

_STACK_FILE = "stack.toml"
# These check how a machine would use a cluster; a node is part of one.
NOT_ON_NODES = ("cluster.ray", "cluster.address")


@dataclass(frozen=True)
class NodeReport:
    """The report of one node. ``name`` is its address, or more if another node has the same one.

    ``problem`` says why there is no report, and ``hint`` what to do then.
    ``offset`` are the least and the greatest number of seconds by which the clock of the node may be ahead
    of the one here.
    """

    node: str
    address: str
    name: str
    problem: str = ""
    hint: str = ""
    vimectl: str = ""
    ok: bool = False
    summary: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    offset: tuple[float, float] = (0.0, 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return the entry of ``nodes`` in `doctor --json`."""
        return {
            "node": self.node,
            "address": self.address,
            "ok": self.ok,
            "problem": self.problem or None,
            "vimectl": self.vimectl or None,
            "clock_offset": self.offset,
            "summary": self.summary,
            "facts": self.facts,
            "checks": self.checks,
        }


def make_request(stack: Stack, recipe: Recipe | None, only: Sequence[str] = (), imports: bool = False) -> str:
    """Return the request for a report: the stack with its series as the contents of files, and the recipe."""
    places: dict[str, str] = {}

    def place(package: str, directory: str) -> str:
        return places.setdefault(directory, f"series/{len(places)}")

    files = {_STACK_FILE: standalone_text(stack, place).decode()}
    for directory, name in places.items():
        for file in sorted(Path(directory).rglob("*")):
            relative = file.relative_to(directory)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                # A patch may have lines in another encoding.
                files[f"{name}/{relative}"] = file.read_text(encoding="utf-8", errors="surrogateescape")
    return json.dumps(
        {
            "names": {_STACK_FILE: stack.argument} | {name: directory for directory, name in places.items()},
            "files": files,
            "recipe": recipe.model_dump(mode="json") if recipe else None,
            "only": [name for name in only if name not in NOT_ON_NODES],
            "imports": imports,
        }
    )


def report(request: dict[str, Any], host: Host) -> dict[str, Any]:
    """Examine a machine as a request asks.

    Raises:
        UsageError: this vimectl does not know a check, a key of the recipe, or what the stack extends.
    """
    recipe = validate(Recipe, request["recipe"], "the recipe") if request["recipe"] else None
    with tempfile.TemporaryDirectory(prefix="vimectl-node-") as folder:
        for name, content in request["files"].items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8", errors="surrogateescape")
        stack = load_stack(f"{folder}/{_STACK_FILE}")
        found = run_checks(host, stack, recipe, request["only"], request["imports"], NOT_ON_NODES)
        document = {
            "ok": found.ok,
            "summary": found.summary,
            "facts": summarize(found.facts),
            "checks": [result.as_json() for result in found.results],
        }
    # Fixes name the files of the user, not their copies.
    text = json.dumps(document)
    for name, original in request["names"].items():
        text = text.replace(f"{folder}/{name}", original)
    named: dict[str, Any] = json.loads(text)
    return named


def read_answer(answer: dict[str, Any]) -> NodeReport:
    """Return the report in the answer of one node, see ``vime_runtime.cluster.node_commands``."""
    empty = NodeReport(answer["node"], answer["address"], answer["address"])
    where = f"on {empty.address}"
    if problem := answer.get("problem"):
        return replace(empty, problem=problem, hint=f"look at Ray's logs and at running processes {where}")
    offset = (answer["ended"] - answer["received"], answer["began"] - answer["sent"])
    try:
        report = json.loads(answer["stdout"])
        version = report["vimectl"]
    except (ValueError, TypeError, KeyError):
        lines = answer["stderr"].strip().splitlines()[-1:] or [f"exit status {answer['code']}"]
        hint = f"install vimectl {__version__} {where}, in the Python of its Ray"
        return replace(empty, problem=f"no report: {lines[0]}", hint=hint, offset=offset)
    if error := report.get("error"):
        problem = f"vimectl {version}: {error['message']}"
        return replace(empty, vimectl=version, problem=problem, hint=error["hint"], offset=offset)
    fields = {name: report[name] for name in ("vimectl", "ok", "summary", "facts", "checks")}
    return replace(empty, offset=offset, **fields)


def main() -> None:
    """Answer the request on stdin. Every answer has the version, as another one may not understand it."""
    document: dict[str, Any] = {"vimectl": __version__}
    try:
        document |= report(json.load(sys.stdin), Host())
    except VimeError as e:
        document["error"] = {"kind": e.kind, "message": e.message, "hint": e.hint}
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
