"""torch_npu's own ProcessGroupHCCL over the stand-in for HCCL: results, device memory, and failures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist

from harness.npu.machine import Machine
from harness.runtime.rank_processes import Process, new_store, on_each
from harness.tolerances import of_sum

MIB = 1 << 20
BUFFERS = 3 * MIB  # of a communicator with HCCL_BUFFSIZE=1: input, output, and 1 MiB
LARGE = 300_007  # fp32 elements: more than a rank shows the others at a time, and not a multiple of anything
SUM, PRODUCT, MAX, MIN = (getattr(dist.ReduceOp, name) for name in ("SUM", "PRODUCT", "MAX", "MIN"))
HALF = (torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.int32, torch.int64, torch.uint8)
# A deadlock ends after two minutes, not after the half hour of HCCL.
ENVIRONMENT = {"HCCL_BUFFSIZE": "1", "P2P_HCCL_BUFFSIZE": "1", "HCCL_EXEC_TIMEOUT": "120"}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=4, chip_bytes=256 * MIB)


@pytest.fixture(scope="module")
def four(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """A process on each of four chips."""
    folder = tmp_path_factory.mktemp("four")
    processes = [machine.start(folder, str(chip), **ENVIRONMENT) for chip in range(4)]
    yield processes
    for process in processes:
        process.close()


def leave(*_: Any) -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(autouse=True)
def left(four: list[Process]) -> Iterator[None]:
    """Let no test run in the group of another that failed."""
    yield
    on_each(four, leave)


@contextmanager
def group(rank: int, world: int, store: str) -> Iterator[None]:
    """Join a process group of backend "hccl", and leave it."""
    dist.init_process_group("hccl", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def error_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return the message of the RuntimeError that a call raises."""
    try:
        function(*args, **kwargs)
    except RuntimeError as e:
        return str(e)
    return ""


class Side:
    """Tensors of a device, and the group that moves them."""

    def __init__(self, device: str, group: dist.ProcessGroup | None) -> None:
        self.device, self.group = device, group
        self.rank, self.world = dist.get_rank(group), dist.get_world_size(group)

    def random(
        self, *shape: int, dtype: torch.dtype = torch.float32, seed: int | None = None
    ) -> torch.Tensor:
        """Return values that differ from rank to rank and that sums of four ranks do not overflow."""
        generator = torch.Generator().manual_seed(self.rank if seed is None else seed)
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator).to(dtype).to(self.device)
        return torch.randint(1, 30, shape, generator=generator).to(dtype).to(self.device)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)


Outcome = list[Any]


def all_reduce(side: Side) -> Outcome:
    results = []
    for op in (SUM, PRODUCT, MAX, MIN):
        for dtype in (torch.float32, torch.float16, *INTEGERS):
            results.append(side.random(37, dtype=dtype))
            dist.all_reduce(results[-1], op, side.group)
    results.append(side.random(LARGE))
    dist.all_reduce(results[-1], group=side.group)
    return results


def all_reduce_bfloat16(side: Side) -> Outcome:
    results = [side.random(LARGE, dtype=torch.bfloat16) for _ in range(3)]
    for result, op in zip(results, (SUM, MAX, MIN), strict=True):
        dist.all_reduce(result, op, side.group)
    return results


def reduce(side: Side) -> Outcome:
    result = side.random(LARGE)
    dist.reduce(result, 1, group=side.group)
    return [result] if side.rank == 1 else []


def reduce_scatter(side: Side) -> Outcome:
    flat, listed = side.empty(LARGE), side.empty(5)
    dist.reduce_scatter_tensor(flat, side.random(LARGE * side.world), group=side.group)
    dist.reduce_scatter(listed, list(side.random(side.world, 5)), group=side.group)
    return [flat, listed]


def broadcast(side: Side) -> Outcome:
    results = [side.random(LARGE), side.random(0), side.random(3, dtype=torch.uint8) > 9]
    for result in results:
        dist.broadcast(result, 1, side.group)
    return results


def all_gather(side: Side) -> Outcome:
    flat = side.empty(side.world * LARGE)
    dist.all_gather_into_tensor(flat, side.random(LARGE), side.group)
    # torch_npu pads each tensor of a list to 512 bytes.
    padded = [side.empty(5) for _ in range(side.world)]
    dist.all_gather(padded, side.random(5), side.group)
    aligned = [side.empty(128) for _ in range(side.world)]
    dist.all_gather(aligned, side.random(128), side.group)
    return [flat, *padded, *aligned]


