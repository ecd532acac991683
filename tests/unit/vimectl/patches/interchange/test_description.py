from __future__ import annotations

import pytest

from vimectl.patches.interchange.description import as_dep3, from_text


@pytest.mark.parametrize(
    ("text", "header"),
    [
        (
            "Subject: [PATCH] Change a line\n Because.\nFrom: A <a@x.org>\nBug-Debian: https://bugs.example/1\n",
            "Description: Change a line\n Because.\nAuthor: A <a@x.org>\nBug-Debian: https://bugs.example/1\n",
        ),
        (
            "Description: Change a line\nOrigin: a,\n\tb\n\nForwarded: no\n\nMore text\n---\n",
            "Description: Change a line\n More text\nOrigin: a,\n\tb\nForwarded: no\n",
        ),
        (
            "#! /bin/sh /usr/share/dpatch/dpatch-run\nChange a line\n\n--- old ---\n\nIndex: pkg/a.py\n"
            + "=" * 67
            + "\n",
            "Description: Change a line\n --- old ---\n",
        ),
        ("", "Description: name\n"),
    ],
)
def test_text_above_a_diff_becomes_a_header(text: str, header: str) -> None:
    assert as_dep3(from_text(text, "name")) == header
