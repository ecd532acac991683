"""Images read from the archives that builders write: layers, the digest of the tree, and damaged archives."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.images.saved_image import SavedImage, tree_digest

CONFIG = {
    "architecture": "arm64",
    "config": {"Env": ["PATH=/bin", "A=b=c"], "Labels": {"vimectl.stack": "own"}, "User": "1001:1000"},
}
# What a member of a layer is: a file's content, or the type and the link's target.
Entry = bytes | tuple[bytes, str]
DIRECTORY: Entry = (tarfile.DIRTYPE, "")


def _add(tar: tarfile.TarFile, name: str, entry: Entry, **fields: int) -> None:
    member = tarfile.TarInfo(name)
    content = entry if isinstance(entry, bytes) else b""
    if not isinstance(entry, bytes):
        member.type, member.linkname = entry
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def layer(entries: dict[str, Entry], **fields: int) -> bytes:
    """Return a layer; ``fields`` are those of all its members."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, entry in entries.items():
            _add(tar, name, entry, **fields)
    return packed.getvalue()


def archive(folder: Path, layers: list[bytes], names: list[str] | None = None) -> list[str]:
    """Write the archive of an image; return the command that prints it."""
    names = names or [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [], "Layers": names}]
    with tarfile.open(folder / "image.tar", "w") as tar:
        # Docker writes the layers in the order of their digests.
        for number, content in reversed([*enumerate(layers)]):
            _add(tar, f"{number}.tar", content)
        _add(tar, "old/VERSION", b"1.0")
        _add(tar, "old/layer.tar", (tarfile.SYMTYPE, "../0.tar"))
        _add(tar, "config.json", json.dumps(CONFIG).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    return ["cat", str(folder / "image.tar")]


def extracted(folder: Path, layers: list[dict[str, Entry]]) -> dict[str, str]:
    """Return the regular files of an image with their content."""
    root = folder / "root"
    root.mkdir()
    SavedImage(archive(folder, [layer(entries) for entries in layers])).extract(root)
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): path.read_text() for path in found}


def test_configuration_and_kept_files(tmp_path: Path) -> None:
    layers = [layer({"./a/b": b"old", "a/c": b"c"}), layer({"a/b": b"new", "a/.wh.c": b""})]
    found = SavedImage(archive(tmp_path, layers), keep=["a/b", "a/c", "none"])
    assert found.kept == {"a/b": b"new"}
    assert found.configuration.environment == {"PATH": "/bin", "A": "b=c"}
    assert found.configuration.labels == {"vimectl.stack": "own"}
    assert (found.configuration.user, found.configuration.machine) == ("1001:1000", "arm64")


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ({"a": b"1"}, {"a": b"2"}, {"a": "2"}),
        ({"a": b"1", "b": b"1"}, {".wh.a": b""}, {"b": "1"}),
        ({"d/a": b"1", "d/e/b": b"1"}, {".wh.d": b""}, {}),
        ({"d/a": b"1"}, {"d": DIRECTORY, "d/.wh..wh..opq": b"", "d/b": b"2"}, {"d/b": "2"}),
        # A whiteout hides lower layers alone, wherever it is in its layer.
        ({"d/a": b"1"}, {"d/b": b"2", "d/.wh..wh..opq": b"", ".wh.none": b""}, {"d/b": "2"}),
        ({"d/a": b"1"}, {"d": b"2"}, {"d": "2"}),
        ({"d": b"1"}, {"d": DIRECTORY, "d/a": b"2"}, {"d/a": "2"}),
        # A hard link keeps the content that its file has in the same layer.
        ({"a": b"1", "b": (tarfile.LNKTYPE, "a")}, {"a": b"2"}, {"a": "2", "b": "1"}),
        ({"a": b"1"}, {"a": b"2", "./b": (tarfile.LNKTYPE, "./a")}, {"a": "2", "b": "2"}),
        ({"a": b"1", "b": (tarfile.LNKTYPE, "a")}, {".wh.a": b""}, {"b": "1"}),
    ],
)
def test_layers_are_applied_in_order(
    lower: dict[str, Entry], upper: dict[str, Entry], expected: dict[str, str], tmp_path: Path
) -> None:
    assert extracted(tmp_path, [lower, upper]) == expected


def test_layer_under_its_older_name_and_compressed(tmp_path: Path) -> None:
    content = gzip.compress(layer({"a": b"1"}))
    command = archive(tmp_path, [content + bytes(512)], ["old/layer.tar"])
    assert SavedImage(command, keep=["a"]).kept == {"a": b"1"}