def scatter_and_gather(side: Side) -> Outcome:
    scattered, mine = side.empty(LARGE), side.rank == 1
    parts = list(side.random(side.world, LARGE)) if mine else None
    dist.scatter(scattered, parts, 1, side.group)
    gathered = [side.empty(5) for _ in range(side.world)] if mine else None
    dist.gather(side.random(5), gathered, 1, side.group)
    return [scattered, *(gathered or [])]


def all_to_all(side: Side) -> Outcome:
    even, uneven = side.empty(side.world * 70_001), side.empty(sum(range(1, side.world + 1)) * 60_000)
    dist.all_to_all_single(even, side.random(side.world * 70_001), group=side.group)
    # Rank r sends to rank q (r + q) mod world + 1 blocks.
    blocks = [((side.rank + rank) % side.world + 1) * 60_000 for rank in range(side.world)]
    dist.all_to_all_single(uneven, side.random(sum(blocks)), blocks, blocks, group=side.group)
    return [even, uneven]


def messages(side: Side) -> Outcome:
    received = [side.empty(LARGE) for _ in range(2)]
    after, before = (side.rank + 1) % side.world, (side.rank - 1) % side.world
    if side.rank % 2:
        dist.recv(received[0], before, side.group)
        dist.send(side.random(LARGE), after, side.group)
    else:
        dist.send(side.random(LARGE), after, side.group)
        dist.recv(received[0], before, side.group)
    batch = [
        dist.P2POp(dist.isend, side.random(LARGE), before, side.group),
        dist.P2POp(dist.irecv, received[1], after, side.group),
    ]
    for work in dist.batch_isend_irecv(batch):
        work.wait()
    return received


def objects(side: Side) -> Outcome:
    sent = [{"rank": side.rank, "text": "x" * 1000}, side.rank] if side.rank == 1 else [None, None]
    dist.broadcast_object_list(sent, 1, side.group)
    gathered: list[Any] = [None] * side.world
    dist.all_gather_object(gathered, ("rank", side.rank), side.group)
    return [sent, gathered]


CASES = [
    all_reduce, all_reduce_bfloat16, reduce, reduce_scatter, broadcast, all_gather, scatter_and_gather,
    all_to_all, messages, objects,
]  # fmt: skip


def on_both(rank: int, world: int, store: str) -> dict[str, list[Outcome]]:
    """Run each case on the device with HCCL and on the CPU with gloo."""
    outcomes = {}
    with group(rank, world, store):
        sides = Side("npu", None), Side("cpu", dist.new_group(backend="gloo"))
        for case in CASES:
            outcomes[case.__name__] = [[_on_host(result) for result in case(side)] for side in sides]
    return outcomes


def _on_host(result: Any) -> Any:
    return result.cpu() if isinstance(result, torch.Tensor) else result


@pytest.fixture(scope="module", params=[2, 4])
def outcomes(four: list[Process], request: pytest.FixtureRequest) -> list[dict[str, list[Outcome]]]:
    """Return what each rank of a group of two or four has."""
    return on_each(four[: request.param], on_both)


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_results_are_those_of_gloo(outcomes: list[dict[str, list[Outcome]]], case: str) -> None:
    for npu, cpu in (of_rank[case] for of_rank in outcomes):
        for ours, theirs in zip(npu, cpu, strict=True):
            if not isinstance(theirs, torch.Tensor):
                assert ours == theirs
            elif theirs.dtype.is_floating_point:
                # gloo adds in another order, and rounds half precision after each addition.
                torch.testing.assert_close(ours, theirs, **of_sum(theirs.dtype, len(outcomes), magnitude=8))
            else:
                assert torch.equal(ours, theirs)


def reduce_exactly(rank: int, world: int, store: str) -> list[list[torch.Tensor]]:
    """Return the input of this rank, twice the sum of all, and the sum of part of the ranks."""
    results = []
    with group(rank, world, store):
        side = Side("npu", None)
        parts = [dist.new_group(ranks) for ranks in ([0, 2], [1, 3])]
        for dtype in (torch.float32, *HALF, torch.int16):
            mine = side.random(1000, dtype=dtype)
            sums = [mine.clone() for _ in range(3)]
            for total, within in zip(sums, (None, None, parts[rank % 2]), strict=True):
                dist.all_reduce(total, group=within)
            results.append([mine.cpu(), *(total.cpu() for total in sums)])
    return results


