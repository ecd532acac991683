from __future__ import annotations

import pytest

from vimectl.util.secrets import is_secret

SECRET = ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "password", "OPENAI_API_KEY", "apiKey", "env.DB_PASS"]
OTHER = [
    "PATH", "VLLM_PLUGINS", "max_prompt_tokens", "rollout.max_prompt_tokens", "tokens_per_micro_batch",
    "env.TOKENIZERS_PARALLELISM", "PASSENGERS", "BYPASS",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRET + OTHER)
def test_secrets_are_recognized_by_their_name(name: str) -> None:
    assert is_secret(name) == (name in SECRET)
