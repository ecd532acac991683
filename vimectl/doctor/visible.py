"""environment.visible-devices: the list that says which NPUs the processes see."""

from __future__ import annotations

import re

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.doctor.variables import NOT_RUNNING
from vimectl.util import npu_devices

NAME = "ASCEND_RT_VISIBLE_DEVICES"


def checks() -> list[Check]:
    why = (
        f"CANN reads {NAME} up to the first device that does not exist or the first other character, blanks "
        "included, and supports ascending lists only; two ranks on one device wait for each other for ever"
    )
    return [Check("environment.visible-devices", why, _visible)]


def count(subject: Subject) -> int:
    """How many NPUs the machine has device nodes for."""
    return len(npu_devices.device_nodes(subject.host))


def _visible(subject: Subject) -> Outcome:
    if subject.stack.stack.device != "npu":
        return skipped(f"the stack computes on {subject.stack.stack.device}")
    if not subject.host.is_running:
        return skipped(NOT_RUNNING)
    recipe, there = subject.recipe, count(subject)
    value = subject.host.environment.get(NAME)
    if recipe is not None:
        value = recipe.env.get(NAME, value)
    needed = recipe.cluster.devices_per_node if recipe else 1
    expected = (
        f"at least {needed} of the {there} devices, ascending" if there else f"at least {needed} devices"
    )
    if value is None:
        return judged(there >= needed, f"not set: all {there} are seen", expected, "see device.count")
    wrong = _wrong(value, there, needed)
    fitting = sorted({int(word) for word in re.findall(r"\d+", value) if not there or int(word) < there})
    mend = f"unset {NAME}"
    if len(fitting) >= needed:
        mend = f"export {NAME}={','.join(map(str, fitting))}"
    return judged(not wrong, f"{value or 'empty'}" + (f": {wrong}" if wrong else ""), expected, mend)


def _wrong(value: str, there: int, needed: int) -> str:
    if not re.fullmatch(r"\d+(,\d+)*", value):
        read = re.match(r"(\d+(,\d+)*)?", value)
        return f"not a list of numbers and commas; of it CANN reads {(read and read[0]) or 'nothing'}"
    numbers = [int(word) for word in value.split(",")]
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        return f"{', '.join(map(str, twice))} more than once"
    if there and max(numbers) >= there:
        return f"{max(numbers)} is beyond the {there} devices 0 to {there - 1}"
    if numbers != sorted(numbers):
        return "not ascending"
    return f"{len(numbers)} devices" if len(numbers) < needed else ""
