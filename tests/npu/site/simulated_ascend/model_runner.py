"""Simulate vllm-ascend's model runner: vLLM's model with its packed weights, computed by transformers.

The model is loaded by vLLM into vLLM's parameters, which is what a weight sync writes. Attention and the
other kernels of an NPU are not there, so transformers computes what the model says from those parameters, on
the host in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch_npu import _books, _npu
from transformers import AutoModelForCausalLM
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
        config = self.vllm_config.model_config.hf_text_config
        self._computing = AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    def get_model(self) -> torch.nn.Module:
        return self.model

    def profile_run(self) -> None:
        """Return the bytes of activations that a forward would need."""
        torch.empty(1 << 20, dtype=torch.uint8, device=self.device)

    def capture_model(self) -> int:
        return 0

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
        weights = self._weights()
        for name in self._due:
            request = self._requests[name]
            ids = torch.tensor([request.tokens])
            logits = torch.func.functional_call(self._computing, weights, (ids,)).logits[0, -1]
            temperature = request.parameters.temperature
            distribution = (logits / temperature if temperature else logits).log_softmax(-1)
            if temperature:
                token = torch.multinomial(distribution.exp(), 1, generator=request.generator).item()
            else:
                token = distribution.argmax().item()
            request.tokens.append(token)
            sampled.append(token)
            logprobs.append(distribution[token].item())
        chosen = np.array(sampled)[:, None]
        return ModelRunnerOutput(
            req_ids=self._due,
            req_id_to_index={name: index for index, name in enumerate(self._due)},
            sampled_token_ids=[[token] for token in sampled],
            logprobs=LogprobsLists(
                chosen, np.array(logprobs, dtype=np.float32)[:, None], np.zeros_like(chosen[:, 0])
            ),
        )

    def reset_encoder_cache(self) -> None: ...

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return the weights as transformers names them, on the host in fp32, without padding."""
        config = self.vllm_config.model_config.hf_text_config
        heads, kv_heads = (
            n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads)
        )
        packed = {
            "qkv_proj": {"q_proj": heads, "k_proj": kv_heads, "v_proj": kv_heads},
            "gate_up_proj": dict.fromkeys(("gate_proj", "up_proj"), config.intermediate_size),
        }
        weights = {}
        for name, parameter in self.model.named_parameters():
            weight = parameter.data.cpu().float()
            *_, module, _ = name.split(".")
            parts = packed.get(module, {module: len(weight)})
            for part, rows in zip(parts, weight.split(list(parts.values())), strict=True):
                padded = part in ("embed_tokens", "lm_head")
                weights[name.replace(module, part)] = rows[: config.vocab_size] if padded else rows
        return weights
