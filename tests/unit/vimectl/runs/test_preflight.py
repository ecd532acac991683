from __future__ import annotations

import os
import subprocess
import sys

import pytest
from vime_runtime.spec.errors import MissingRequirement

from vimectl.doctor import Finding, Report
from vimectl.recipes.resolve import resolve
from vimectl.runs import preflight as module
from vimectl.runs.preflight import Preflight, after_endings, examine
from vimectl.util.host import Host

RECIPE = resolve("qwen3-tiny-tp2").recipe
WELL = Finding("host.cores", "host", "pass", "2 cores", "2", "", "")
PATCH = Finding(
    "patches.vllm", "patches", "fail", "pristine", "applied", "", "vimectl patch apply --stack cpu-0.32"
)
MEMORY = Finding("host.memory", "host", "fail", "1 GiB", "8 GiB", "", "end what uses the memory")


def preflight(*findings: Finding) -> Preflight:
    return Preflight(RECIPE, Report("cpu-0.32", findings), [], None)


def test_a_machine_that_passes_is_accepted() -> None:
    preflight(WELL).require()
    assert not preflight(WELL).only_lacks_patches


def test_a_failure_names_every_check_and_the_first_mend() -> None:
    with pytest.raises(MissingRequirement) as error:
        preflight(WELL, MEMORY, PATCH).require()
    assert error.value.message.splitlines() == [
        "this machine cannot run qwen3-tiny-tp2:",
        "  host.memory: 1 GiB; needed: 8 GiB",
        "  patches.vllm: pristine; needed: applied",
    ]
    assert error.value.hint.splitlines()[0] == "end what uses the memory"


def test_patches_are_offered_only_when_they_are_all_that_lacks() -> None:
    assert preflight(WELL, PATCH).only_lacks_patches
    assert not preflight(MEMORY, PATCH).only_lacks_patches


def test_this_machine_is_examined_for_the_recipes_stack() -> None:
    found = examine(resolve("qwen3-4b-tp2").recipe, Host())
    assert found.doctor.stack == "ascend-0.22"
    assert {"device.count", "tms.library"} <= {finding.id for finding in found.doctor.findings}
    assert found.tms is not None
    assert examine(RECIPE, Host()).tms is None


@pytest.mark.parametrize(("seconds", "ends"), [(2, True), (60, False)])
def test_a_run_that_is_just_ending_is_waited_for(
    seconds: float, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ENDING_SECONDS", 15.0 if ends else 1.0)
    left = subprocess.Popen(
        [sys.executable, "-c", f"import time; print(flush=True); time.sleep({seconds})"],
        env={**os.environ, "RAY_TMPDIR": "/tmp/vime-0123abcd"},
        stdout=subprocess.PIPE,
    )
    try:
        left.stdout.readline()
        while not (found := examine(RECIPE, Host())).meets_an_ending:
            assert left.poll() is None
        found = after_endings(found, Host())
        assert found.meets_an_ending is not ends
        assert (left.poll() is None) is not ends
    finally:
        left.kill()
        left.wait()
        left.stdout.close()
