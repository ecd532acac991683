from __future__ import annotations

import json

import pytest
from vime_runtime.spec.private_values import SECRET as HIDDEN

from vimectl.util.secrets import is_secret, redact, redact_arguments, redact_document

SECRET = [
    "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "password", "OPENAI_API_KEY", "apiKey", "env.DB_PASS", "pwd",
    "DB_PWD", "--api-key", "WANDB_API_KEY",
]  # fmt: skip
OTHER = [
    "PATH", "VLLM_PLUGINS", "max_prompt_tokens", "rollout.max_prompt_tokens", "tokens_per_micro_batch",
    "env.TOKENIZERS_PARALLELISM", "PASSENGERS", "BYPASS", "PWD", "env.OLDPWD", "author",
]  # fmt: skip
# Texts with the secret hunter22, and what has to stay of them.
TEXTS = [
    ('{"token": "hunter22", "a": 1}', '"a": 1'),
    (json.dumps({"body": json.dumps({"api_key": "hunter22", "n": "kept"})}), "kept"),
    (r'{"password": "a\"hunter22", "n": "kept"}', "kept"),
    ("GET /v1?token=hunter22&page=2", "&page=2"),
    ("https://host/file?X-Amz-Signature=hunter22&x=2", "https://host/file?"),
    ("serve --api-key hunter22 --port 8000", "--port 8000"),
    ("serve --api-key=hunter22 --port 8000", "--port 8000"),
    ("serve --api-key 'hun ter hunter22' --port 8000", "--port 8000"),
    ("jdbc:host;user=me;pwd=hunter22;timeout=3", "timeout=3"),
    ("https://me:hunter22@host/path", "@host/path"),
    ("https://me:p@ss-hunter22@host/path", "@host/path"),
    ("rsync me:hunter22@host:/data", "@host:/data"),
    ("Authorization: Bearer hunter22", "Authorization: Bearer"),
    ("'authorization': 'Basic hunter22',", "'authorization'"),
    ("Set-Cookie: a=hunter22; Path=/\nHost: b", "Host: b"),
    ('{"Cookie": "a=hunter22; b=hunter22", "n": "kept"}', '"n": "kept"'),
    ("X-Api-Key: hunter22", "X-Api-Key: "),
    ("Ocp-Apim-Subscription-Key: hunter22", "Ocp-Apim-Subscription-Key: "),
    ("https://host/file?access_token=hunter22#x", "https://host/file?"),
    ('rcon_password "hunter22"; map x', "; map x"),
    ("rcon_password hunter22", "rcon_password "),
    ("passphrase: hunter22", "passphrase: "),
    ("AWS_SECRET_ACCESS_KEY=hunter22 HOME=/root", "HOME=/root"),
    ("export WANDB_API_KEY='hunter22'; make", "; make"),
    ("token api_key=hunter22 x", " x"),
    ("max_tokens=password=hunter22", "max_tokens="),
]


@pytest.mark.parametrize("name", SECRET + OTHER)
def test_secrets_are_recognized_by_their_name(name: str) -> None:
    assert is_secret(name) == (name in SECRET)


@pytest.mark.parametrize(("text", "kept"), TEXTS)
def test_secrets_in_a_text_are_replaced_and_nothing_else(text: str, kept: str) -> None:
    shown = redact(text)
    assert "hunter22" not in shown
    assert HIDDEN in shown
    assert kept in shown
    assert redact(shown) == shown


def test_text_of_json_stays_json() -> None:
    document = {"api_key": "hunter22", "n": [1, {"pwd": "hunter22"}], "text": '{"token": "hunter22"}'}
    shown = json.loads(redact(json.dumps(document)))
    assert (shown["api_key"], shown["n"][1]["pwd"]) == (HIDDEN, HIDDEN)
    assert json.loads(shown["text"]) == {"token": HIDDEN}
    assert redact_document(document) == shown


@pytest.mark.parametrize(
    "text",
    [
        "quay.io/ascend/vllm-ascend:v0.22.1@sha256:0123 and a:v1@sha256:0123",
        "stop_token_ids = [1, 2]",
        '{"cookie": 5, "n": 1} and the rcon_password is needed',
        "PWD=/root/work, pass  host: 15 pass",
        "max_prompt_tokens = 1024, tokens_per_micro_batch: 16384",
    ],
)
def test_other_text_is_kept(text: str) -> None:
    assert redact(text) == text


def test_a_long_word_takes_no_time() -> None:
    assert redact("a" * 3_000_000 + " token=hunter22").endswith(f" token={HIDDEN}")


def test_command_lines_have_no_secrets() -> None:
    words = [
        "vimectl",
        "run",
        "--set",
        "env.COOKIE=hunter22",
        "--set=env.A=hunter22",
        "--token",
        "hunter22",
        "x",
    ]
    shown = [
        "vimectl",
        "run",
        "--set",
        f"env.COOKIE={HIDDEN}",
        f"--set=env.A={HIDDEN}",
        "--token",
        HIDDEN,
        "x",
    ]
    assert redact_arguments(words) == shown
