from __future__ import annotations

import pytest
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.weight_sync.transport import Copies, Place, copies

ON_CHIP, IN_MEMORY, NONE = Copies(True, False), Copies(False, True), Copies(False, False)


def places(*chips: str, machine: str = "m1") -> list[Place]:
    return [Place(machine, chip) for chip in chips]


def test_engines_on_the_same_chips_read_there() -> None:
    ranks = places("c0", "c1") + places("c2", "c3", machine="m2")
    assert copies(ranks, ranks) == [ON_CHIP] * 4


def test_several_engines_and_another_tensor_parallelism_change_nothing() -> None:
    # Trainer TP=2 twice, four engines of one worker: every worker has the chip of some rank.
    ranks = places("c0", "c1", "c2", "c3")
    assert copies(ranks, [*reversed(ranks)]) == [ON_CHIP] * 4


def test_a_chip_that_nobody_reads_gets_no_copy() -> None:
    assert copies(places("c0", "c1"), places("c1")) == [NONE, ON_CHIP]


def test_engines_on_other_chips_read_one_copy_in_the_memory_of_their_machine() -> None:
    ranks = places("c0", "c1") + places("c2", "c3", machine="m2")
    assert copies(ranks, places("c4", "c5", machine="m2")) == [NONE, NONE, IN_MEMORY, NONE]
    mixed = copies(ranks, places("c0", "c7") + places("c2", machine="m2"))
    assert mixed == [Copies(True, True), NONE, ON_CHIP, NONE]


def test_engines_out_of_reach_are_refused_before_the_first_update() -> None:
    with pytest.raises(
        MissingRequirement, match="an engine worker on m3 has neither device nor machine in common"
    ):
        copies(places("c0"), places("c0") + places("c1", machine="m3"))
