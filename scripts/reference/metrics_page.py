"""The page of the metrics and events of a run."""

from __future__ import annotations

import inspect
import re

from vime_runtime.spec.events import ERROR, EVENTS, ErrorFields
from vime_runtime.spec.metrics import METRICS, Metric, evaluation_score

from reference.markdown import code, entry, prose

HEADER = """\
# Metrics and events

A run directory has `metrics.jsonl`, a JSON object for each step, and `events.jsonl`, a JSON object for
each event. [Watch runs](../how-to/watch-runs.md) shows how to read them.

## metrics.jsonl { #metrics }

"""
EVENTS_HEADER = """
## events.jsonl { #events }

Each event has `time`, in seconds since the epoch, and `kind`.

"""
ERROR_HEADER = f"""
### Fields of an error {{ #error-fields }}

`{ERROR}` has an object with these fields:

"""


def render() -> str:
    """Return the text of the page."""
    sets = Metric("Score of one evaluation set.", "")
    metrics = {**METRICS, evaluation_score("NAME"): sets}
    return "".join(
        [
            HEADER,
            "\n".join(_metric(key, metrics[key]) for key in sorted(metrics, key=_order)),
            EVENTS_HEADER,
            "\n".join(_event(kind) for kind in EVENTS),
            ERROR_HEADER,
            "\n".join(entry(f"error.{name}", [prose(text)]) for name, text in _error_fields().items()),
        ]
    )


def _order(key: str) -> tuple[bool, str]:
    return "/" in key, key


def _metric(key: str, metric: Metric) -> str:
    unit = f"Unit: {metric.unit}.\n    {{: .facts }}" if metric.unit else ""
    return entry(key, [prose(metric.meaning), unit])


def _event(kind: str) -> str:
    fields = ", ".join(map(code, EVENTS[kind].fields))
    return entry(
        f"event-{kind}", [prose(EVENTS[kind].meaning), f"Fields: {fields}.\n    {{: .facts }}"], kind
    )


def _error_fields() -> dict[str, str]:
    """Return the meaning of each field of an error, from the docstring of its type."""
    _, _, listed = inspect.cleandoc(ErrorFields.__doc__ or "").partition("\n\n")
    found = {}
    for line in re.split(r"\n(?=\S)", listed):
        names, _, meaning = line.partition(": ")
        found |= dict.fromkeys(names.split(", "), meaning)
    assert found.keys() == ErrorFields.__annotations__.keys()
    return found
