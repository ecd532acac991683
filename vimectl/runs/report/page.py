"""Put a run into the template. Jinja escapes all but drawings, script and style."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup

from vimectl import __version__
from vimectl.runs.report import svg
from vimectl.runs.report.axis import plain, seconds
from vimectl.runs.report.charts import charts
from vimectl.runs.report.gather import Document, Run, number
from vimectl.runs.report.series import Chart, thinned
from vimectl.runs.report.text import variable, visible
from vimectl.util.units import duration, size

# Rewards are compared over this many steps at either end, like in summary.json.
REWARD_WINDOW = 5
# More would be a log.
SHOWN_MARKS = 100


@dataclass(frozen=True)
class Figure:
    """A chart as the template takes it."""

    chart: Chart
    drawing: svg.Drawing
    holes: int


def render(run: Run) -> str:
    """The whole page as text that UTF-8 can hold."""
    script, style = _part("page.js"), _part("page.css")
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            name=visible(str(_recipe(run).get("name") or run.run_dir.name)),
            run=run,
            state=run.state,
            words=_words(run),
            now=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            version=__version__,
            facts=list(_facts(run)),
            tiles=list(_tiles(run)),
            figures=[
                Figure(chart, svg.draw(thinned(chart), run.marks), chart.holes)
                for chart in charts(run.rows, run.scores)
            ],
            happened=[mark for mark in run.marks if mark.kind != "checkpoint"][-SHOWN_MARKS:],
            checkpoints=sum(mark.kind == "checkpoint" for mark in run.marks),
            settings=list(_settings(run)),
            overrides=list(_overrides(run)),
            variables=_variables(run.environment),
            script=Markup(script),
            style=Markup(style),
            # The page may run this one script and load nothing: whatever a model wrote stays text.
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return page.encode("utf-8", errors="replace").decode("utf-8")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vimectl.runs.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": _reading, "clock": _clock}
    return environment


def _part(name: str) -> str:
    return files("vimectl.runs.report").joinpath(name).read_text(encoding="utf-8")


def _reading(value: Any) -> str:
    figure = number(value)
    return "no number" if figure is None else plain(figure)


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(moment)) if 0 < moment < 2**40 else ""


def _recipe(run: Run) -> Document:
    """The ``[recipe]`` table."""
    table = _table(run.resolved.get("recipe")).get("recipe")
    return _table(table)


def _table(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """What identifies the run."""
    yield "recipe", str(_recipe(run).get("name", "unknown"))
    yield "mode", str(run.resolved.get("mode", "unknown"))
    if started := _started(run):
        yield "started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(started))
    if host := run.launcher.get("host"):
        yield "on", str(host)
    if run.state != "finished" and run.phase:
        step = f", step {run.phase['step']}" if run.phase.get("step") else ""
        yield "phase", f"{run.phase.get('phase', 'unknown')}{step}"
    yield "run directory", str(run.run_dir)


def _tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    """The figures at a glance: name, value, and what it is about."""
    wanted = run.summary.get("steps_wanted") or run.resolved.get("steps") or "?"
    yield "Steps", f"{len(run.rows)} of {wanted}", ""
    if (gone := _seconds(run)) is not None:
        yield "Time", duration(gone), "from launch to end" if run.summary else "so far"
    rewards = _column(run, "reward/mean")
    if rewards:
        window = min(REWARD_WINDOW, len(rewards))
        first, last = fmean(rewards[:window]), fmean(rewards[-window:])
        yield (
            "Reward",
            f"{plain(first)} → {plain(last)}",
            f"first and last {window} steps" if window > 1 else "one step",
        )
    if scores := list(run.scores.values()):
        yield "Evaluation", plain(scores[-1]), f"latest; best {plain(max(scores))}"
    if differences := _column(run, "logprob/abs_diff_mean"):
        yield "Log-prob diff.", plain(max(differences)), "mean of the worst step"
    if taken := _column(run, "step/seconds"):
        syncs = _column(run, "sync/seconds")
        yield "Step", seconds(fmean(taken)), f"sync {seconds(fmean(syncs))} of it" if syncs else ""
    tokens, rollouts = _column(run, "rollout/tokens"), _column(run, "rollout/seconds")
    if tokens and sum(rollouts) > 0:
        yield "Rollout", f"{sum(tokens) / sum(rollouts):,.0f} tok/s", "mean"
    peak = max(*_column(run, "memory/peak_bytes"), number(run.summary.get("peak_memory_bytes")) or 0.0, 0.0)
    if peak:
        yield "Peak memory", size(peak), "all processes together"


def _words(run: Run) -> str:
    """The state for people."""
    if run.state in ("failed", "interrupted"):
        return str(run.summary.get("reason") or f"{run.state} without a reason")
    return "lost: nobody owns it any more, and it left no summary" if run.state == "lost" else run.state


def _seconds(run: Run) -> float | None:
    if run.summary:
        return number(run.summary.get("seconds"))
    started = _started(run)
    return time.time() - started if started and run.state == "running" else None


def _started(run: Run) -> float | None:
    return number(run.launcher.get("time"))


def _column(run: Run, key: str) -> list[float]:
    return [value for row in run.rows if (value := number(row.get(key))) is not None]


def _settings(run: Run) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The tables of the resolved recipe: name, and its keys with their values."""
    for name, table in _table(run.resolved.get("recipe")).items():
        if isinstance(table, dict) and table:
            show = variable if name == "env" else lambda key, value: visible(value)
            yield name, [(key, show(key, value)) for key, value in table.items()]


def _overrides(run: Run) -> Iterator[str]:
    """What ``--set`` changed, as it was written."""
    given = run.resolved.get("overrides")
    for assignment in given if isinstance(given, list) else ():
        key, _, value = str(assignment).partition("=")
        yield f"{visible(key)}={variable(key, value) if key.startswith('env.') else visible(value)}"


def _variables(environment: Document) -> list[tuple[str, str, str, str]]:
    """Each variable once with its value: (processes, name, value, reason)."""
    roles: dict[tuple[str, str, str], list[str]] = {}
    for role, settings in environment.items():
        for name, entry in _table(settings).items():
            found = _table(entry)
            key = (name, variable(name, found.get("value", "")), visible(found.get("reason", "")))
            roles.setdefault(key, []).append(role)
    return [(", ".join(having), *key) for key, having in roles.items()]
