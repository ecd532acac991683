"""Kill a change of the released vLLM and vllm-ascend and of three work trees at any operation of any step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

from harness.patches.five_targets import SECOND, FiveTargets, Paths
from harness.upstream import released

PATHS: dict[str, Paths] = {
    "vllm": ("vllm/__init__.py", "vllm/v1/core/sched/async_scheduler.py"),
    "vllm-ascend": ("vllm_ascend/__init__.py", "vllm_ascend/worker/worker.py"),
}

pytestmark = pytest.mark.needs("network")


@pytest.mark.slow
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 41])
def test_kill_at_any_operation_of_any_step(
    tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    versions = released.versions_of("ascend-0.22")
    sources = {package: released.python_sources(package, versions[package]) for package in PATHS}
    (tmp_path / "project").mkdir()
    project = FiveTargets(tmp_path / "project", sources, PATHS)
    before = project.now()
    assert project.states() == ["pristine"] * 5
    points: dict[str, Counter[str]] = {}
    with mock.patch("os.fsync", return_value=None):
        points["apply"] = project.kill_everywhere("apply", every)
        assert project.states() == ["applied"] * 5
        project.write(SECOND)
        points["apply the changed patches"] = project.kill_everywhere("apply", every)
        assert project.states() == ["applied"] * 5
        points["revert"] = project.kill_everywhere("revert", every)
    assert project.now() == before
    with capsys.disabled():
        for step, reached in points.items():
            print(f"\n{step}: killed at {sum(reached.values())} points: {dict(reached)}", end="")
