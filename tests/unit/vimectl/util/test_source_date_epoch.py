from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from vimectl.util import source_date_epoch


def test_source_date_epoch_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    assert source_date_epoch.now().isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("given", [None, "", "soon"])
def test_unset_or_invalid_source_date_epoch_gives_the_current_time(
    given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    if given is not None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    assert abs(source_date_epoch.now() - datetime.now(timezone.utc)) < timedelta(seconds=5)
