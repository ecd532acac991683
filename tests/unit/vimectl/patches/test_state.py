from __future__ import annotations

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.patches.toy_packages import STAGES
from vimectl.patches import command
from vimectl.patches.plan import make_plan
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget


@pytest.fixture
def applied(target: PatchTarget, toy_series: Series) -> PatchTarget:
    command.change("apply", [classify(target, toy_series)])
    return target


RELEASED, FIRST = STAGES[0], STAGES[0] | STAGES[1]
PATCHED = FIRST | STAGES[2]


@pytest.mark.parametrize(
    ("changes", "state", "patches"),
    [
        ({}, "applied", ["applied", "applied"]),
        # As a reinstall leaves the files.
        ({**RELEASED, "toy/new.py": None}, "pristine", ["not-applied", "not-applied"]),
        (FIRST, "partial", ["applied", "not-applied"]),
        ({"toy/new.py": None}, "partial", ["partial", "applied"]),
        ({"toy/crlf.py": PATCHED["toy/crlf.py"] + b"\n"}, "drifted", ["applied", "drifted"]),
        ({"toy/crlf.py": None}, "drifted", ["applied", "drifted"]),
    ],
)
def test_contents_decide_the_state(
    applied: PatchTarget,
    toy_series: Series,
    changes: dict[str, bytes | None],
    state: str,
    patches: list[str],
) -> None:
    for name, content in changes.items():
        path = applied.location / name
        path.unlink() if content is None else path.write_bytes(content)
    found = classify(applied, toy_series)
    assert (found.state, [patch.state for patch in found.patches]) == (state, patches)


def test_link_to_the_patched_content_is_drift(applied: PatchTarget, toy_series: Series) -> None:
    path = applied.location / "toy/crlf.py"
    path.rename(applied.location / "kept")
    path.symlink_to(applied.location / "kept")
    assert classify(applied, toy_series).drifted == ["toy/crlf.py"]


def test_version_without_series_is_unsupported(target: PatchTarget) -> None:
    status = classify(target, None, "no series fits", "port one")
    assert status.state == "unsupported"
    with pytest.raises(CheckFailed, match="no series fits"):
        make_plan("apply", [status])
