"""The NPUs of the machine that is examined: their device nodes, and what npu-smi says of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from vimectl.doctor import npu_smi, visible
from vimectl.doctor.finding import Outcome, Subject, skipped
from vimectl.util import npu_devices

Examine = Callable[[Subject], Outcome]

LISTING_SECONDS = 10


def absent(subject: Subject) -> str | None:
    """Why nothing else is worth examining: the stack computes on NPUs, and this machine has none."""
    if subject.stack.stack.device != "npu" or not subject.host.is_running or nodes(subject):
        return None
    return "this machine has no NPU (device.count)"


def nodes(subject: Subject) -> list[str]:
    """Return the device nodes of the NPUs, in the order of their numbers."""
    return npu_devices.device_nodes(subject.host)


def kinds(listing: npu_smi.Listing) -> dict[str, str | None]:
    """Return the kind (``A2``, ``A3``, None for others) of each chip name in a listing."""
    return {chip.name: _kind(chip.name) for chip in listing.chips}


def listing(subject: Subject) -> npu_smi.Listing | None:
    """Return what ``npu-smi info`` says, or None when it does not answer."""
    answer = subject.host.run(["npu-smi", "info"], LISTING_SECONDS)
    return _parsed(answer.stdout) if answer.code == 0 else None


def used(subject: Subject, found: npu_smi.Listing) -> list[npu_smi.Chip]:
    """Return the chips that the job computes on: the first that it sees, one for each rank.

    Without a recipe, all that are seen. The numbers of ASCEND_RT_VISIBLE_DEVICES are places in the listing.
    """
    chips = list(found.chips)
    value = subject.host.environment.get(visible.NAME)
    if subject.recipe is not None:
        value = subject.recipe.env.get(visible.NAME, value)
    # One that is malformed is environment.visible-devices' to tell.
    if value and re.fullmatch(r"\d+(,\d+)*", value):
        chips = [chips[int(number)] for number in value.split(",") if int(number) < len(chips)]
    return chips[: subject.recipe.cluster.devices_per_node] if subject.recipe else chips


_parsed = lru_cache(maxsize=4)(npu_smi.parse)


def _kind(name: str) -> str | None:
    # 910B1 to 910B4 and their variants; A3 names a card Ascend910, or Ascend910_9382 and the like.
    if re.match(r"(Ascend)?910B[1-9]", name):
        return "A2"
    if re.fullmatch(r"Ascend910(_93\d+)?|910C|910_93\d+", name):
        return "A3"
    return None


def on_npu(examine: Examine) -> Examine:
    """The check, made only for a stack on NPUs and on a running machine."""

    def examined(subject: Subject) -> Outcome:
        if subject.stack.stack.device != "npu":
            return skipped(f"the stack computes on {subject.stack.stack.device}")
        if not subject.host.is_running:
            return skipped("a file system without /proc is no running machine")
        return examine(subject)

    return examined