def test_ranks_add_in_their_order_and_round_once(four: list[Process]) -> None:
    for of_ranks in zip(*on_each(four, reduce_exactly), strict=True):
        inputs = [mine for mine, *_ in of_ranks]
        for rank, (mine, once, again, part) in enumerate(of_ranks):
            exact = torch.float32 if mine.dtype.is_floating_point else mine.dtype

            def total(terms: list[torch.Tensor], to: torch.dtype = exact) -> torch.Tensor:
                first, *others = (term.to(to) for term in terms)
                return sum(others, first).to(terms[0].dtype)

            assert torch.equal(once, total(inputs))
            assert torch.equal(again, once)
            assert torch.equal(part, total(inputs[rank % 2 :: 2]))


def reduce_what_a2_does_not(rank: int, world: int, store: str) -> dict[str, str]:
    with group(rank, world, store):
        return {
            "bfloat16": error_of(dist.all_reduce, torch.ones(2, dtype=torch.bfloat16, device="npu"), PRODUCT),
            "int16": error_of(dist.all_reduce, torch.ones(2, dtype=torch.int16, device="npu"), PRODUCT),
            "float64": error_of(dist.all_reduce, torch.ones(2, dtype=torch.float64, device="npu")),
        }


def test_an_unsupported_reduction_is_an_error(four: list[Process]) -> None:
    for errors in on_each(four[:2], reduce_what_a2_does_not):
        assert "error code is 5" in errors["bfloat16"]
        assert "error code is 5" in errors["int16"]
        assert "Unsupported data type at::kDouble" in errors["float64"]