def test_no_file_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    layers: list[dict[str, Entry]] = [{"out": (tarfile.SYMTYPE, str(outside))}, {"out/file": b"1"}]
    with pytest.raises(CheckFailed, match="out is below a file"):
        extracted(tmp_path, layers)
    for name in ("../outside/file", "a/../../outside/file"):
        with pytest.raises(CheckFailed, match="is outside"):
            SavedImage(archive(tmp_path, [layer({name: b"1"})]))
    assert not [*outside.iterdir()]


def test_files_can_be_read_and_removed_by_their_owner(tmp_path: Path) -> None:
    content = layer({"closed": DIRECTORY, "closed/file": b"1"}, mode=0)
    (tmp_path / "root").mkdir()
    SavedImage(archive(tmp_path, [content])).extract(tmp_path / "root")
    assert (tmp_path / "root/closed/file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "root/closed").stat().st_mode & 0o700 == 0o700


def _truncate(folder: Path) -> None:
    os.truncate(folder / "image.tar", (folder / "image.tar").stat().st_size // 3)


def _without_layer(folder: Path) -> None:
    archive(folder, [layer({"a": b"1"})], ["1.tar"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "image.tar: unexpected end of data"),
        (lambda folder: (folder / "image.tar").write_bytes(b""), "image.tar: empty file"),
        (lambda folder: (folder / "image.tar").unlink(), "image.tar: cat: .*No such file or directory"),
        (_without_layer, "not the archive of one image: KeyError"),
        (lambda folder: archive(folder, [b"x" * 1024]), "image.tar: invalid header"),
        (
            lambda folder: archive(folder, [layer({"a": (tarfile.LNKTYPE, "b")})]),
            "not the archive of one image",
        ),
    ],
)
def test_damaged_archive_is_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    command = archive(tmp_path, [layer({"a": b"1" * 100_000})])
    damage(tmp_path)
    with pytest.raises(CheckFailed, match=message):
        SavedImage(command)


def test_failure_after_the_archive_is_an_error(tmp_path: Path) -> None:
    command = archive(tmp_path, [layer({"a": b"1"})])
    with pytest.raises(CheckFailed, match="the disk failed"):
        SavedImage(["sh", "-c", f"cat {command[1]}; echo the disk failed >&2; exit 1"])


# The lines of the tree digest.


def lines(folder: Path, entries: dict[str, Entry], **fields: int) -> list[str]:
    root = folder / f"root-{len(os.listdir(folder))}"
    root.mkdir()
    return SavedImage(archive(folder, [layer(entries, **fields)])).extract(root)


FILES: dict[str, Entry] = {
    "folder": DIRECTORY,
    "folder/file": b"content",
    "folder/link": (tarfile.SYMTYPE, "a b"),
    "null": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
    "same": (tarfile.LNKTYPE, "folder/file"),
}


def test_line_format(tmp_path: Path) -> None:
    digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # of "content"
    assert lines(tmp_path, FILES, mode=0o640, uid=5, gid=6, devmajor=1, devminor=3) == [
        "d 0640 5:6 - folder",
        f"- 0640 5:6 {digest} folder/file",
        "l 0640 5:6 a\\x20b folder/link",
        "c 0640 5:6 1:3 null",
        "p 0640 5:6 - pipe",
        f"- 0640 5:6 {digest} same",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"folder/file": b"other"},
        {"folder/link": (tarfile.SYMTYPE, "other")},
        {"folder/link": b"a b"},
        {"empty": DIRECTORY},
    ],
)
def test_digest_changes_with_an_entry(change: dict[str, Entry], tmp_path: Path) -> None:
    assert tree_digest(lines(tmp_path, FILES | change)) != tree_digest(lines(tmp_path, FILES))


@pytest.mark.parametrize(
    ("field", "changes"), [("mode", True), ("uid", True), ("gid", True), ("mtime", False)]
)
def test_digest_changes_with_a_field(field: str, changes: bool, tmp_path: Path) -> None:
    found = tree_digest(lines(tmp_path, FILES, **{field: 7}))
    assert (found != tree_digest(lines(tmp_path, FILES, **{field: 5}))) == changes


def test_escaped_names_are_unique(tmp_path: Path) -> None:
    names = (b"a b", b"a\nb", b"a\xff", b"a\\xff", b"a\\x20b", b"a\\x0ab", b"a\\\\xff")
    found = lines(tmp_path, {os.fsdecode(name): b"" for name in names})
    assert len({line.split(" ", 4)[4] for line in found}) == 7
    assert all("\n" not in line and line.count(" ") == 4 for line in found)
