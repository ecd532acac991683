"""Recipes and run configurations for tests: a small valid base, in which a test changes what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vime_runtime.spec.recipe import Recipe
from vime_runtime.spec.run_config import RunConfig

BASE: dict[str, Any] = {
    "recipe": {
        "recipe": {"name": "test", "stack": "cpu-0.32", "description": "test"},
        "cluster": {"device": "cpu", "devices_per_node": 1},
        "model": {"path": "/model", "dtype": "float32"},
        "data": {"path": "/data.jsonl"},
        "train": {"tensor_parallel": 1, "tokens_per_micro_batch": 64},
        "rollout": {
            "tensor_parallel": 1,
            "max_prompt_tokens": 9,
            "max_response_tokens": 9,
            "kv_cache_bytes": 2**24,
        },
        "algorithm": {"prompts_per_step": 2, "samples_per_prompt": 2},
        "optimizer": {"lr": 1e-3},
        "memory": {"host_bytes": 1},
        "modes": {mode: {"steps": 1} for mode in ("smoke", "test", "long")},
    },
    "mode": "test",
    "steps": 10,
    "settings_sha256": "0" * 64,
    "run_dir": "/run",
    "scratch_dir": "/tmp/scratch",
    "environment": {"driver": {}, "train": {}, "rollout": {}},
    "required": {"driver": {}, "train": {}, "rollout": {}},
}


def make_run_config(changes: Mapping[str, Any]) -> RunConfig:
    """Return the base configuration with the nested keys of ``changes`` in place."""
    return RunConfig.model_validate(_merged(BASE, changes))


def make_recipe(**tables: Mapping[str, Any]) -> Recipe:
    """Return the base recipe with keys of its tables changed."""
    return make_run_config({"recipe": tables}).recipe


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _merged(base[key], value) if nested else value
    return merged