def gather_in_other_ways(rank: int, world: int, store: str) -> dict[str, list[torch.Tensor]]:
    """Gather tensors of other lengths, and several at once: gloo has neither."""
    with group(rank, world, store):
        side = Side("npu", None)
        uneven = [side.empty(length) for length in range(1, world + 1)]
        dist.all_gather(uneven, torch.full((rank + 1,), float(rank), device="npu"))
        together = [side.empty(world * length) for length in (3, 4)]
        with dist._coalescing_manager(device=torch.device("npu", 0)):
            for result in together:
                dist.all_gather_into_tensor(
                    result, torch.full((len(result) // world,), float(rank), device="npu")
                )
        exchanged = side.empty(2)
        with dist._coalescing_manager(device=torch.device("npu", 0)):
            dist.isend(torch.full((2,), float(rank), device="npu"), (rank + 1) % world)
            dist.irecv(exchanged, (rank - 1) % world)
        return {
            "uneven": [result.cpu() for result in uneven],
            "together": [result.cpu() for result in together],
            "exchanged": [exchanged.cpu()],
        }


def test_uneven_and_coalesced_calls(four: list[Process]) -> None:
    for rank, results in enumerate(on_each(four, gather_in_other_ways)):
        assert [result.tolist() for result in results["uneven"]] == [[r] * (r + 1) for r in range(4)]
        assert [len(result) for result in results["together"]] == [12, 16]
        for result in results["together"]:
            assert result.view(4, -1).unique(dim=1).flatten().tolist() == [0, 1, 2, 3]
        assert results["exchanged"][0].tolist() == [(rank - 1) % 4] * 2


def join(rank: int, world: int, store: str, megabytes: int | None = None) -> None:
    import torch_npu

    options = None
    if megabytes:
        options = torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
        options.hccl_config = {"hccl_buffer_size": megabytes}
    dist.init_process_group(
        "hccl", init_method=f"file://{store}", rank=rank, world_size=world, pg_options=options
    )


def add(*_: Any) -> None:
    dist.all_reduce(torch.ones(1, device="npu"))


def add_in_pairs(rank: int, *_: Any) -> None:
    groups = [dist.new_group([0, 1]), dist.new_group([2]), dist.new_group([3])]
    dist.all_reduce(torch.ones(1, device="npu"), group=groups[max(rank - 1, 0)])


def send(rank: int, *_: Any) -> None:
    tensor = torch.ones(1, device="npu")
    if rank < 2:
        dist.send(tensor, 1) if rank == 0 else dist.recv(tensor, 0)


def buffers(machine: Machine) -> list[int]:
    """Return the bytes that HCCL holds of each chip."""
    return [
        sum(nbytes for (_, kind), nbytes in machine.holders(chip).items() if kind == "hccl")
        for chip in range(4)
    ]


def test_a_communicator_holds_its_buffers_from_its_first_use_to_its_end(
    machine: Machine, four: list[Process]
) -> None:
    steps = (
        (join, [0, 0, 0, 0]),
        (add, [BUFFERS] * 4),
        (add, [BUFFERS] * 4),
        # A group of one rank needs no buffers.
        (add_in_pairs, [2 * BUFFERS, 2 * BUFFERS, BUFFERS, BUFFERS]),
        # torch_npu has a separate communicator for the messages between two ranks.
        (send, [3 * BUFFERS, 3 * BUFFERS, BUFFERS, BUFFERS]),
        (leave, [0, 0, 0, 0]),
    )
    for _ in range(2):
        for step, held in steps:
            on_each(four, step)
            assert buffers(machine) == held, step.__name__


def add_with_buffers_of_8_megabytes(rank: int, world: int, store: str) -> None:
    join(rank, world, store, megabytes=8)
    add()


def test_the_size_of_buffers_is_an_option_of_the_group(machine: Machine, four: list[Process]) -> None:
    on_each(four[:2], add_with_buffers_of_8_megabytes)
    assert buffers(machine) == [17 * MIB, 17 * MIB, 0, 0]


def error_of_full_chip(rank: int, world: int, store: str) -> str:
    join(rank, world, store, megabytes=200)
    return error_of(add)


def test_buffers_that_do_not_fit_are_an_error(machine: Machine, four: list[Process]) -> None:
    assert all("error code is 24" in error for error in on_each(four[:2], error_of_full_chip))
    assert buffers(machine) == [0] * 4


def error_of_some(rank: int, world: int, store: str, ranks: list[int]) -> str:
    """Return the error of a collective that only some ranks call."""
    return error_of(add) if rank in ranks else ""


def set_variable(rank: int, world: int, store: str, name: str, value: str) -> None:
    """Set what HCCL reads when a communicator is created."""
    os.environ[name] = value


@pytest.fixture
def pair(four: list[Process], request: pytest.FixtureRequest) -> Iterator[list[Process]]:
    """Two ranks that have joined a group and wait only a second, in what the parameter names."""
    on_each(four[:2], set_variable, request.param, "1")
    on_each(four[:2], join)
    yield four[:2]
    on_each(four[:2], set_variable, request.param, "120")


@pytest.mark.parametrize("pair", ["HCCL_CONNECT_TIMEOUT"], indirect=True)
def test_a_rank_that_never_connects_is_a_time_out(pair: list[Process]) -> None:
    assert "error code is 9" in on_each(pair, error_of_some, [0])[0]


@pytest.mark.parametrize("pair", ["HCCL_EXEC_TIMEOUT"], indirect=True)
def test_a_rank_that_is_not_in_a_collective_is_a_time_out(pair: list[Process]) -> None:
    on_each(pair, add)
    assert "error code is 9" in on_each(pair, error_of_some, [0])[0]
    # The communicator is of no use any more.
    assert all("error code is 9" in error for error in on_each(pair, error_of_some, [0, 1]))


def test_a_call_fails_on_request(machine: Machine, four: list[Process]) -> None:
    on_each(four[:2], join)
    machine.fail("HcclCommInitRootInfoConfig", 9, count=2)
    assert all("error code is 9" in error for error in on_each(four[:2], error_of_some, [0, 1]))


def error_of_other_call(rank: int, world: int, store: str) -> str:
    with group(rank, world, store):
        return error_of(add) if rank == 0 else error_of(dist.broadcast, torch.ones(1, device="npu"), 0)


def test_ranks_in_different_collectives_get_an_error(four: list[Process]) -> None:
    assert all("error code is 1" in error for error in on_each(four[:2], error_of_other_call))


def wait_for_the_last(rank: int, world: int, store: str, doomed: int) -> str:
    """Wait in a collective for a process that is killed."""
    join(rank, world, store)
    add()
    if os.getpid() == doomed:
        os.kill(doomed, signal.SIGKILL)
    return error_of(add)


def test_a_killed_rank_ends_the_wait_of_the_others(
    machine: Machine, four: list[Process], tmp_path_factory: pytest.TempPathFactory
) -> None:
    last = machine.start(tmp_path_factory.mktemp("killed"), "2", **ENVIRONMENT)
    store = new_store(last.directory)
    for rank, process in enumerate([*four[:2], last]):
        process.begin(wait_for_the_last, rank, 3, store, last.popen.pid)
    last.popen.wait()
    for process in four[:2]:
        assert process.connection.poll(60), "it waits until the time-out"
        assert "error code is 9" in process.end()
    # What the killed process held is free.
    assert buffers(machine) == [BUFFERS, BUFFERS, 0, 0]
    last.close()
