"""One rank of the trainer: a Megatron-core model, its optimizer, and the GRPO step.

Importing this module imports Megatron-core: call ``Device.before_megatron()`` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from torch import Tensor

from vime_runtime import device as devices
from vime_runtime.batch import RolloutBatch
from vime_runtime.checkpoint.store import StatePart
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.spec.model_shape import check_trainer_split
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.trainer import grpo, hf_checkpoint, model, packing, parallel, state
from vime_runtime.trainer.logprobs import token_logprobs
from vime_runtime.trainer.metrics import StepMetrics
from vime_runtime.trainer.optimizer import Optimizer, learning_rate
from vime_runtime.trainer.packing import Pack
from vime_runtime.weight_sync.buckets import BucketExporter
from vime_runtime.weight_sync.device_identity import chip_id, machine_id
from vime_runtime.weight_sync.export import Bridge, Rank
from vime_runtime.weight_sync.ipc import SharedHostBuffer
from vime_runtime.weight_sync.transport import Place


class Trainer:
    """One rank. Call every public method on all ranks alike: most are collectives."""

    def __init__(self, config: RunConfig, rank: int, world_size: int, master: str) -> None:
        """Join the other ranks at ``master`` ("host:port") and load the model into the training region.

        Raises:
            UsageError: the model directory is incomplete or malformed, or cannot be split as asked.
        """
        recipe = config.recipe
        self._config = config
        self._settings = recipe.algorithm
        self._device = devices.get(recipe.cluster.device)
        self._source = hf_checkpoint.HFCheckpoint(Path(recipe.model.path))
        self._dtype = getattr(torch, recipe.model.dtype)
        size = recipe.train.tensor_parallel
        experts = recipe.train.expert_parallel
        check_trainer_split(recipe, self._source.shape)
        self._ranks = parallel.start(
            self._device.distributed_backend, rank, world_size, master, size, experts
        )
        self._bridge = Bridge(
            self._source.family,
            self._source.shape,
            Rank(self._ranks.tensor_rank, size),
            self._ranks.tensor,
            Rank(self._ranks.expert_rank, experts),
            self._ranks.expert,
        )
        self._region = self._device.training_region(config, rank)
        with self._region.allocating():
            self._model = self._load(recompute=recipe.train.recompute)
            self._optimizer = Optimizer(self._model, recipe.optimizer)
            self._reference = self._load(recompute=False) if self._settings.kl_coefficient > 0 else None
        self._step = 0

    def train_step(self, batch: RolloutBatch) -> dict[str, float]:
        """Update the weights on one step's rollout; every rank gets the whole batch and takes its share.

        Returns:
            ``train/*`` and ``logprob/*`` metrics over the whole batch, the same on every rank.
            ``logprob/abs_diff_*`` compare the trainer's log-probabilities before the update with the
            rollout's, in nats per response token.

        Raises:
            FloatingPointError: the gradient is not finite.
        """
        self._step += 1
        rate = learning_rate(self._config.recipe.optimizer, self._step, self._config.steps)
        names = ["train/loss", "train/entropy"] + ["train/kl"] * (self._reference is not None)
        metrics = StepMetrics(names, self._device.torch_device())
        norms = []
        with self._device.computing(self._dtype):
            rounds = self._rounds(batch)
            for packs, _ in rounds:
                for pack in packs:
                    self._note_fixed_logprobs(pack)
            for packs, tokens in rounds:
                for pack in packs:
                    self._accumulate(pack, tokens, metrics)
                norms.append(self._optimizer.step(rate))
        return {
            **metrics.reduce(sum(map(len, batch.responses)), self._ranks.data),
            "train/grad_norm": fmean(norms),
            "train/lr": rate,
        }

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight as a full tensor with its Hugging Face name, in ``model.dtype``.

        Every rank must run the iterator to its end. A tensor is valid until the next one is asked for.
        """
        return self._bridge.export(self._model)

    def exporter(self) -> BucketExporter:
        """All weights in buckets, for engines on the same devices.

        A device needs a copy of its own of what its engine reads. In host memory the engines of a machine
        read one, and the ranks of its first replica write it together, each what it holds, ungathered.
        """
        size = self._config.recipe.sync.bucket_bytes
        per_node = self._config.recipe.cluster.devices_per_node
        place = dist.get_rank() % per_node
        on_host = self._device.torch_device().type == "cpu"
        together = self._ranks.model.size()
        if on_host and per_node % together == 0:
            shared = partial(SharedHostBuffer, self._ranks.model) if place < together else None
            first = place < self._ranks.tensor_size
            return BucketExporter(lambda: self._bridge.held(self._model, first), size, shared=shared)
        return BucketExporter(self.weights, size, fill_host=place == 0)

    def place(self) -> Place:
        """Where this rank has its weights."""
        device = self._device.torch_device()
        return Place(machine_id(), None if device.type == "cpu" else chip_id(device))

    def save_pretrained(self, directory: str | Path) -> None:
        """Write a Hugging Face directory that transformers and vLLM load; rank 0 writes.

        Raises:
            OSError: it could not be written; the other ranks then wait in vain.
        """
        if dist.get_rank() == 0:
            sizes = {
                name: prod(shape) * self._dtype.itemsize
                for name, shape in self._source.tensor_shapes().items()
            }
            hf_checkpoint.write(Path(directory), self._source.directory, self._dtype, sizes, self.weights())
        else:
            for _ in self.weights():
                pass
        dist.barrier()

    def write_state(self, folder: Path) -> StatePart:
        """Write what the next steps of this rank depend on, but for what the other ranks write.

        The frozen reference is not among it: it is the checkpoint that the run began with.

        Raises:
            OSError: the file could not be written.
        """
        files = {}
        if dist.get_rank() < self._ranks.model.size():
            name = self._state_file()
            files[name] = state.write(folder / name, dict(self._optimizer.state()))
        return StatePart(files, state.capture_random(self._device.torch_device()))

    def read_state(self, folder: Path, step: int, random: dict[str, Any]) -> None:
        """Go back to the end of ``step``: the contents change, the addresses do not.

        Args:
            random: this rank's part of what ``write_state`` returned.

        Raises:
            ValueError: the state is of another model or optimizer.
        """
        state.read(folder / self._state_file(), dict(self._optimizer.state()))
        state.restore_random(random, self._device.torch_device())
        self._step = step

    def pause(self) -> None:
        """Give the memory of model and optimizer back; nothing but ``resume`` may follow."""
        self._device.synchronize()
        self._region.pause()
        self._device.empty_cache()

    def resume(self) -> None:
        """Bring model and optimizer back, at the same addresses and with the same contents."""
        self._region.resume()

    def memory_usage(self) -> MemoryUsage:
        """Bytes mapped and resident of the training region of this rank."""
        return self._region.memory_usage()

    def close(self) -> None:
        """Leave the process groups."""
        parallel.stop()

    def _state_file(self) -> str:
        return state.file_name(dist.get_rank(self._ranks.model), self._ranks.model.size())

    def _load(self, recompute: bool) -> GPTModel:
        built = model.build(
            self._source.family,
            self._source.shape,
            self._dtype,
            self._device.torch_device(),
            self._ranks.tensor_size,
            recompute,
            self._ranks.expert_size,
            self._ranks.replicas,
        )
        self._bridge.load(built, self._source)
        return built

    def _rounds(self, batch: RolloutBatch) -> list[tuple[list[Pack], int]]:
        """For each update of the step: this rank's packs, and the response tokens of all ranks together.

        Groups are dealt to updates, and within one to the data-parallel ranks. Replicas that exchange
        tokens have as many packs as each other, and equally long ones.
        """
        advantages = grpo.advantages(batch.rewards, batch.groups)
        budget = self._config.recipe.train.tokens_per_micro_batch
        updates = self._settings.updates_per_step
        groups: dict[int, packing.Group] = {}
        for i, group in enumerate(batch.groups):
            groups.setdefault(group, []).append(i)
        rounds = []
        for update in range(updates):
            here = [members for group, members in groups.items() if group % updates == update]
            plans = [
                packing.plan(batch, packing.deal(batch, here, rank, self._ranks.data_size), budget)
                for rank in self._planned_ranks()
            ]
            mine = plans[self._planned_ranks().index(self._ranks.data_rank)]
            lengths = [
                max(packing.row_length(batch, groups) for groups in packs)
                for packs in zip_longest(*plans, fillvalue=())
            ]
            packs = [
                packing.build(batch, groups, advantages, self._device.torch_device(), length)
                for groups, length in zip_longest(mine, lengths, fillvalue=())
            ]
            rounds.append((packs, sum(len(batch.responses[i]) for members in here for i in members)))
        return rounds

    def _planned_ranks(self) -> list[int]:
        """The data-parallel ranks whose packs this one has to know."""
        return [self._ranks.data_rank] if self._ranks.replicas is None else list(range(self._ranks.data_size))

    @torch.no_grad()
    def _note_fixed_logprobs(self, pack: Pack) -> None:
        """Note the log-probabilities that the loss compares with and that do not change in the step.

        With one update a step the policy before the update is the policy itself: its log-probabilities
        are taken, detached, from the forward that the gradient needs anyway.
        """
        if self._settings.updates_per_step > 1:
            pack.old_logprobs, _ = self._logprobs(self._model, pack)
        if self._reference is not None:
            pack.reference_logprobs, _ = self._logprobs(self._reference, pack)

    def _accumulate(self, pack: Pack, tokens: int, metrics: StepMetrics) -> None:
        """Add the gradient of one pack's share of the mean loss over ``tokens``."""
        settings = self._settings
        logprobs, entropy = self._logprobs(self._model, pack)
        if pack.filler:  # others' tokens were at this rank's experts meanwhile, and their gradients will be
            (logprobs.sum() * 0).backward()
            return
        old = logprobs.detach() if pack.old_logprobs is None else pack.old_logprobs
        loss = grpo.policy_loss(logprobs, old, pack.advantages, settings.clip_low, settings.clip_high)
        if pack.reference_logprobs is not None:
            kl = grpo.kl_k3(logprobs, pack.reference_logprobs)
            loss = loss + settings.kl_coefficient * kl
            metrics.add("train/kl", kl)
        (loss.sum() / tokens).backward()
        metrics.add("train/loss", loss)
        metrics.add("train/entropy", entropy)
        metrics.add_difference(old - pack.rollout_logprobs)

    def _logprobs(self, policy: GPTModel, pack: Pack) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy, [N] each, of the response tokens, at the rollout's temperature."""
        return token_logprobs(
            model.forward(policy, pack),
            pack.targets,
            self._config.recipe.rollout.temperature,
            self._source.shape.vocab_size,
            self._ranks.tensor,
        )
