"""Values of environment variables that no file of a run may have.

The launcher passes them on to the supervisor and the runtime in a variable of their environment, which only
their user and root can read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

# What replaces a private value.
SECRET = "<secret>"  # nosec B105 # what replaces one
# {"NAME": "value"} as JSON.
_VARIABLE = "VIME_SECRET_VALUES"
# A shorter value would match unrelated text.
_SHORTEST = 6


def private_values(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the private values of the run that this process belongs to, by variable; empty outside a run."""
    found: dict[str, str] = json.loads(environment.get(_VARIABLE, "{}"))
    return found


def pass_on(values: Mapping[str, str]) -> None:
    """Pass private values on to the processes that this one starts."""
    os.environ[_VARIABLE] = json.dumps(dict(values))


def hide(text: str, values: Mapping[str, str] | None = None) -> str:
    """Return a text, also one of JSON, with the private values replaced.

    Args:
        values: by variable; default: those of the run that this process belongs to.
    """
    for form in hidden_forms(values):
        text = text.replace(form, SECRET)
    return text


def hidden_forms(values: Mapping[str, str] | None = None) -> list[str]:
    """Return the texts that ``hide`` replaces, longest first: each value, as JSON too, and JSON in JSON."""
    values = private_values() if values is None else values
    plain = {value for value in values.values() if len(value) >= _SHORTEST}
    once = {json.dumps(value)[1:-1] for value in plain}
    return sorted(plain | once | {json.dumps(value)[1:-1] for value in once}, key=len, reverse=True)
