"""Port hunks and files; git and the blob ids of the new series confirm the result."""

from __future__ import annotations

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.toy_series import MORE, A, Make, change, lines, results
from vimectl.patches import series
from vimectl.patches.port.command import port_series


@pytest.mark.parametrize(
    ("new", "result"),
    [
        (A, "clean"),
        (change(A, ("y", "why")), "clean"),
        (MORE + A, "offset"),
        (change(A, ("b", "")), "offset"),
        (change(A, ("k", "kay")), "offset"),  # in place, but with other context
    ],
)
def test_hunk_follows_its_lines(toy: Make, new: bytes, result: str) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": new}, {"toy/a.py": change(A, ("m", "M N"))})
    outcome = one.port()
    assert results(outcome) == [("0001-p", result)]
    assert one.files() == {"toy/a.py": change(new, ("m", "M N"))}
    assert not one.conflicts.exists()


@pytest.mark.parametrize(
    "content",
    [b"a\r\nb\r\nm\r\nc\r\nd\r\ne\r\n", b"\xff\xfe\nm\n\xe9\nx\ny\nlast", b"m"],
    ids=["crlf", "latin", "one"],
)
def test_any_content_is_ported(toy: Make, content: bytes) -> None:
    patched, new = content.replace(b"m", b"M"), content.replace(b"e\r\n", b"e\r\nf\r\n")
    one = toy({"toy/a.py": content}, {"toy/a.py": new}, {"toy/a.py": patched})
    assert one.port().written == one.out
    assert one.files() == {"toy/a.py": new.replace(b"m", b"M")}


def test_header_and_series_of_the_port(toy: Make) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": MORE + A}, {"toy/a.py": change(A, ("m", "M"))})
    one.port()
    head = (one.out / "0001-p.patch").read_text().partition("---\n")[0].splitlines()
    assert head[0] == "Description: toy"
    assert head[1].startswith("Last-Update: 20")
    assert head[1] != "Last-Update: 2020-01-01"
    assert head[2:] == ["X-Vimectl-Ported-From: toy 1.0"]
    found = series.read(one.out)
    assert (found.package, found.version, found.module) == ("toy", "2.0", "toy")
    # A port of the port names only the last release.
    again = port_series("toy", "2.0", "2.0", [one.sources[1]] * 2, one.folder / "again", None, one.out)
    text = (one.folder / "again" / "0001-p.patch").read_text()
    assert text.count("X-Vimectl-Ported-From:") == text.count("Ported-From: toy 2.0") == 1
    assert results(again) == [("0001-p", "clean")]


@pytest.mark.parametrize(
    "new",
    [
        change(A, ("m", "M")),
        MORE + change(A, ("m", "M"), ("z", "zed")),
        change(A, ("m", "M"), ("n", "en")),  # a conflict for git alone
    ],
)
def test_upstream_patch_is_left_out(toy: Make, new: bytes) -> None:
    other = {"toy/b.py": change(A, ("c", "C"))}
    one = toy(
        {"toy/a.py": A, "toy/b.py": A},
        {"toy/a.py": new, "toy/b.py": A},
        {"toy/a.py": change(A, ("m", "M"))},
        other,
    )
    outcome = one.port()
    assert results(outcome) == [("0001-p", "upstream"), ("0002-p", "clean")]
    assert outcome.patches[0].left_out == "toy 2.0 has it"
    assert [path.name for path in sorted(one.out.iterdir())] == ["0002-p.patch", "series", "series.toml"]
    assert one.files() == other


def test_upstream_hunk_is_left_out(toy: Make) -> None:
    new = MORE + change(A, ("c", "C"), ("d", "dee"))
    one = toy({"toy/a.py": A}, {"toy/a.py": new}, {"toy/a.py": change(A, ("c", "C"), ("w", "W"))})
    outcome = one.port()
    (file,) = outcome.patches[0].files
    assert (file.result, file.note) == ("offset", "toy 2.0 has what was changed at line 3")
    assert one.files() == {"toy/a.py": change(new, ("w", "W"))}


GUARD = ("    if condition(one, two):", "    if condition(one, two) and not colocated():")


def guarded(before: bytes = A, after: bytes = A, lines: tuple[str, str] = GUARD) -> tuple[bytes, bytes]:
    """Return a file with a line to be patched, and the patched file."""
    old, new = (before + line.encode() + b"\n" + after for line in lines)
    return old, new


OTHER_WAY = guarded(lines=("    old_condition(one, two)", "    new_way(one, two)"))


