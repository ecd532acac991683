"""The directories of a run, on described machines."""

from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine

LONG = f"/tmp/{'a' * 40}"


@pytest.mark.parametrize(
    ("nodes", "raylet", "status"), [(1, False, "pass"), (2, False, "fail"), (2, True, "pass")]
)
def test_long_path_matters_until_ray_is_started(npu: Machine, nodes: int, raylet: bool, status: str) -> None:
    npu.path(LONG).mkdir()
    npu.environment["TMPDIR"] = LONG
    if raylet:
        npu.write("/proc/40/cmdline", "/site/ray/core/src/ray/raylet/raylet\0")
    assert npu.check("host.socket-path", f"cluster.nodes={nodes}").status == status


@pytest.mark.parametrize(
    ("variable", "status"),
    [(None, "pass"), ("TRITON_CACHE_DIR", "fail"), ("TORCHINDUCTOR_CACHE_DIR", "fail")],
)
def test_caches_must_allow_to_load_libraries(npu: Machine, variable: str | None, status: str) -> None:
    npu.write("/proc/self/mounts", "overlay / overlay rw 0 0\ndisk /cache ext4 rw,noexec 0 0\n")
    if variable:
        npu.environment[variable] = "/cache/own"
    result = npu.check("host.exec-tmp")
    assert result.status == status
    assert status == "pass" or f"export {variable}=DIR" in result.fix


def test_compiler_may_have_its_own_directory(npu: Machine) -> None:
    npu.commands["test -w ."] = npu.commands["test -w *"]._replace(code=1)
    assert npu.check("host.working-directory").status == "fail"
    npu.environment["ASCEND_WORK_PATH"] = "/home/user/work"
    assert npu.check("host.working-directory").status == "warn"
