"""Render the page of a run. Jinja escapes everything except script and style."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from vime_runtime.spec import events

from vimectl import __version__
from vimectl.runs.report import drawing
from vimectl.runs.report.axis import format_number, format_seconds
from vimectl.runs.report.charts import charts, downsample
from vimectl.runs.report.timeline import read_timeline
from vimectl.runs.run_directory import RunDirectory, read_object
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


def render(run: RunDirectory) -> str:
    """Return the page as text that UTF-8 can encode."""
    parts = files("vimectl.runs.report")
    script, style = (parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vimectl.runs.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "visible_unless_secret": visible_unless_secret,
        "number": _number_text,
        "clock": _clock_text,
    }
    timeline, samples = read_timeline(run.files.events)
    launcher = read_object(run.files.launcher)
    page = environment.get_template("page.html.j2").render(
        name=visible(_recipe_name(run) or run.path.name),
        state=run.state,
        state_text=_state_text(run),
        now=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        version=__version__,
        facts=list(_facts(run, launcher)),
        tiles=list(_tiles(run, launcher)),
        figures=[(chart, drawing.draw(downsample(chart), timeline)) for chart in charts(run.log)],
        frame=drawing,
        samples=samples,
        timeline=[event for event in timeline if event.kind != events.CHECKPOINT][-SHOWN_EVENTS:],
        checkpoints=sum(event.kind == events.CHECKPOINT for event in timeline),
        settings=run.document.get("recipe", {}),
        overrides=[assignment.partition("=") for assignment in run.document.get("overrides", [])],
        variables=_variables(read_object(run.files.environment)),
        script=Markup(script),
        style=Markup(style),
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


def _number_text(value: Any) -> str:
    number = finite_number(value)
    return "no number" if number is None else format_number(number)


def _clock_text(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if 0 < seconds < 2**40 else ""


def _recipe_name(run: RunDirectory) -> str:
    return str(run.document.get("recipe", {}).get("recipe", {}).get("name", ""))


def _state_text(run: RunDirectory) -> str:
    if run.state in ("failed", "interrupted"):
        return str((run.summary or {}).get("reason") or f"{run.state} without a reason")
    return "lost: no process owns it and it has no summary" if run.state == "lost" else run.state


def _facts(run: RunDirectory, launcher: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what identifies the run."""
    yield "recipe", _recipe_name(run) or "unknown"
    yield "mode", str(run.document.get("mode", "unknown"))
    if started := finite_number(launcher.get("time")):
        yield "started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))
    if host := launcher.get("host"):
        yield "on", str(host)
    if run.state != "finished":
        yield "phase", f"{run.log.phase}, step {run.log.step}" if run.log.step else run.log.phase
    yield "run directory", str(run.path)


def _tiles(run: RunDirectory, launcher: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the main figures: name, value, and a note."""
    found, steps, summary = run_statistics(run.log), len(run.log.rows), run.summary or {}
    yield "Steps", f"{steps} of {summary.get('steps_wanted') or run.document.get('steps') or '?'}", ""
    started = finite_number(launcher.get("time"))
    if (seconds := finite_number(summary.get("seconds"))) is not None:
        yield "Time", duration(seconds), "from launch to end"
    elif started and run.state == "running":
        yield "Time", duration(time.time() - started), "so far"
    if (first := found["reward_first"]) is not None:
        window = min(REWARD_WINDOW, steps)
        note = f"first and last {window} steps" if window > 1 else "one step"
        yield "Reward", f"{format_number(first)} → {format_number(found['reward_last'])}", note
    if scores := run.log.scores:
        yield "Evaluation", format_number(scores[max(scores)]), f"best {format_number(max(scores.values()))}"
    if (difference := found["logprob_abs_diff_mean_worst"]) is not None:
        yield "Log-prob diff.", format_number(difference), "mean of the worst step"
    if (step := found["step_seconds_mean"]) is not None:
        sync = found["sync_seconds_mean"]
        note = "" if sync is None else f"{format_seconds(sync)} of it weight sync"
        yield "Step", format_seconds(step), note
    if (rate := found["tokens_per_second_mean"]) is not None:
        yield "Rollout", f"{rate:,.0f} tok/s", "mean"
    if peak := max(found["peak_memory_bytes"], finite_number(summary.get("peak_memory_bytes")) or 0.0):
        yield "Peak memory", size(peak), "all processes together"


def _variables(environment: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return each variable and value once: (processes, name, value, reason)."""
    roles: dict[tuple[str, str, str], list[str]] = {}
    for role, settings in environment.items():
        for name, entry in settings.items():
            roles.setdefault((name, entry["value"], entry["reason"]), []).append(role)
    return [(", ".join(names), *key) for key, names in roles.items()]
