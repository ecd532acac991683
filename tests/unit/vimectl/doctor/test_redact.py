from __future__ import annotations

import json

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.redact import HOST, SECRET, USER, Redactor
from vimectl.util.host import CommandResult

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
        ("Authorization: Bearer abcdef.123456", f"Authorization: {SECRET} {SECRET}"),
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
