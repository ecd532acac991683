"""Render the page of a run. Jinja escapes everything except script and style."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import unicodedata
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from vime_runtime.spec import events
from vime_runtime.spec.json_files import read_object

from vimectl import __version__
from vimectl.runs.report import drawing
from vimectl.runs.report.answers import read_answers
from vimectl.runs.report.axis import format_number, format_seconds
from vimectl.runs.report.charts import charts, downsample
from vimectl.runs.report.timeline import read_timeline
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.run_log import REWARD_WINDOW, finite_number, run_statistics
from vimectl.util import console
from vimectl.util.secrets import is_secret
from vimectl.util.units import duration, size

# The page shows the last events of this many.
SHOWN_EVENTS = 100
# The longest text that the page shows in full. The rest is in the files of the run.
MAX_TEXT_LENGTH = 4000

# Unicode categories that a browser interprets or drops: control and format characters, and surrogates, which
# UTF-8 cannot encode.
INVISIBLE = ("Cc", "Cf", "Cs")
JOINER = "\u200d"  # part of many emoji
HIDDEN = "(not shown: the name says that it is a secret)"


def render(run: RunDirectory) -> str:
    """Return the page as text that UTF-8 can encode."""
    parts = files("vimectl.runs.report")
    script, style = (parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vimectl.runs.report", "."),
        autoescape=True,
        finalize=_without_controls,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": lambda seconds: _time_text("%H:%M:%S", seconds),
        "date": lambda seconds: _time_text("%Y-%m-%d %H:%M:%S UTC", seconds),
        "duration": duration,
        "number": _number_text,
        "seconds": format_seconds,
        "size": size,
        "visible": visible,
        "visible_unless_secret": visible_unless_secret,
    }
    timeline, samples = read_timeline(run.files.events)
    page = environment.get_template("page.html.j2").render(
        name=visible(run.document.get("recipe", {}).get("recipe", {}).get("name", run.path.name)),
        run=run,
        state=run.state,
        state_text=_state_text(run),
        summary=run.summary or {},
        launcher=read_object(run.files.launcher),
        statistics=run_statistics(run.log),
        reward_window=min(REWARD_WINDOW, len(run.log.rows)),
        now=time.time(),
        version=__version__,
        figures=[(chart, drawing.draw(downsample(chart), timeline)) for chart in charts(run.log)],
        frame=drawing,
        samples=samples,
        answers=read_answers(run.files.evaluations, run.log.scores),
        timeline=[event for event in timeline if event.kind != events.CHECKPOINT][-SHOWN_EVENTS:],
        checkpoints=sum(event.kind == events.CHECKPOINT for event in timeline),
        overrides=[assignment.partition("=") for assignment in run.document.get("overrides", [])],
        variables=_variables(read_object(run.files.environment)),
        script=Markup(script),  # nosec B704 # a file of this package
        style=Markup(style),  # nosec B704 # a file of this package
        # The page may run only this script and load nothing: text of a model stays text.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def visible(value: Any, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return text in which characters that a browser interprets or drops are shown as symbols or codes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    rest = len(text) - max_length
    shown = "".join(map(_visible_character, text[:max_length]))
    return f"{shown}… {rest:,} more characters" if rest > 0 else shown


def visible_unless_secret(value: Any, name: str) -> str:
    """Return the value of a variable, hidden if its name says that it is a secret."""
    return HIDDEN if is_secret(name) and value not in (None, "", {}) else visible(value)


def _visible_character(character: str) -> str:
    if character in "\n\t" or character == JOINER:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩" if unicodedata.category(character) in INVISIBLE else character


def _without_controls(value: Any) -> Any:
    """Show hidden characters also where the template does not: in titles, labels and names."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return console.visible(value) if plain else value


def _number_text(value: Any) -> str:
    number = finite_number(value)
    return "no number" if number is None else format_number(number)


def _time_text(form: str, seconds: float) -> str:
    return time.strftime(form, time.gmtime(seconds)) if 0 < seconds < 2**40 else ""


def _state_text(run: RunDirectory) -> str:
    if run.state in ("failed", "interrupted"):
        return str((run.summary or {}).get("reason") or f"{run.state} without a reason")
    return "lost: no process owns it and it has no summary" if run.state == "lost" else run.state


def _variables(environment: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return each variable and value once: (processes, name, value, reason)."""
    roles: dict[tuple[str, str, str], list[str]] = {}
    for role, settings in environment.items():
        for name, entry in settings.items():
            roles.setdefault((name, entry["value"], entry["reason"]), []).append(role)
    return [(", ".join(names), *key) for key, names in roles.items()]
