"""Hooks and fixtures of all tests: which files share a worker, the marker `needs`, and small checkpoints."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import needs
from npu.proof.proof import named_tests

# These start runs, or check what runs on this machine and what is in /dev/shm. A run refuses to start while
# another one holds the devices, so they have the marker `whole_machine`, and one worker of pytest-xdist.
WHOLE_MACHINE = (
    "tests/e2e/",
    "tests/npu/test_whole_path.py",
    "tests/unit/vimectl/cli/test_doctor.py",
    "tests/unit/vimectl/cli/test_run.py",
    "tests/unit/vimectl/cli/test_runs.py",
    "tests/unit/vimectl/doctor/checks/test_stale_runs.py",
    "tests/unit/vimectl/runs/test_",
)
# They share a store of images, and a folder with the sources of one.
IMAGE_BUILDS = "tests/unit/vimectl/images/test_build"
ANY_WORKER = ("tests/e2e/test_doctor_fixes.py", "tests/e2e/test_prepare_real_model.py")


def pytest_configure() -> None:
    """Let the processes that tests start receive SIGINT: a shell ignores it in its background jobs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist is not everywhere
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each file of tests to one worker, and all files in WHOLE_MACHINE to the same one.

    The groups of pytest-xdist do not work with pytest 9.2: pytest-dev/pytest-xdist#1386.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith(IMAGE_BUILDS):
                return IMAGE_BUILDS
            return "whole machine" if _needs_whole_machine(file) else file

    return ByFile(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    if _needs_whole_machine(item.nodeid):
        item.add_marker("whole_machine")


def _needs_whole_machine(nodeid: str) -> bool:
    return nodeid.startswith(WHOLE_MACHINE) and not nodeid.startswith(ANY_WORKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            needs.require(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail a skipped test that docs/explanation/npu-path.md names, in CI."""
    report = yield
    return _not_skipped(report, item.nodeid.partition("[")[0])


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Fail a skipped file with such a test, in CI."""
    report = yield
    return _not_skipped(report, f"{collector.nodeid}::")


def _not_skipped(report: Any, where: str) -> Any:
    if report.skipped and os.environ.get("CI") and any(test.startswith(where) for test in named_tests()):
        report.outcome = "failed"
        report.longrepr = f"tests/npu/proof/proof.toml names it, and it was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a random model: the arguments of ``harness.tiny_model.write_model`` without the directory."""
    from harness.tiny_model import write_model

    return lambda *args, **kwargs: write_model(tmp_path_factory.mktemp("model"), *args, **kwargs)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a random checkpoint: the arguments of ``harness.tiny_model.write_checkpoint``."""
    from harness.tiny_model import write_checkpoint

    return lambda *args, **kwargs: write_checkpoint(tmp_path_factory.mktemp("checkpoint"), *args, **kwargs)
