"""Simulate vllm-ascend's model runner: vLLM's model with its packed weights, in plain torch.

The model is loaded by vLLM into vLLM's parameters, which is what a weight sync writes. Attention and the
other kernels of an NPU are not there, so what the model says is computed here in plain torch from those
parameters, in fp32, for a dense Qwen3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch_npu import _books, _npu
from vllm.config import VllmConfig
from vllm.model_executor.model_loader import get_model
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput


@dataclass
class _Request:
    parameters: Any
    tokens: list[int]
    generator: torch.Generator = field(default_factory=torch.Generator)


class NPUModelRunner:
    """Compute one request at a time, from its first token; the KV cache is allocated and not used."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        self.vllm_config = vllm_config
        self.device = device
        self.model_memory_usage = 0
        self._requests: dict[str, _Request] = {}
        self._due: list[str] = []

    def load_model(self) -> None:
        before = torch.npu.memory_allocated()
        self.model = get_model(vllm_config=self.vllm_config)
        self.model_memory_usage = torch.npu.memory_allocated() - before

    def get_model(self) -> torch.nn.Module:
        return self.model

    def profile_run(self) -> None:
        """Return the bytes of activations that a forward would need."""
        torch.empty(1 << 20, dtype=torch.uint8, device=self.device)

    def profile_cudagraph_memory(self) -> int:
        return 0

    def capture_model(self) -> int:
        return 0

    def _dummy_run(self, *args: Any, **kwargs: Any) -> None: ...

    def get_supported_tasks(self) -> tuple[str, ...]:
        return ("generate",)

    def get_kv_cache_spec(self) -> dict[str, Any]:
        config = self.vllm_config.model_config
        return {
            f"model.layers.{layer}.self_attn.attn": FullAttentionSpec(
                block_size=self.vllm_config.cache_config.block_size,
                num_kv_heads=config.get_num_kv_heads(self.vllm_config.parallel_config),
                head_size=config.get_head_size(),
                dtype=config.dtype,
            )
            for layer in range(config.hf_text_config.num_hidden_layers)
        }

    def initialize_kv_cache(self, kv_cache_config: KVCacheConfig) -> None:
        self._kv_cache = [
            torch.zeros(tensor.size, dtype=torch.int8, device=self.device)
            for tensor in kv_cache_config.kv_cache_tensors
        ]

    def execute_model(self, scheduled: Any, intermediate: Any = None) -> ModelRunnerOutput | None:
        """Record the scheduled requests; ``sample_tokens`` returns the tokens."""
        for name in scheduled.finished_req_ids:
            self._requests.pop(name, None)
        for new in scheduled.scheduled_new_reqs:
            request = self._requests[new.req_id] = _Request(new.sampling_params, list(new.prompt_token_ids))
            request.generator.manual_seed(new.sampling_params.seed or 0)
        if not scheduled.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT
        self._kv_cache[0][0].item()  # it has to be there
        _books.record("generate", chip=_npu.chip(), requests=len(scheduled.num_scheduled_tokens))
        self._due = list(scheduled.num_scheduled_tokens)
        return None

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        sampled, logprobs = [], []
        weights = {name: weight.data.cpu().float() for name, weight in self.model.named_parameters()}
        for name in self._due:
            request = self._requests[name]
            logits = self._logits(weights, request.tokens)
            temperature = request.parameters.temperature
            distribution = (logits / temperature if temperature else logits).log_softmax(-1)
            if temperature:
                token = torch.multinomial(distribution.exp(), 1, generator=request.generator).item()
            else:
                token = distribution.argmax().item()
            request.tokens.append(token)
            sampled.append(token)
            logprobs.append(distribution[token].item())
        ids = np.array(sampled)[:, None]
        return ModelRunnerOutput(
            req_ids=self._due,
            req_id_to_index={name: index for index, name in enumerate(self._due)},
            sampled_token_ids=[[token] for token in sampled],
            logprobs=LogprobsLists(
                ids, np.array(logprobs, dtype=np.float32)[:, None], np.zeros_like(ids[:, 0])
            ),
        )

    def reset_encoder_cache(self) -> None: ...

    def take_draft_token_ids(self) -> None:
        return None

    def _logits(self, weights: dict[str, torch.Tensor], tokens: list[int]) -> torch.Tensor:
        """Return the logits of the next token, [vocabulary]."""
        config = self.vllm_config.model_config.hf_text_config
        hidden = functional.embedding(torch.tensor(tokens), weights["model.embed_tokens.weight"])
        for layer in self._layers(weights):
            hidden = _layer(hidden, layer, config)
        hidden = _norm(hidden[-1], weights["model.norm.weight"], config)
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        return (hidden @ head.T)[: config.vocab_size]

    def _layers(self, weights: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(self.vllm_config.model_config.hf_text_config.num_hidden_layers):
            prefix = f"model.layers.{number}."
            yield {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def _norm(x: torch.Tensor, weight: torch.Tensor, config: Any) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, config.rms_norm_eps)


def _layer(hidden: torch.Tensor, weights: dict[str, torch.Tensor], config: Any) -> torch.Tensor:
    """Compute a decoder layer for one sequence, [T, hidden]."""
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    normed = _norm(hidden, weights["input_layernorm.weight"], config)
    packed = normed @ weights["self_attn.qkv_proj.weight"].T
    q, k, v = (
        part.unflatten(-1, (-1, size)).transpose(0, 1)
        for part in packed.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    )
    q = _rotate(_norm(q, weights["self_attn.q_norm.weight"], config), config)
    k = _rotate(_norm(k, weights["self_attn.k_norm.weight"], config), config)
    attended = functional.scaled_dot_product_attention(
        q[None], k[None], v[None], is_causal=True, enable_gqa=True
    )
    hidden = hidden + attended[0].transpose(0, 1).flatten(1) @ weights["self_attn.o_proj.weight"].T
    normed = _norm(hidden, weights["post_attention_layernorm.weight"], config)
    gate, up = (normed @ weights["mlp.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return hidden + (functional.silu(gate) * up) @ weights["mlp.down_proj.weight"].T


def _rotate(x: torch.Tensor, config: Any) -> torch.Tensor:
    """Apply rotary embedding to [heads, T, size], in two halves."""
    half = x.shape[-1] // 2
    base = config.rope_parameters["rope_theta"]
    frequencies = base ** (-torch.arange(half).float() / half)
    angles = torch.arange(x.shape[1]).float()[:, None] * frequencies
    first, second = x.split(half, dim=-1)
    return torch.cat(
        [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1
    )
