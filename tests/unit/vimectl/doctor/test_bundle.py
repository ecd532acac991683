from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.doctor.described_machine import Machine
from vimectl.doctor.bundle import check_bundle_path, write_bundle
from vimectl.doctor.runner import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import CommandResult

SECRETS = {
    "HF_TOKEN": "hf_0123456789abcdefghij",
    "WANDB_API_KEY": "local-wandb-key",
    "RAY_AUTH_TOKEN": "0123456789abcdef",
    "VLLM_API_KEY": "open-sesame-please",
    "http_proxy": "http://lihua:Passw0rd@proxy.example:3128",
    "RAY_ADDRESS": "gpu07.corp.example:6379",
    "PYTHONPATH": "/home/lihua/checkouts/mine",
    "MY_COMPANY_INTERNAL": "private business",
    "USER": "lihua",
    "HOME": "/home/lihua",
}
NOT_IN_IT = [
    "hf_0123456789abcdefghij", "local-wandb-key", "0123456789abcdef", "open-sesame-please", "Passw0rd",
    "lihua", "Li Hua", "gpu07", "MY_COMPANY_INTERNAL", "private business",
]  # fmt: skip


@pytest.fixture
def inhabited(npu: Machine) -> Machine:
    """A machine with people, secrets and a name, which occur everywhere."""
    npu.environment.update(SECRETS)
    npu.write("/etc/passwd", "lihua:x:1000:1000:Li Hua:/home/lihua:/bin/bash\n")
    npu.write("/etc/hostname", "gpu07.corp.example\n")
    npu.write("/proc/version", "Linux version 5.10 (lihua@gpu07) (gcc)\n")
    npu.write("/home/lihua/checkouts/mine/vllm/__init__.py")
    npu.write("/tmp/vime-0123abcd/x")
    npu.write("/proc/41/cmdline", "/opt/raylet\0--session_dir=/home/lihua/ray\0")
    npu.write("/proc/41/status", "PPid:\t1\nUid:\t1000\t1000\t1000\t1000\n")
    npu.commands["npu-smi info"] = CommandResult(0, "npu-smi 25.2.0 on gpu07, started by lihua\n")
    return npu


def contents(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_bundle_has_no_secrets_and_names(inhabited: Machine, tmp_path: Path) -> None:
    recipe = resolve("qwen3-4b-tp2", assignments=["env.VLLM_API_KEY=open-sesame-please"]).recipe
    report = run_checks(inhabited.host, load_stack("ascend-0.22"), recipe)
    text = "\n".join(f"{result.id} {result.found} {result.fix}" for result in report.results)
    assert "lihua" in text  # otherwise this test would show nothing
    file = tmp_path / "bundle.zip"
    names = write_bundle(file, report, text, inhabited.host, recipe)
    found = contents(file)
    assert list(found) == names
    for name, content in found.items():
        assert not [word for word in NOT_IN_IT if word in name or word in content], name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_contents_of_a_bundle(inhabited: Machine, tmp_path: Path) -> None:
    recipe = resolve("qwen3-4b-tp2").recipe
    report = run_checks(inhabited.host, load_stack("ascend-0.22"), recipe)
    write_bundle(tmp_path / "bundle.zip", report, "the report", inhabited.host, recipe)
    found = contents(tmp_path / "bundle.zip")
    assert "check the files" in found["README.txt"]
    assert found["doctor.txt"] == "the report"
    doctor = json.loads(found["doctor.json"])
    assert (doctor["stack"], len(doctor["checks"])) == ("ascend-0.22", len(report.results))
    environment = json.loads(found["environment.json"])
    assert environment["here"]["http_proxy"] == "http://<secret>@proxy.example:3128"
    train = environment["processes"]["train"]
    assert train["PYTORCH_NPU_ALLOC_CONF"]["value"] == "expandable_segments:False"
    assert "torch-npu" in json.loads(found["packages.json"])
    assert json.loads(found["recipe.json"])["recipe"]["name"] == "qwen3-4b-tp2"
    assert "npu-smi 25.2.0" in found["commands/npu-smi-info.txt"]
    assert "MemAvailable" in found["files/proc/meminfo"]


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        check_bundle_path(tmp_path / "mine.zip")
    with pytest.raises(UsageError, match="no such directory"):
        check_bundle_path(tmp_path / "none/b.zip")
