from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.doctor.described_machine import Machine
from vimectl.doctor.bundle import HOST, SECRET, USER, Redactor, check_bundle_path, write_bundle
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
    npu.write("/etc/os-release", 'PRETTY_NAME="openEuler"\nNAME="of lihua \x1b[31m on gpu07"\n')
    npu.write("/home/lihua/checkouts/mine/vllm/__init__.py")
    npu.write("/tmp/vime-0123abcd/x")
    npu.write("/proc/41/cmdline", "/opt/raylet\0--session_dir=/home/lihua/ray\0")
    npu.write("/proc/41/status", "PPid:\t1\nUid:\t1000\t1000\t1000\t1000\n")
    npu.commands["npu-smi info"] = CommandResult(0, "npu-smi 25.2.0 on gpu07, started by lihua\n")
    return npu


def test_bundle_has_the_facts_without_secrets_and_names(inhabited: Machine, tmp_path: Path) -> None:
    recipe = resolve("qwen3-4b-tp2", assignments=["env.VLLM_API_KEY=open-sesame-please"]).recipe
    report = run_checks(inhabited.host, load_stack("ascend-0.22"), recipe)
    text = "\n".join(f"{result.id} {result.found} {result.fix}" for result in report.results)
    assert "lihua" in text  # otherwise this test would show nothing
    file = tmp_path / "bundle.zip"
    names = write_bundle(file, report, text, Redactor(inhabited.host))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == names
        found = {name: archive.read(name).decode() for name in names}
    for name, content in found.items():
        assert not [word for word in NOT_IN_IT if word in name or word in content], name
    assert "check the files" in found["README.txt"]
    assert "cann.toolkit" in found["doctor.txt"]
    doctor = json.loads(found["doctor.json"])
    assert (doctor["stack"], len(doctor["checks"])) == ("ascend-0.22", len(report.results))
    environment = json.loads(found["environment.json"])
    assert environment["here"]["http_proxy"] == "http://<secret>@proxy.example:3128"
    train = environment["processes"]["train"]
    assert train["PYTORCH_NPU_ALLOC_CONF"]["value"] == "expandable_segments:False"
    assert "torch-npu" in json.loads(found["packages.json"])
    assert json.loads(found["recipe.json"])["recipe"]["name"] == "qwen3-4b-tp2"
    assert json.loads(found["memory_saver.json"])
    assert "$ npu-smi info\nexit status 0\nnpu-smi 25.2.0" in found["commands.txt"]
    assert "MemAvailable" in found["files/proc/meminfo"]
    assert "\x1b" not in found["files/etc/os-release"]
    assert "openEuler" in found["files/etc/os-release"]
    read = [name.removeprefix("files") for name in names if name.startswith("files/")]
    assert "/usr/local/Ascend/driver/version.info" in read
    assert set(read) <= set(report.facts.observed)
    assert not {"/etc/passwd", "/data/train.jsonl", "/proc/41/cmdline"} & set(read)


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        check_bundle_path(tmp_path / "mine.zip")
    with pytest.raises(UsageError, match="no such directory"):
        check_bundle_path(tmp_path / "none/b.zip")


PASSWD = """\
root:x:0:0:root:/root:/bin/bash
overflow:x:65534:65534:overflow:/nonexistent:/usr/sbin/nologin
HwHiAiUser:x:998:998::/home/HwHiAiUser:/bin/bash
lihua:x:1000:1000:Li Hua,,,:/home/lihua:/bin/bash
"""


@pytest.fixture
def redact(cpu: Machine) -> Redactor:
    cpu.environment.update(
        USER="wang.wei", HOME="/data/wangwei", HF_TOKEN="plain-words-only", RAY_AUTH_TOKEN="abcdef0123"
    )
    cpu.write("/etc/passwd", PASSWD)
    cpu.write("/etc/hostname", "gpu07.corp.example\n")
    cpu.commands["uname -n"] = CommandResult(0, "worker-gpu07\n")
    return Redactor(cpu.host)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("http://alice:pa55@proxy:3128", f"http://{SECRET}@proxy:3128"),
        ("git+https://x-token@git.example/a", f"git+https://{SECRET}@git.example/a"),
        ("hf_AbCdEfGhIjKlMnOpQrSt", SECRET),
        ("ghp_0123456789abcdefghij0123456789abcdef", SECRET),
        ("AKIAIOSFODNN7EXAMPLE", SECRET),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", SECRET),
        ("Authorization: Bearer abcdef.123456", f"Authorization: Bearer {SECRET}"),
        ("DB_PASS=hunter2", f"DB_PASS={SECRET}"),
        ("--password=hunter2 --port 80", f"--password={SECRET} --port 80"),
        ("api_key: 12345678", f"api_key: {SECRET}"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nrest", f"{SECRET}\nrest"),
        ("written by li.hua@corp.example", f"written by {USER}"),
        ("/home/lihua/models and /home/guest1/x", f"/home/{USER}/models and /home/{USER}/x"),
        ("/data/wangwei/run of wang.wei", f"/data/{USER}/run of {USER}"),
        ("Li Hua's process 12", f"{USER}'s process 12"),
        ("raylet on gpu07.corp.example, gpu07, worker-gpu07", f"raylet on {HOST}, {HOST}, {HOST}"),
        ("the token is plain-words-only", f"the token is {SECRET}"),
        ("abcdef0123", SECRET),
    ],
)  # fmt: skip
def test_secrets_and_names_are_replaced(redact: Redactor, text: str, kept: str) -> None:
    assert redact.text(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "vllm 0.22.1rc1.dev263+g967c5c3bc in /usr/local/lib/python3.11/site-packages",
        "sha256 908e785cb5f513f47e3e099fc2b668336f9e98a39641746869b3443194b47421",
        "3072 tokens of 40960; root's /root/.cache; http://proxy:3128; 127.0.0.1:6379",
        "pass  host: 15 pass, 2 skip",
        "HCCL_HOST_SOCKET_PORT_RANGE=60000-60050 TOKENIZERS_PARALLELISM false",
    ],
)
def test_other_text_is_kept(redact: Redactor, text: str) -> None:
    assert redact.text(text) == text


def test_values_of_secret_keys_are_replaced(redact: Redactor) -> None:
    document = {
        "env": {"WANDB_API_KEY": "x", "RAY_AUTH_TOKEN": {"value": "y", "reason": "r"}, "A": ["lihua", 1]},
        "max_prompt_tokens": 1024,
        "TOKENIZERS_PARALLELISM": {"value": "false"},
        "ok": True,
        "nothing": None,
    }
    assert redact.value(document) == {
        "env": {"WANDB_API_KEY": SECRET, "RAY_AUTH_TOKEN": SECRET, "A": [USER, 1]},
        "max_prompt_tokens": 1024,
        "TOKENIZERS_PARALLELISM": {"value": "false"},
        "ok": True,
        "nothing": None,
    }
    json.dumps(redact.value(document))
