"""Codes are explained by the table only, and each entry of the table has a source."""

from __future__ import annotations

import pytest

from vimectl.doctor.facts import error_codes
from vimectl.doctor.facts.error_codes import dcmi_code, explain
from vimectl.util.host import CommandResult


@pytest.mark.parametrize(
    ("code", "text", "dcmi", "parts"),
    [
        (187, "dcmi module initialize failed. ret is -8005", -8005, ["-8005: internal error", "#2698"]),
        (187, "", -8005, ["-8005: internal error", "#2698"]),  # the exit status is the low byte
        (
            172,
            "DrvMngGetConsoleLogLevel failed. (ret=87)\n",
            -8020,
            ["cannot ask", "87: the dev", "-8020", "#632"],
        ),
        (1, "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)", None, ["cannot ask"]),
        (1, "dcmi module initialize failed. ret is -9005", -9005, ["-9005: not a known code of dcmi"]),
        (127, "npu-smi: not found", None, []),
        (127, "npu-smi: error while loading shared libraries: libdcmi.so: cannot", None, ["find libdcmi.so"]),
        (124, "", None, []),
        (3, "Segmentation fault", None, []),
    ],
)
def test_explanations(code: int, text: str, dcmi: int | None, parts: list[str]) -> None:
    for answer in (CommandResult(code, text), CommandResult(code, "", text)):
        assert dcmi_code(answer) == dcmi
        found = explain(answer)
        assert len(found) == len(parts)
        assert all(part in one for part, one in zip(parts, found, strict=True))


def test_low_byte_of_each_code_is_its_own() -> None:
    table = error_codes._table()
    assert len({int(code) % 256 for code in table["dcmi"]["codes"]}) == len(table["dcmi"]["codes"])


def test_every_entry_has_a_source() -> None:
    table = error_codes._table()
    assert all(table[kind]["source"] for kind in ("dcmi", "driver"))
    assert all(message["source"] for message in table["messages"].values())
    assert all("#" in report for report in table["reports"].values())
