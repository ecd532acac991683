"""device: the accelerators that the recipe computes on."""

from __future__ import annotations

import re

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stack import Stack

_NODE = re.compile(r"davinci\d+$")
_NO_NPU = "run this recipe on a machine with Ascend NPUs (in a container: mount /dev/davinci* into it)"


def checks(stack: Stack) -> list[Check]:
    return [
        Check("device.count", "every rank needs a device of its own ([cluster] devices_per_node)", _count),
        Check("device.management", "without the driver's manager nodes no NPU can be opened", _management),
        Check("device.npu-smi", "the driver's own tool must reach the devices", _npu_smi),
    ]


def absent(subject: Subject) -> str | None:
    """Why nothing else is worth examining: the stack computes on NPUs, and this machine has none."""
    if subject.stack.stack.device != "npu" or not subject.host.is_running or _nodes(subject):
        return None
    return "this machine has no NPU (device.count)"


def _count(subject: Subject) -> Outcome:
    if subject.stack.stack.device == "cpu":
        return skipped("the stack computes on the CPU")
    if subject.stack.stack.device == "cuda":
        return skipped("CUDA devices are not examined")
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    found = len(_nodes(subject))
    needed = subject.recipe.cluster.devices_per_node if subject.recipe else 1
    text = f"{found} device nodes /dev/davinci*"
    return judged(found >= needed, text if found else f"no NPU: {text}", f"{needed}", _NO_NPU)


def _management(subject: Subject) -> Outcome:
    if subject.stack.stack.device != "npu":
        return skipped(f"the stack computes on {subject.stack.stack.device}")
    wanted = ("davinci_manager", "devmm_svm", "hisi_hdc")
    lacking = [f"/dev/{name}" for name in wanted if not subject.host.path(f"/dev/{name}").exists()]
    return judged(
        not lacking,
        f"absent: {', '.join(lacking)}" if lacking else "all there",
        ", ".join(f"/dev/{name}" for name in wanted),
        "install the Ascend driver (in a container: mount these devices into it)",
    )


def _npu_smi(subject: Subject) -> Outcome:
    if subject.stack.stack.device != "npu":
        return skipped(f"the stack computes on {subject.stack.stack.device}")
    answer = subject.host.run(["npu-smi", "info"], 10)
    lines = (answer.stdout or answer.stderr).strip().splitlines()
    return judged(
        answer.code == 0,
        f"exit status {answer.code}" + (f": {lines[0]}" if lines and answer.code else ""),
        "npu-smi info answers",
        "install the Ascend driver (in a container: mount npu-smi and /usr/local/Ascend/driver into it)",
    )


def _nodes(subject: Subject) -> list[str]:
    return [path.name for path in subject.host.path("/dev").glob("davinci*") if _NODE.match(path.name)]
