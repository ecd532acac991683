"""One rank of the trainer: a Megatron-core model, its optimizer, and the GRPO step.

Importing this module imports Megatron-core: call ``Device.before_megatron()`` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch import Tensor
from torch._C._distributed_c10d import Store

from vime_runtime import device as devices
from vime_runtime.batch import RolloutBatch
from vime_runtime.checkpoint import random_state
from vime_runtime.checkpoint.store import StatePart
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.spec.metrics import TRAIN_ENTROPY, TRAIN_GRAD_NORM, TRAIN_LOSS, TRAIN_LR, TRAIN_TOKENS
from vime_runtime.spec.model_shape import check_trainer_split
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.trainer import grpo, hf_checkpoint, model, packing, parallel
from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
from vime_runtime.trainer.logprobs import token_logprobs
from vime_runtime.trainer.optimizer import Optimizer
from vime_runtime.trainer.packing import MicroBatch
from vime_runtime.trainer.schedule import learning_rate
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.device_identity import location_of
from vime_runtime.weight_sync.export import WeightBridge
from vime_runtime.weight_sync.transport import BufferPlan, WeightLocation


class Trainer:
    """One rank. Call every public method on all ranks: most are collectives."""

    def __init__(self, config: RunConfig, rank: int, world_size: int, store: Store) -> None:
        """Connect to the other ranks through a store and load the model into the training region.

        Raises:
            UsageError: the model directory is incomplete or malformed, or the ranks cannot share the model.
        """
        recipe = config.recipe
        self._config = config
        self._settings = recipe.algorithm
        self._device = devices.get(recipe.cluster.device)
        self._source = HFCheckpoint(Path(recipe.model.path))
        self._dtype = getattr(torch, recipe.model.dtype)
        check_trainer_split(recipe, self._source.shape)
        self._groups = parallel.start(
            self._device.distributed_backend,
            rank,
            world_size,
            store,
            recipe.train.tensor_parallel,
            recipe.train.expert_parallel,
            self._device.world_group_options(),
        )
        self._store = store  # torch does not keep a store that is written in Python
        self._groups.connect(self._device.torch_device())
        self._bridge = WeightBridge(self._source, self._groups)
        self._region = self._device.training_region(config)
        self._distributed = recipe.train.distributed_optimizer and self._groups.data.size() > 1
        # A distributed optimizer copies the parameters into buffers in the region.
        self._model = self._load(recipe.train.recompute, in_region=not self._distributed)
        self._optimizer = Optimizer(self._model, recipe.optimizer, self._region, self._distributed)
        self._reference = self._load(recompute=False) if self._settings.kl_coefficient > 0 else None
        lasting = dict(self._optimizer.state())
        lasting |= {f"model/{name}": parameter for name, parameter in self._model.named_parameters()}
        if self._reference is not None:
            lasting |= {f"reference/{name}": tensor for name, tensor in self._reference.named_parameters()}
        self._region.register(lasting, self._optimizer.gradients())
        self._step = 0

    def train_step(self, batch: RolloutBatch) -> dict[str, float]:
        """Update the weights on one step's rollout; every rank gets the whole batch and trains on its shard.

        Returns:
            ``train/*`` and ``logprob/*`` metrics over the tokens that are trained on, equal on all ranks.
            Means over no tokens are 0. ``logprob/abs_diff_*`` compare the trainer's log-probabilities before
            the update with the rollout's, in nats per response token.

        Raises:
            NotFinite: one of the metrics is not finite.
        """
        self._step += 1
        rate = learning_rate(self._config.recipe.optimizer, self._step, self._config.steps)
        sums = grpo.StepMetrics(self._settings, self._device.torch_device())
        norms = []
        updates = grpo.plan_updates(batch, self._config.recipe)
        with self._device.computing(self._dtype):
            rows = self._micro_batches(batch, updates)
            for micro_batches in rows:
                for micro_batch in micro_batches:
                    self._add_fixed_logprobs(micro_batch)
            for update, micro_batches in zip(updates, rows, strict=True):
                for micro_batch in micro_batches:
                    self._accumulate_gradient(micro_batch, update, sums)
                norms.append(self._optimizer.step(rate))
        self._device.release_cache()  # the engine's weights come next
        tokens = sum(update.tokens for update in updates)
        metrics = {
            **sums.reduce(tokens, self._groups.data),
            TRAIN_GRAD_NORM: fmean(norms) if norms else 0.0,
            TRAIN_LR: rate,
            TRAIN_TOKENS: tokens,
        }
        grpo.check_finite(self._step, metrics)
        return metrics

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight as a full tensor with its Hugging Face name, in ``model.dtype``.

        Every rank must exhaust the iterator. A tensor is valid until the next one is yielded.
        """
        self._device.synchronize()  # other streams may still compute them
        return self._bridge.export(self._model)

    def exporter(self) -> BucketExporter:
        """Return the exporter of all weights in buckets, for engines on the same devices.

        On an accelerator each device needs its own copy of the weights that its engine reads. In CPU memory
        all engines of a node read one copy. The ranks of the node's first replica write it together, each its
        own shards, without gathering.
        """
        size = self._config.recipe.sync.bucket_bytes
        per_node = self._config.recipe.cluster.devices_per_node
        local_rank = dist.get_rank() % per_node
        device = self._device.torch_device()
        on_cpu = device.type == "cpu"
        writers = self._groups.model.size()
        if on_cpu and per_node % writers == 0:
            first = local_rank < self._groups.tensor.size()
            plan = BufferPlan(device=False, cpu=local_rank < writers)
            weights = partial(self._bridge.local_shards, self._model, first)
            return BucketExporter(weights, size, plan, group=self._groups.model)
        plan = BufferPlan(device=not on_cpu, cpu=on_cpu and local_rank == 0)
        return BucketExporter(self.weights, size, plan, device)

    def weight_location(self) -> WeightLocation:
        """Return the machine and device of this rank's weights."""
        return location_of(self._device.torch_device())

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a Hugging Face directory that transformers and vLLM load; rank 0 writes.

        Raises:
            OSError: it could not be written; the other ranks then wait until they are killed.
        """
        if dist.get_rank() == 0:
            hf_checkpoint.write(Path(directory), self._source, self._dtype, self.weights())
        else:
            for _ in self.weights():
                pass
        dist.barrier()

    def write_state(self, folder: Path) -> StatePart:
        """Write this rank's training state; of ranks with the same state only the first writes a file.

        The state does not include the frozen reference model, which is the checkpoint at ``model.path``.

        Raises:
            OSError: the file could not be written.
        """
        files = {}
        if self._distributed or dist.get_rank() < self._groups.model.size():
            name = self._state_file()
            files[name] = self._optimizer.save(folder / name)
        return StatePart(files, _capture_random(self._device.torch_device()))

    def read_state(self, folder: Path, step: int, random: dict[str, Any]) -> None:
        """Restore the state after ``step``. Addresses do not change.

        Args:
            random: ``StatePart.random`` that ``write_state`` returned on this rank.

        Raises:
            ValueError: the state is of another model or optimizer.
        """
        self._optimizer.load(folder / self._state_file())
        _restore_random(random, self._device.torch_device())
        self._step = step

    def pause(self) -> None:
        """Offload model and optimizer; only ``resume`` may be called afterwards.

        Gradients are zero then and are not saved.
        """
        self._device.synchronize()
        self._region.pause()
        self._device.release_cache()

    def resume(self) -> None:
        """Restore model and optimizer, at the same addresses and with the same contents.

        Raises:
            DeviceMemoryError: as ``OffloadableRegion.resume``.
        """
        self._region.resume()

    def memory_usage(self) -> MemoryUsage:
        """Measure the training region of this rank."""
        return self._region.memory_usage()

    def close(self) -> None:
        """Destroy the process groups."""
        parallel.stop()

    def _state_file(self) -> str:
        group = dist.group.WORLD if self._distributed else self._groups.model
        return f"rank-{dist.get_rank(group)}-of-{dist.get_world_size(group)}.pt"

    def _load(self, recompute: bool, in_region: bool = True) -> GPTModel:
        device = self._device.torch_device()
        with self._region.allocating() if in_region else nullcontext():
            loaded = model.build(self._source, self._dtype, device, self._groups, recompute)
        # Outside the region: on a device, memory of tensors that were freed in it remains part of it.
        self._bridge.load(loaded)
        return loaded

    def _micro_batches(self, batch: RolloutBatch, updates: list[grpo.Update]) -> list[list[MicroBatch]]:
        """Return this rank's micro-batches for each update of the step.

        The groups of an update are distributed over the data-parallel ranks. Replicas that exchange tokens
        get the same number of micro-batches, of the same lengths.
        """
        advantages = grpo.group_advantages(batch.rewards, batch.groups, self._settings.scale_advantages)
        budget = self._config.recipe.train.tokens_per_micro_batch
        rank, ranks = self._groups.data.rank(), self._groups.data.size()
        result = []
        for update in updates:
            shards = packing.shard_groups(batch, update.groups, ranks)
            plans = {
                other: packing.make_micro_batches(batch, shards[other], budget)
                for other in ([rank] if self._groups.replicas is None else range(ranks))
            }
            lengths = [
                max(packing.row_length(batch, row) for row in rows)
                for rows in zip_longest(*plans.values(), fillvalue=[])
            ]
            own = plans[rank] + [[]] * (len(lengths) - len(plans[rank]))
            device = self._device.torch_device()
            micro_batches = [
                packing.pack(batch, row, advantages, device, length)
                for row, length in zip(own, lengths, strict=True)
            ]
            result.append(micro_batches)
        return result

    @torch.no_grad()
    def _add_fixed_logprobs(self, micro_batch: MicroBatch) -> None:
        """Compute the log-probabilities of the old policy and of the reference model, fixed during a step.

        With one update per step the policy before the update is the policy itself: its log-probabilities
        are those of the forward pass that computes the gradient, detached.
        """
        if self._settings.updates_per_step > 1:
            micro_batch.old_logprobs, _ = self._logprobs(self._model, micro_batch)
        if self._reference is not None:
            micro_batch.reference_logprobs, _ = self._logprobs(self._reference, micro_batch)

    def _accumulate_gradient(
        self, micro_batch: MicroBatch, update: grpo.Update, metrics: grpo.StepMetrics
    ) -> None:
        """Add the gradient of a micro-batch's part of the loss of an update."""
        logprobs, entropy = self._logprobs(self._model, micro_batch)
        if micro_batch.is_padding:  # this rank's experts take part in the passes of other ranks
            torch.autograd.backward(logprobs.sum() * 0)
            return
        losses = grpo.token_losses(logprobs, micro_batch, self._settings, metrics)
        torch.autograd.backward(losses.sum() / update.divisor)
        # The other metrics are means over tokens; the mean of these numbers is the loss.
        metrics.add(TRAIN_LOSS, losses * (update.tokens / update.divisor))
        metrics.add(TRAIN_ENTROPY, entropy)

    def _logprobs(self, policy: GPTModel, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy, [N] each, of the response tokens, at rollout temperature."""
        return token_logprobs(
            model.forward(policy, micro_batch),
            model.output_weight(policy),
            micro_batch.targets,
            self._config.recipe.rollout.temperature,
            self._source.shape.vocab_size,
            self._groups.tensor,
        )


def _capture_random(device: torch.device) -> dict[str, Any]:
    """Return the states of the generators of process, Megatron and device, as plain values."""
    states = random_state.capture()
    states["megatron"] = {
        name: random_state.pack(state) for name, state in get_cuda_rng_tracker().get_states().items()
    }
    if device.type != "cpu":
        states["device"] = random_state.pack(torch.get_device_module(device).get_rng_state())
    return states


def _restore_random(states: dict[str, Any], device: torch.device) -> None:
    random_state.restore(states)
    get_cuda_rng_tracker().set_states(
        {name: random_state.unpack(state) for name, state in states["megatron"].items()}
    )
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(random_state.unpack(states["device"]))
