from __future__ import annotations

import pytest

from vimectl.util.secrets import is_secret


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "password", "OPENAI_API_KEY", "apiKey", "env.DB_PASS"]
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "VLLM_PLUGINS",
        "max_prompt_tokens",
        "rollout.max_prompt_tokens",
        "tokens_per_micro_batch",
        "env.TOKENIZERS_PARALLELISM",
        "PASSENGERS",
        "BYPASS",
    ],
)
def test_other_names(name: str) -> None:
    assert not is_secret(name)