@pytest.mark.parametrize("elsewhere", [None, "toy/sibling.py", "toy/deep/new.py"])
def test_condition_on_removed_code(toy: Make, elsewhere: str | None) -> None:
    old, patched = guarded()
    siblings = {"toy/sibling.py": MORE, elsewhere or "toy/c.py": MORE + GUARD[0].encode() + b"\n"}
    siblings |= {} if elsewhere else {"toy/c.py": MORE}
    new = {"toy/a.py": change(A, ("y", "")) + A, **siblings}
    # Another hunk remains, so that the patch does.
    one = toy({"toy/a.py": old, "toy/sibling.py": MORE}, new, {"toy/a.py": change(patched, ("c", "C"))})
    (file,) = one.port().patches[0].files
    if elsewhere:
        assert file.result == "conflict"
        assert file.note.endswith(f"what was changed at line 27 is in {elsewhere} now")
    else:
        assert file.note == "toy 2.0 no longer has what was changed at line 27"


@pytest.mark.parametrize(
    ("old", "new", "patched"),
    [
        (OTHER_WAY[0], change(A, ("y", "")) + A, OTHER_WAY[1]),  # it replaces code that was removed
        # "l" and "n" are adjacent in another place; the line to be deleted was rewritten.
        (A, change(A, ("m", "em")) + lines("l", "n"), change(A, ("m", ""))),
        (b"a\n===========\nx\n", b"c\n===========\nz\n", b"b\n===========\ny\n"),  # a heading is no marker
    ],
)
def test_ambiguous_hunk_is_a_conflict(toy: Make, old: bytes, new: bytes, patched: bytes) -> None:
    one = toy({"toy/a.py": old}, {"toy/a.py": new}, {"toy/a.py": patched})
    assert results(one.port()) == [("0001-p", "conflict")]
    marked = (one.conflicts / "0001-p" / "toy" / "a.py").read_bytes()
    assert marked.count(b"<<<<<<<") == (2 if b"=====" in old else 1)


def test_imports_in_one_place_are_joined(toy: Make) -> None:
    old = b"import ast\nfrom types import NoneType\n" + A
    new = b"import ast\nimport zlib\nfrom contextlib import suppress\nfrom types import NoneType\n" + A
    one = toy({"toy/a.py": old}, {"toy/a.py": new}, {"toy/a.py": old.replace(b"ast\n", b"ast\nimport os\n")})
    assert results(one.port()) == [("0001-p", "offset")]
    assert one.files() == {"toy/a.py": new.replace(b"import zlib", b"import os\nimport zlib")}


def test_conflict_is_marked_resolved_and_continued(toy: Make) -> None:
    first, second = change(A, ("m", "M")), change(A, ("m", "M"), ("n", "N"))
    new = change(A, ("m", "em"))
    one = toy(
        {"toy/a.py": A}, {"toy/a.py": new}, {"toy/a.py": first}, {"toy/a.py": second, "toy/new.py": b"x\n"}
    )
    outcome = one.port()
    assert results(outcome) == [("0001-p", "conflict"), ("0002-p", "conflict")]
    assert "0001-p, whose conflict" in outcome.patches[1].files[0].note
    assert not one.out.exists()
    marked = one.conflicts / "0001-p" / "toy/a.py"
    assert b"<<<<<<< toy 2.0\nem\n||||||| toy 1.0\nm\n=======\nM\n>>>>>>> 0001-p\n" in marked.read_bytes()
    assert not (one.conflicts / "0002-p" / "toy/a.py").exists()
    assert outcome.command in (one.conflicts / "README.txt").read_text()

    with pytest.raises(UsageError, match=r"a\.py:13: still a conflict marker"):
        one.port(one.conflicts)
    marked.write_bytes(change(new, ("em", "EM")))
    # The second patch changes the next line, which now conflicts as well.
    outcome = one.port(one.conflicts)
    assert results(outcome) == [("0001-p", "offset"), ("0002-p", "conflict")]
    wanted = change(new, ("em", "EM"), ("n", "N"))
    (one.conflicts / "0002-p" / "toy/a.py").write_bytes(wanted)
    outcome = one.port(one.conflicts)
    assert results(outcome) == [("0001-p", "offset"), ("0002-p", "offset")]
    assert one.files() == {"toy/a.py": wanted, "toy/new.py": b"x\n"}


