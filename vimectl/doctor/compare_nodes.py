"""Compare the nodes of a cluster by the reports of the doctor on each: the checks of the group ``nodes``.

A value that differs by nature, such as a node's own address, is compared by what must be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from vime_runtime.spec.recipe import Recipe

from vimectl.doctor.check import CheckResult, listed, result
from vimectl.doctor.node_report import NodeReport
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches

_ABSENT = "absent"
# etcd warns above this difference between two members (server/etcdserver/api/rafthttp/probing_status.go).
_CLOCK_SECONDS = 1.0

# The labels of a summary that a check compares: whole labels, and first words of them. What is in none of
# these, such as free memory, differs by nature or is checked on each node alone.
_VERSIONS = (
    "vimectl", "OS", "kernel", "machine", "glibc", "container", "Python", "interpreter", "driver", "firmware",
    "CANN", "NNAL", "package",
)  # fmt: skip
_PATCHES = ("patches", "memory saver")
_DEVICES = ("device nodes", "chips", "chip health")
_NETWORKS = ("network", "hccn")
_MODEL = ("model",)
_ENVIRONMENT = ("variable",)
# A run does not work if these differ; see the sources of nodes.versions.
_VITAL = ("vimectl", "Python", "CANN")
# Ray sets these for each worker.
_OF_WORKERS = ("variable RAY_JOB_ID", "variable RAY_RAYLET_PID", "variable RAY_LD_PRELOAD_ON_WORKERS")
# Interfaces of container engines, whose names and addresses are local to a machine.
_CONTAINER_INTERFACES = re.compile(r"network (docker|br-|veth|cali|cni|flannel|virbr|tunl|kube)")


# Each value of a label or status of a check, with the names of the nodes that have it.
Values = dict[str, list[str]]


def comparable(node: NodeReport) -> dict[str, str]:
    """Return the facts of a node as they are compared with those of other nodes."""
    texts = " ".join(value for label, value in node.facts.items() if label.startswith("network "))
    own = {node.address, *re.findall(r"([0-9a-f.:]+)/\d+", texts)}
    own_addresses = re.compile("|".join(rf"(?<![\w.:]){re.escape(one)}(?![\w.])" for one in sorted(own)))
    found = {label: _comparable(label, value, own_addresses) for label, value in node.facts.items()}
    return {label: value for label, value in found.items() if value}


def _comparable(label: str, value: str, own_addresses: re.Pattern[str]) -> str:
    """Return what must be the same on all nodes; empty for what need not be."""
    if label in _OF_WORKERS or _CONTAINER_INTERFACES.match(label) or value == "no address":
        return ""
    if label.startswith(("network ", "hccn ")):
        return ", ".join(map(_network, value.split(", ")))
    return own_addresses.sub("<its own address>", value) if label.startswith("variable ") else value


def _network(text: str) -> str:
    """Return the network of an address with a prefix length."""
    try:
        address = ip_interface(text)
    except ValueError:
        return text
    if "/" not in text or address.network.num_addresses <= 2:  # a pod, or a point-to-point link
        return "a single address"
    return str(address.network)


def differences(nodes: Sequence[NodeReport], topic: Sequence[str] = ()) -> dict[str, Values]:
    """Return the labels of a topic, by default of all topics, whose values differ."""
    facts = {node.name: comparable(node) for node in nodes}
    topics = topic or (*_VERSIONS, *_PATCHES, *_DEVICES, *_NETWORKS, *_MODEL, *_ENVIRONMENT)
    found = {}
    for label in dict.fromkeys(label for own in facts.values() for label in own):
        if label in topics or label.partition(" ")[0] in topics:
            values = grouped({name: own.get(label, _ABSENT) for name, own in facts.items()})
            if len(values) > 1:
                found[label] = values
    return found


def grouped(by_node: dict[str, str]) -> Values:
    """Return each value with the nodes that have it, the most frequent one first."""
    values: Values = {}
    for name, value in by_node.items():
        values.setdefault(value, []).append(name)
    return dict(sorted(values.items(), key=lambda one: -len(one[1])))


def clock_error(node: NodeReport) -> str:
    """Return how far the clock of a node is off, at least; empty if it may agree with the one here."""
    # It was read between sending the request and receiving the answer.
    least, most = node.offset
    if least > _CLOCK_SECONDS:
        return f"{least:.0f} s ahead"
    return f"{-most:.0f} s behind" if most < -_CLOCK_SECONDS else ""


def show(values: Values) -> str:
    """Return values for a message: ``0.22.1 on 10.0.0.1, 10.0.0.2; 0.22.0 on 10.0.0.3``."""
    return "; ".join(f"{value} on {listed(names)}" for value, names in values.items())


def check_nodes(stack: Stack, recipe: Recipe | None, nodes: Sequence[NodeReport]) -> list[CheckResult]:
    """Return the results of the checks that compare nodes."""
    cluster = _Cluster(stack, recipe, nodes)
    return [replace(check.function(cluster), id=check.id, rationale=check.rationale) for check in NODE_CHECKS]


@dataclass(frozen=True)
class _Cluster:
    """The input of the checks. ``nodes`` are all nodes, ``answers`` those with a report."""

    stack: Stack
    recipe: Recipe | None
    nodes: Sequence[NodeReport]

    @property
    def answers(self) -> list[NodeReport]:
        return [node for node in self.nodes if not node.problem]

    def compare(
        self,
        topic: Sequence[str],
        fix: str,
        fails: Callable[[str, Values], bool] = lambda label, values: True,
    ) -> CheckResult:
        """Compare the labels of a topic.

        Args:
            fix: what to do on the nodes that differ.
            fails: returns True if a difference is a failure, False for a warning.
        """
        found = differences(self.answers, topic)
        texts = [f"{label}: {show(values)}" for label, values in found.items()]
        where = dict.fromkeys(name for label in found for name in self._odd(label, found[label]))
        return result(
            not found,
            listed(texts, separator="; ") or f"the same on {len(self.answers)} nodes",
            "the same on all nodes",
            f"on {listed(list(where))}: {fix}",
            "fail" if any(fails(label, values) for label, values in found.items()) else "warn",
        )

    def _odd(self, label: str, values: Values) -> list[str]:
        """Return the nodes to change: those without the version of the stack, or else the minority.

        Without a majority these are all nodes.
        """
        wanted = self.stack.packages.get(label.removeprefix("package "))
        right = [value for value in values if wanted and matches(value.partition(",")[0], wanted)]
        most, second = list(map(len, values.values()))[:2]
        if not right and most > second:
            right = [next(iter(values))]
        return [name for value, names in values.items() if value not in right for name in names]


@dataclass(frozen=True)
class NodeCheck:
    """A check of the group ``nodes``, with the fields of Check that `doctor --list` shows."""

    id: str
    rationale: str
    source: str
    function: Callable[[_Cluster], CheckResult]
    group: str = "nodes"
    when: str = "with --address, or for a run on several nodes"
    reads: tuple[str, ...] = ("the report of each node",)
    after: tuple[str, ...] = ()


NODE_CHECKS: list[NodeCheck] = []


def _check(id: str, source: str) -> Callable[[Callable[[_Cluster], CheckResult]], object]:
    def register(function: Callable[[_Cluster], CheckResult]) -> object:
        NODE_CHECKS.append(NodeCheck(id, " ".join((function.__doc__ or "").split()), source, function))
        return function

    return register


@_check("nodes.answer", "a run reserves its devices on [cluster] nodes nodes (STRICT_SPREAD)")
def answer(cluster: _Cluster) -> CheckResult:
    """A run needs [cluster] nodes nodes, and each node must answer."""
    silent = [node for node in cluster.nodes if node.problem]
    wanted = cluster.recipe.cluster.nodes if cluster.recipe else 1
    if silent:
        found = listed([f"{node.name}: {node.problem}" for node in silent], separator="; ")
        return CheckResult("fail", found, f"a report of each of {len(cluster.nodes)} nodes", silent[0].hint)
    return result(
        len(cluster.nodes) >= wanted,
        f"{len(cluster.nodes)} nodes",
        f"{wanted} nodes",
        "start Ray on the others: ray start --address HOST:PORT",
    )


@_check("nodes.checks", "the checks of each node")
def own_checks(cluster: _Cluster) -> CheckResult:
    """Each node must pass the checks on its own. Their sources are those of the checks."""
    failed: dict[str, Values] = {}
    fixes = []
    for node in cluster.answers:
        for check in node.checks:
            if check["status"] == "fail":
                failed.setdefault(check["id"], {}).setdefault(check["found"], []).append(node.name)
                if not check.get("cause"):
                    fixes.append(f"on {node.name}: {check['fix']}")
    return result(
        not failed,
        listed([f"{id}: {show(values)}" for id, values in failed.items()], separator="; ")
        or f"no failure on {len(cluster.answers)} nodes",
        "no failure on any node",
        next(iter(fixes), ""),
    )


@_check(
    "nodes.versions",
    "HCCL's error EI0008 for CANN; ray/_private/utils.py, check_version_info, for Ray and Python; "
    "vllm-ascend's guide to Ray on several nodes for the packages",
)
def versions(cluster: _Cluster) -> CheckResult:
    """HCCL refuses ranks with another CANN, Ray nodes with another Ray or Python, and the packages of all
    nodes compute one model together. Only differences of other parts are a warning.
    """

    stack = cluster.stack

    def fails(label: str, values: Values) -> bool:
        return label in _VITAL or label.removeprefix("package ") in (*stack.packages, *stack.commits, "ray")

    fix = f"install the versions of the stack, which `vimectl doctor --stack {stack.argument}` there lists"
    return cluster.compare(_VERSIONS, fix, fails)


@_check("nodes.patches", "the series of the stack: trainer and engine of all nodes run the same patched code")
def patches(cluster: _Cluster) -> CheckResult:
    """All nodes run the same patched code and the same torch_memory_saver library."""
    return cluster.compare(_PATCHES, f"vimectl patch apply --stack {cluster.stack.argument}")


@_check(
    "nodes.devices",
    "vllm-ascend and CANN's kernels are built for one kind of chip; the runtime places the same number of "
    "ranks on each node (runtime/vime_runtime/spec/device_layout.py)",
)
def devices(cluster: _Cluster) -> CheckResult:
    """All nodes have chips of one kind. A node with fewer chips than the others has probably lost one."""

    def fails(label: str, values: Values) -> bool:
        kinds = {frozenset(re.findall(r"\d+ x ([^\s,]+)", value)) for value in values}
        return label == "chips" and len(kinds) > 1

    return cluster.compare(_DEVICES, "compare the chips with `npu-smi info` and `lspci -d 19e5:`", fails)


@_check(
    "nodes.clocks",
    "etcd warns above a second (rafthttp/probing_status.go). HCCL's guide to EI0002 compares the times of "
    "errors on several nodes. Nothing in a run depends on equal clocks, so this is a warning.",
)
def clocks(cluster: _Cluster) -> CheckResult:
    """The times in the logs of several nodes are only comparable if their clocks agree."""
    off = {node.name: error for node in cluster.answers if (error := clock_error(node))}
    widest = max((high - low for low, high in (node.offset for node in cluster.answers)), default=0.0)
    texts = [f"{name} is {error}" for name, error in off.items()]
    return result(
        not off,
        listed(texts) or f"no difference, measured within {widest:.1f} s",
        f"within {_CLOCK_SECONDS:g} s of this machine",
        f"on {listed(list(off))}: timedatectl set-ntp true, or chronyc makestep",
        "warn",
    )


@_check(
    "nodes.networks",
    "vllm-ascend's guide to Ray on several nodes: all nodes are in one network, and each NPU has an address "
    "(hccn_tool -i N -ip -g); HCCL's guide: TLS switches in one communicator must be the same",
)
def networks(cluster: _Cluster) -> CheckResult:
    """The nodes reach each other in common networks, and no two NPUs have the same address."""
    owners: Values = {}
    for node in cluster.answers:
        for label, value in node.facts.items():
            if re.fullmatch(r"hccn \d+", label):
                owners.setdefault(value.partition("/")[0], []).append(f"NPU {label[5:]} of {node.name}")
    twice = [
        f"{address} is that of {' and '.join(npus)}" for address, npus in owners.items() if len(npus) > 1
    ]
    if twice:
        return CheckResult(
            "fail",
            listed(twice, separator="; "),
            "different addresses",
            "give one of them another address: hccn_tool -i N -ip -s address A netmask M",
        )
    fix = "compare the networks: ip addr; cat /etc/hccn.conf"
    return cluster.compare(_NETWORKS, fix, lambda label, values: label == "hccn TLS")


@_check("nodes.model", "the runtime loads the model from its path on each node")
def model(cluster: _Cluster) -> CheckResult:
    """Each node loads the model from its own disk, and all of them must load the same one."""
    path = cluster.recipe.model.path if cluster.recipe else ""
    if not path:
        return CheckResult("skip", "no recipe is given (--recipe)")
    return cluster.compare(_MODEL, f"copy the right files into {path}, for example with rsync")


@_check("nodes.environment", "Ray: workers inherit the environment of `ray start` on their node")
def environment(cluster: _Cluster) -> CheckResult:
    """Workers get the environment in which Ray was started on their node; a recipe overrides a part of it."""
    fix = "start Ray with the same variables: ray stop, set them, ray start"
    return cluster.compare(_ENVIRONMENT, fix, lambda label, values: False)
