from __future__ import annotations

import base64
import quopri
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.sources import PatchSource, read_sources

DIFF = b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-caf\xe9 = 1\n+caf\xe9 = 2\n"
HEAD = b"From: A <a@x>\nDate: Mon, 2 Nov 2026 10:00:00 +0000\nSubject: [PATCH] change\n x\n"
ENVELOPE = b"From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
MAIL = ENVELOPE + HEAD + b"\nwords\n---\n x | 2 +-\n\n" + DIFF + b"-- \n2.39.5\n\n"


def read(tmp_path: Path, data: bytes, name: str = "0001-x.patch") -> list[PatchSource]:
    (tmp_path / name).write_bytes(data)
    return read_sources(tmp_path / name)


@pytest.mark.parametrize("data", [MAIL, MAIL.removeprefix(ENVELOPE), b"\xef\xbb\xbf" + MAIL])
def test_head_of_a_mail_is_separated_from_its_text(tmp_path: Path, data: bytes) -> None:
    (source,) = read(tmp_path, data)
    assert source.mail
    assert source.mail["Subject"] == "[PATCH] change x"
    assert source.data.startswith(b"words\n")
    assert data.split(b"\n")[source.first_line - 1] == b"words"
    assert (source.name, source.encoded) == ("0001-x", False)


def test_crlf_mail_loses_its_carriage_returns(tmp_path: Path) -> None:
    (source,) = read(tmp_path, MAIL.replace(b"\n", b"\r\n"))
    (plain,) = read(tmp_path, MAIL)
    assert (source.data, source.first_line) == (plain.data, plain.first_line)


@pytest.mark.parametrize(
    ("encoding", "encode"), [("base64", base64.encodebytes), ("quoted-printable", quopri.encodestring)]
)
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_encoded_mail_is_decoded_to_bytes(
    tmp_path: Path, encoding: str, encode: object, ending: bytes
) -> None:
    fields = f"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: {encoding}\n".encode()
    assert callable(encode)
    mail = HEAD + fields + b"\n" + encode(DIFF)
    (source,) = read(tmp_path, mail.replace(b"\n", ending))
    assert (source.data, source.encoded, source.first_line) == (DIFF, True, 1)


def test_every_part_with_a_diff_is_kept(tmp_path: Path) -> None:
    kinds = [
        (b"text/plain", b"words\n"),
        (b"text/html", b"<p>words</p>\n"),
        (b"application/octet-stream", DIFF),
        (b"text/x-patch", DIFF.replace(b"/x", b"/y")),
    ]
    parts = b"".join(b"--=_1\nContent-Type: %s\n\n%s\n" % kind for kind in kinds)
    mail = (
        HEAD + b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_1"\n\n' + parts + b"--=_1--\n"
    )
    (source,) = read(tmp_path, mail)
    assert source.data == b"words\n" + DIFF + DIFF.replace(b"/x", b"/y")


def test_mailbox_has_one_patch_a_message(tmp_path: Path) -> None:
    data = MAIL + MAIL.replace(b"words", b"other")
    first, second = read(tmp_path, data, "all.mbox")
    assert (first.name, second.name) == ("", "")
    assert second.origin == f"{tmp_path}/all.mbox, message 2"
    assert second.data.startswith(b"other")
    assert data.split(b"\n")[second.first_line - 1] == b"other"


@pytest.mark.parametrize(
    "data",
    [
        b"Subject: [PATCH] x\n---\nIndex: x\nIDEA additional info:\n<+>UTF-8\n=====\n" + DIFF,
        b"Subject: x\n---\n" + DIFF + b"\n" + DIFF,
        b"Subject: Change a line\n Because.\nAuthor: A <a@x>\nBug-Debian: https://x/1\n\n" + DIFF,
        b"Description: x\nSubject: y\nFrom: a@x\n\n" + DIFF,
        b"From the beginning: words\n\n" + DIFF,
        b"words\n" + MAIL + MAIL,
        DIFF,
    ],
)
def test_other_text_is_kept_whole(tmp_path: Path, data: bytes) -> None:
    (source,) = read(tmp_path, data)
    assert (source.data, source.mail, source.first_line) == (data, None, 1)


def test_quilt_series_gives_order_and_strip_levels(tmp_path: Path) -> None:
    for name in ("a.patch", "b.diff", "sub/c.patch", "unlisted.patch"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(DIFF)
    (tmp_path / "series").write_bytes(
        b"# order\nb.diff -p0 # why\n\n  sub/c.patch -p 2\r\na.patch\na.patch -pab\n"
    )
    expected = [("b", 0), ("c", 2), ("a", None), ("a", 1)]
    for path in (tmp_path, tmp_path / "series"):
        assert [(one.name, one.strip) for one in read_sources(path)] == expected
    assert {one.strip for one in read_sources(tmp_path, 1)} == {1}
    (tmp_path / "series").unlink()
    assert [one.name for one in read_sources(tmp_path)] == ["a", "b", "unlisted"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.patch -R", "series:1: -R: only -p with a number is supported"),
        ("../a.patch", r"series:1: \.\./a\.patch is outside of the directory"),
        ("none.patch", "series:1: none.patch: no such file"),
        ("# nothing", "there are no patches here"),
    ],
)
def test_unusable_series_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.patch").write_bytes(DIFF)
    (tmp_path / "series").write_text(line)
    with pytest.raises(UsageError, match=message):
        read_sources(tmp_path)
