"""The features of processors, on described machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.cpu_features import CPUINFO, read_instructions
from vimectl.util.host import Host


def machine(root: Path, text: str) -> Host:
    (root / "proc").mkdir()
    (root / CPUINFO.lstrip("/")).write_text(text)
    return Host(root, {})


def test_features_are_those_of_all_processors(tmp_path: Path) -> None:
    text = "model name\t: Big\nflags\t\t: fpu avx avx2\n\nmodel name\t: Big\nflags\t\t: fpu avx\n"
    assert read_instructions(machine(tmp_path, text)) == ("Big", frozenset({"fpu", "avx"}))


def test_arm_processor_is_named_by_its_numbers(tmp_path: Path) -> None:
    text = "Features\t: fp atomics\nCPU implementer\t: 0x48\nCPU variant\t: 0x1\nCPU part\t: 0xd01\n"
    assert read_instructions(machine(tmp_path, text))[0] == "implementer 0x48, part 0xd01"


def test_other_architectures_have_no_list(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read_instructions(machine(tmp_path, "isa\t: rv64imafdc\n"))
