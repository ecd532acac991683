"""Skip the tests, or fail them in CI, when a release cannot be fetched, and print the table of releases."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.needs import unavailable


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except MissingRequirement as e:
        unavailable(e.message)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each release that test_releases.py applied, verified and reverted the series of."""
    rows = []
    for report in terminalreporter.getreports("passed"):
        found = dict(report.user_properties)
        if report.when == "call" and "release" in found:
            rows.append([*found["release"], f"{found['fetch']:.1f}", f"{found['patch']:.1f}"])
    if not rows:
        return
    rows.insert(0, ["stack", "releases", "patches", "fetch (s)", "apply, verify, revert (s)"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section("applied, verified and reverted")
    for row in rows:
        terminalreporter.line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))
