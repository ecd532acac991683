"""Render the page of a run. Jinja escapes everything except drawings, script and style."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from vime_runtime.spec import events

from vimectl import __version__
from vimectl.runs.report import svg
from vimectl.runs.report.axis import format_number, format_seconds
from vimectl.runs.report.charts import Chart, charts, downsample
from vimectl.runs.report.report_data import JsonObject, ReportData
from vimectl.runs.run_log import finite_number
from vimectl.runs.run_statistics import REWARD_WINDOW, run_statistics
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


@dataclass(frozen=True)
class Figure:
    """A chart and its drawing."""

    chart: Chart
    drawing: svg.Drawing
    gaps: int


def render(data: ReportData) -> str:
    """Return the page as text that UTF-8 can encode."""
    script, style = _read_part("page.js"), _read_part("page.css")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            name=visible(str(_recipe(data).get("name") or data.run_dir.name)),
            state=data.state,
            state_text=_state_text(data),
            now=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            version=__version__,
            facts=list(_facts(data)),
            tiles=list(_tiles(data)),
            figures=[
                Figure(chart, svg.draw(downsample(chart), data.timeline), chart.gaps)
                for chart in charts(data.log)
            ],
            samples=data.samples,
            timeline=[event for event in data.timeline if event.kind != events.CHECKPOINT][-SHOWN_EVENTS:],
            checkpoints=sum(event.kind == events.CHECKPOINT for event in data.timeline),
            settings=list(_settings(data)),
            overrides=list(_overrides(data)),
            variables=_variables(data.environment),
            script=Markup(script),
            style=Markup(style),
            # The page may run only this script and load nothing: text of a model stays text.
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


def visible(value: Any, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return text in which characters that a browser interprets or drops are shown as symbols or codes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    rest = len(text) - max_length
    shown = "".join(map(_visible_character, text[:max_length]))
    return f"{shown}… {rest:,} more characters" if rest > 0 else shown


def visible_unless_secret(name: str, value: Any) -> str:
    """Return the value of a variable, hidden if its name says that it is a secret."""
    return HIDDEN if is_secret(name) and value not in (None, "", {}) else visible(value)


def _visible_character(character: str) -> str:
    if character in "\n\t" or character == JOINER:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩" if unicodedata.category(character) in INVISIBLE else character


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vimectl.runs.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": _number_text, "clock": _clock_text}
    return environment


def _read_part(name: str) -> str:
    return files("vimectl.runs.report").joinpath(name).read_text(encoding="utf-8")


def _number_text(value: Any) -> str:
    number = finite_number(value)
    return "no number" if number is None else format_number(number)


def _clock_text(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if 0 < seconds < 2**40 else ""


def _table(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _recipe(data: ReportData) -> JsonObject:
    """Return the ``[recipe]`` table."""
    return _table(_table(data.resolved.get("recipe")).get("recipe"))


def _state_text(data: ReportData) -> str:
    if data.state in ("failed", "interrupted"):
        return str(data.summary.get("reason") or f"{data.state} without a reason")
    return "lost: no process owns it and it has no summary" if data.state == "lost" else data.state


def _facts(data: ReportData) -> Iterator[tuple[str, str]]:
    """Yield what identifies the run."""
    yield "recipe", str(_recipe(data).get("name", "unknown"))
    yield "mode", str(data.resolved.get("mode", "unknown"))
    if started := finite_number(data.launcher.get("time")):
        yield "started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))
    if host := data.launcher.get("host"):
        yield "on", str(host)
    if data.state != "finished":
        yield "phase", f"{data.log.phase}, step {data.log.step}" if data.log.step else data.log.phase
    yield "run directory", str(data.run_dir)


def _tiles(data: ReportData) -> Iterator[tuple[str, str, str]]:
    """Yield the main figures: name, value, and a note."""
    found, steps = run_statistics(data.log), len(data.log.rows)
    wanted = data.summary.get("steps_wanted") or data.resolved.get("steps") or "?"
    yield "Steps", f"{steps} of {wanted}", ""
    started = finite_number(data.launcher.get("time"))
    if (seconds := finite_number(data.summary.get("seconds"))) is not None:
        yield "Time", duration(seconds), "from launch to end"
    elif started and data.state == "running":
        yield "Time", duration(time.time() - started), "so far"
    if (first := found["reward_first"]) is not None:
        window = min(REWARD_WINDOW, steps)
        note = f"first and last {window} steps" if window > 1 else "one step"
        yield "Reward", f"{format_number(first)} → {format_number(found['reward_last'])}", note
    if scores := data.log.scores:
        yield "Evaluation", format_number(scores[max(scores)]), f"best {format_number(max(scores.values()))}"
    if (difference := found["logprob_abs_diff_mean_worst"]) is not None:
        yield "Log-prob diff.", format_number(difference), "mean of the worst step"
    if (step := found["step_seconds_mean"]) is not None:
        sync = found["sync_seconds_mean"]
        yield (
            "Step",
            format_seconds(step),
            "" if sync is None else f"{format_seconds(sync)} of it weight sync",
        )
    if (rate := found["tokens_per_second_mean"]) is not None:
        yield "Rollout", f"{rate:,.0f} tok/s", "mean"
    if peak := max(found["peak_memory_bytes"], finite_number(data.summary.get("peak_memory_bytes")) or 0.0):
        yield "Peak memory", size(peak), "all processes together"


def _settings(data: ReportData) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the tables of the resolved recipe: name, and its keys with their values."""
    for name, table in _table(data.resolved.get("recipe")).items():
        if isinstance(table, dict) and table:
            show = visible_unless_secret if name == "env" else lambda key, value: visible(value)
            yield name, [(key, show(key, value)) for key, value in table.items()]


def _overrides(data: ReportData) -> Iterator[str]:
    """Yield the --set options."""
    given = data.resolved.get("overrides")
    for assignment in given if isinstance(given, list) else ():
        key, _, value = str(assignment).partition("=")
        text = visible_unless_secret(key, value) if key.startswith("env.") else visible(value)
        yield f"{visible(key)}={text}"


def _variables(environment: JsonObject) -> list[tuple[str, str, str, str]]:
    """Return each variable and value once: (processes, name, value, reason)."""
    roles: dict[tuple[str, str, str], list[str]] = {}
    for role, settings in environment.items():
        for name, entry in _table(settings).items():
            value, reason = _table(entry).get("value", ""), _table(entry).get("reason", "")
            key = (name, visible_unless_secret(name, value), visible(reason))
            roles.setdefault(key, []).append(role)
    return [(", ".join(names), *key) for key, names in roles.items()]