def test_patch_dropped_by_the_user(toy: Make) -> None:
    one = toy({"toy/a.py": A}, {"toy/a.py": change(A, ("m", "em"))}, {"toy/a.py": change(A, ("m", "M"))})
    one.port()
    (one.conflicts / "0001-p" / "DROP").write_text('2.0 does it "otherwise"\n')
    outcome = one.port(one.conflicts)
    assert outcome.patches[0].left_out == '2.0 does it "otherwise"'
    assert series.read(one.out).unneeded == {"p": '2.0 does it "otherwise"'}


@pytest.mark.parametrize("kept", [A, change(A, ("y", "why"))])
def test_renamed_file_is_detected(toy: Make, kept: bytes) -> None:
    old = {"toy/deep/worker.py": A, "toy/b.py": A}
    new = {"toy/b.py": A, "toy/x.py": A, "toy/other/worker.py": kept}
    old["toy/x.py"] = A  # existed before: it cannot be the renamed file
    one = toy(
        old,
        new,
        {"toy/deep/worker.py": change(A, ("m", "M"))},
        {"toy/deep/worker.py": change(A, ("m", "M Q"))},
    )
    outcome = one.port()
    note = outcome.patches[0].files[0].note
    assert "toy 2.0 does not have toy/deep/worker.py; toy/other/worker.py is " in note
    assert "% similar" in note
    found = one.conflicts / "0001-p" / "toy/other/worker.py"
    assert found.read_bytes() == change(kept, ("m", "M"))
    outcome = one.port(one.conflicts)
    assert results(outcome) == [("0001-p", "offset"), ("0002-p", "clean")]
    assert one.files() == {"toy/other/worker.py": change(kept, ("m", "M Q"))}


def test_removed_file_is_a_conflict(toy: Make) -> None:
    one = toy({"toy/a.py": A}, {"toy/z.py": MORE}, {"toy/a.py": change(A, ("m", "M"))})
    outcome = one.port()
    assert outcome.patches[0].files[0].note == (
        "toy 2.0 does not have toy/a.py, nor another new file that is similar"
    )
    # The user chooses another file.
    place = one.conflicts / "0001-p" / "toy" / "z.py"
    place.parent.mkdir()
    place.write_bytes(MORE + b"M\n")
    assert results(one.port(one.conflicts)) == [("0001-p", "offset")]
    assert one.files() == {"toy/z.py": MORE + b"M\n"}


@pytest.mark.parametrize(
    ("upstream", "result"), [(None, "clean"), (b"new\n", "upstream"), (b"other\n", "conflict")]
)
def test_created_file(toy: Make, upstream: bytes | None, result: str) -> None:
    new = {"toy/a.py": A, "toy/n.py": upstream}
    one = toy({"toy/a.py": A}, new, {"toy/n.py": b"new\n", "toy/a.py": change(A, ("m", "M"))})
    (a, n) = sorted(one.port().patches[0].files, key=lambda file: file.path)
    assert (a.result, n.result) == ("clean", result)
    if result != "conflict":
        assert one.files().get("toy/n.py", b"new\n") == b"new\n"


@pytest.mark.parametrize(("new", "result"), [(A, "clean"), (None, "upstream"), (MORE + A, "conflict")])
def test_deleted_file(toy: Make, new: bytes | None, result: str) -> None:
    one = toy({"toy/a.py": A, "toy/b.py": A}, {"toy/a.py": new, "toy/b.py": A}, {"toy/a.py": None})
    assert results(one.port()) == [("0001-p", result)]
    if result == "conflict":
        (one.conflicts / "0001-p" / "toy/a.py").write_bytes(b"")
        assert results(one.port(one.conflicts)) == [("0001-p", "offset")]
    if result != "upstream":
        assert one.files() == {"toy/a.py": None}


def test_unchanged_binary_files_are_ported(toy: Make) -> None:
    old, new = bytes(range(256)), bytes(range(255))
    release = {"toy/a.bin": old + b"\0", "toy/b.bin": old}
    one = toy({"toy/a.bin": old, "toy/b.bin": old}, release, {"toy/a.bin": new, "toy/b.bin": new})
    a, b = one.port().patches[0].files
    assert (a.result, a.note) == ("conflict", "it is not text: git cannot merge it")
    assert b.result == "clean"
    (one.conflicts / "0001-p" / "toy" / "a.bin").write_bytes(new + b"\0")
    one.port(one.conflicts)
    assert one.files() == {"toy/a.bin": new + b"\0", "toy/b.bin": new}
