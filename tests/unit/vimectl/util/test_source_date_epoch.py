from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from vimectl.util import source_date_epoch


def test_the_moment_that_was_asked_for_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    assert source_date_epoch.now().isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("given", [None, "", "soon"])
def test_otherwise_it_is_now(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if given is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    assert abs(source_date_epoch.now() - datetime.now(timezone.utc)) < timedelta(seconds=5)
