"""Listings of three driver generations, and malformed ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vimectl.doctor.facts import npu_smi
from vimectl.doctor.facts.npu_smi import Chip, ChipProcess
from vimectl.util.host import CommandResult, Host

LISTINGS = Path(__file__).parents[1] / "gallery" / "npu-smi"
FORMATS = ["24.1.0.3", "25.5.1", "26.0.rc1"]


def listing(name: str) -> str:
    return (LISTINGS / f"{name}.txt").read_text()


@pytest.mark.parametrize("version", FORMATS)
def test_cards_of_one_chip_are_read_in_every_format(version: str) -> None:
    found = npu_smi.parse(listing(f"{version}-a2"))
    assert (found.version, found.processes, found.unreadable) == (version, (), ())
    assert len(found.chips) == 8
    assert found.chips[2] == Chip(2, "910B1", "OK", 0, None, 3391, 65536)
    assert found.chips[2].label == "NPU 2"


@pytest.mark.parametrize("version", FORMATS)
def test_cards_of_two_chips_are_read_in_every_format(version: str) -> None:
    found = npu_smi.parse(listing(f"{version}-a3"))
    assert (found.version, found.processes, found.unreadable) == (version, (), ())
    assert [(chip.card, chip.chip, chip.physical) for chip in found.chips] == [
        (n // 2, n % 2, n) for n in range(16)
    ]
    assert found.chips[15].label == "NPU 7 chip 1"
    assert {chip.name for chip in found.chips} == {"Ascend910"}


def test_processes_are_read_with_and_without_the_column_of_26() -> None:
    assert npu_smi.parse(listing("25.5.1-a2-held")).processes == (
        ChipProcess(0, 0, 19334, "VLLMWorker_TP", 58472),
        ChipProcess(1, 0, 19341, "VLLMWorker_TP", 58472),
    )
    assert npu_smi.parse(listing("26.0.rc1-a3-held")).processes == (
        ChipProcess(7, 1, 632268, "python3.1", 35358),
    )


def test_chip_without_memory_is_not_an_unreadable_row() -> None:
    found = npu_smi.parse(listing("25.5.1-a2-no-memory"))
    assert (found.chips[5].health, found.chips[5].total, found.unreadable) == ("UNKNOWN", 0, ())


def test_health_of_a_chip_without_what_is_not_available(tmp_path: Path) -> None:
    text = "  Health Status : Alarm\n  Error Code : 80E01801\n  Error Information : NA\nx\n"
    answers = {"npu-smi info -t health -i 3 -c 1": CommandResult(0, text)}
    host = Host(tmp_path, {}, lambda argv, timeout: answers.get(" ".join(argv), CommandResult(1, text)))
    assert npu_smi.read_health(host, 3, 1) == {"Health Status": "Alarm", "Error Code": "80E01801"}
    assert npu_smi.read_health(host, 3, 0) == {}


def test_process_without_a_name() -> None:
    text = listing("25.5.1-a2-held").replace("VLLMWorker_TP", " " * 13)
    assert [process.name for process in npu_smi.parse(text).processes] == ["", ""]


@pytest.mark.parametrize(
    ("old", "new", "unreadable"),
    [
        ("3389 / 65536", "-    / -    ", "memory of NPU 0"),
        ("| npu-smi 25.5.1 ", "| smi            ", "version of npu-smi"),
        (
            "| 0                         | 0000:C1",
            "| x                         | 0000:C1",
            "second row of NPU 0",
        ),
    ],
)
def test_unreadable_field_is_named_and_the_rest_is_read(old: str, new: str, unreadable: str) -> None:
    text = listing("25.5.1-a2")
    assert old in text
    found = npu_smi.parse(text.replace(old, new, 1))
    assert unreadable in found.unreadable
    assert len(found.chips) >= 7


@pytest.mark.parametrize(
    "text", ["", "dcmi module initialize failed. ret is -8005", "|\n||\n|||\n", "\0" * 99]
)
def test_other_output_has_no_chip(text: str) -> None:
    found = npu_smi.parse(text)
    assert found.chips == ()
    assert "any chip" in found.unreadable


def test_huge_listing_is_truncated() -> None:
    row = "| 0     910B1               | OK            | " + "9 / 9 " * 20 + "|\n"
    assert len(npu_smi.parse(row * 100_000).unreadable) < 20_000
    assert npu_smi.parse(f"| {'9' * 100_000} 910B1 | OK | 1 |\n").chips == ()


@given(
    name=st.sampled_from(sorted(path.stem for path in LISTINGS.glob("*.txt"))),
    cuts=st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 40), st.text(max_size=20)), max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_listing_never_raises(name: str, cuts: list[tuple[int, int, str]]) -> None:
    text = listing(name)
    for start, length, inserted in cuts:
        text = text[:start] + inserted + text[start + length :]
    found = npu_smi.parse(text)
    assert len(found.chips) <= text.count("|")
    assert all(chip.used is None or chip.used >= 0 for chip in found.chips)


@given(st.text(alphabet="| 0123456789OKAscend910B/.:-\n²٣", max_size=400))
@settings(max_examples=500, deadline=None)
def test_any_text_is_accepted(text: str) -> None:
    npu_smi.parse(text)
