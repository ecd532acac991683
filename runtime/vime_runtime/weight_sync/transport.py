"""The buckets that trainer ranks send to engine workers, and the memory through which they send them.

A worker reads a bucket on its own device or in CPU memory of its machine. Imports no torch: the driver plans
the copies and passes the messages on, which it can unpickle without torch and torch_npu.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vime_runtime.spec.errors import MissingRequirement


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a bucket, or some of its rows if it is larger than a bucket.

    Attributes:
        name: the Hugging Face name.
        dtype: as torch names it, for example "bfloat16".
        shape: of the rows in the bucket.
        offset: of these rows in the bucket, in bytes.
        nbytes: of these rows.
        full_shape: of the whole tensor.
        start: the first of these rows in the whole tensor; the parts of a tensor come in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    full_shape: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True)
class BucketMessage:
    """The tensors in a filled bucket, and the handles with which readers open its copies.

    ``handles`` has one handle (``ipc``) for each copy of the bucket: by ``device_uuid`` for a copy in the
    memory of a device, by ``machine_id`` for one in CPU memory (``device_identity``).
    """

    handles: dict[str, bytes]
    tensors: tuple[TensorEntry, ...]

    @property
    def payload_bytes(self) -> int:
        """The bytes of tensors in the bucket."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def joined(self, others: Iterable[BucketMessage]) -> BucketMessage:
        """Return this message with the handles of other ranks' copies of the same bucket added.

        Raises:
            RuntimeError: another rank has a bucket with other tensors.
        """
        handles = dict(self.handles)
        for other in others:
            if other.tensors != self.tensors:
                raise RuntimeError("the ranks export different buckets")
            handles = other.handles | handles
        return BucketMessage(handles, self.tensors)


@dataclass(frozen=True)
class WeightLocation:
    """Machine and device of a process's weights (``device_identity``); no device for CPU memory."""

    machine: str
    device: str | None


@dataclass(frozen=True)
class BufferPlan:
    """The copies of a bucket that one trainer rank makes: on its device, in CPU memory of its machine."""

    device: bool
    cpu: bool


def plan_buffers(ranks: Sequence[WeightLocation], readers: Sequence[WeightLocation]) -> list[BufferPlan]:
    """Return the plan of each rank.

    A rank makes a copy on its device if an engine worker has the same device. For workers on other devices
    the first rank on each of their machines makes one in CPU memory.

    Raises:
        MissingRequirement: a worker has neither its device nor its machine in common with any rank, or two
            ranks or two workers have the same device.
    """
    _require_distinct_devices("trainer ranks", ranks)
    _require_distinct_devices("engine workers", readers)
    devices = {rank.device for rank in ranks}
    machines = {reader.machine for reader in readers if reader.device not in devices}
    if missing := machines - {rank.machine for rank in ranks}:
        raise MissingRequirement(
            f"an engine worker on {', '.join(sorted(missing))} has neither device nor machine in common with "
            "a rank of the trainer: weights cannot reach it",
            "start trainer and engines in one container for each machine, or give both the same devices",
        )
    read = {reader.device for reader in readers}
    plans = []
    for rank in ranks:
        plans.append(BufferPlan(device=rank.device in read, cpu=rank.machine in machines))
        machines.discard(rank.machine)
    return plans


def _require_distinct_devices(processes: str, locations: Sequence[WeightLocation]) -> None:
    """Refuse equal device ids: workers would read the weights of another rank."""
    found: dict[str, int] = {}
    for index, location in enumerate(locations):
        if location.device is not None and (other := found.setdefault(location.device, index)) != index:
            raise MissingRequirement(
                f"{processes} {other} and {index} have the same device: {location.device}",
                "remove ASCEND_RT_VISIBLE_DEVICES from [env]: the runtime sets it for each process. A "
                "container needs the device nodes of its NPUs (/dev/davinci*)",
            )
