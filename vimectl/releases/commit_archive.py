"""Read the archive of a commit, and check it as git does: the commit id proves every name and byte in it.

The archive is a compressed tar with NAME-COMMIT.commit, which is the commit object, and the directory
NAME-COMMIT with the files. A submodule is an empty directory whose link name is its commit, so that the tree
is complete. The id of a commit is the SHA-1 of its object, which has the id of its tree, and so on.
Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import posixpath
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from vime_runtime.spec.errors import CheckFailed

from vimectl.util.directory_tree import DirectoryTree

FORMAT = tarfile.GNU_FORMAT
# Far above any source repository. The limits bound time and memory for a crafted archive.
_MAX_FILE, _MAX_TOTAL, _MAX_MEMBERS = 256 * 2**20, 4 * 2**30, 200_000
_MAX_PATH, _MAX_DEPTH = 4096, 100
_CHUNK = 2**20
_TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE)
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_FOLDER, _FILE, _PROGRAM, _LINK, _SUBMODULE = b"40000", b"100644", b"100755", b"120000", b"160000"
_HINT = "fetch it again: `vimectl image vendor` or `vimectl env create`"

# A file, link or submodule by its mode and id; a folder by its entries.
_Tree: TypeAlias = "dict[bytes, tuple[bytes, bytes] | _Tree]"


class _Refused(Exception):
    """The archive has something that an archive of a commit never has."""


class _CommitMember(tarfile.TarInfo):
    """A header of the few kinds in these archives. Others let tarfile read without a limit."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _CommitMember:
        member = super().frombuf(buf, encoding, errors)
        long_name = member.type in _LONG_NAMES and member.size <= _MAX_PATH
        if not (long_name or member.type in _TYPES) or not 0 <= member.size <= _MAX_FILE:
            raise _Refused(f"has {member.name!r} of type {member.type!r} and {member.size} bytes")
        return member


@dataclass
class _Bounded:
    """The unpacked archive, up to a limit: a small file may unpack to any size."""

    file: gzip.GzipFile
    left: int = _MAX_TOTAL

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise _Refused(f"unpacks to more than {_MAX_TOTAL} bytes")
        return content


def commit_object_name(folder: str) -> str:
    """Return the name of the commit object in an archive with the directory ``folder``."""
    return f"{folder}.commit"


def git_id(kind: str, content: bytes) -> bytes:
    """Return the id of a git object as 20 bytes."""
    header = f"{kind} {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).digest()


def check_archive(file: IO[bytes], name: str, commit: str, target: Path | None = None) -> None:
    """Check that an archive has exactly the tree of a commit.

    Args:
        file: the archive, read from its current position.
        name: how messages call it.
        commit: the commit's id, which the stack pins.
        target: an empty directory to unpack the files into; it is of no use when this raises.

    Raises:
        CheckFailed: it has another commit, another tree, or something that no archive of a commit has.
        OSError: the file cannot be read, or the target cannot be written.
    """
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            bounded = _Bounded(unpacked)
            with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_CommitMember) as tar:  # type: ignore[call-overload]
                wanted = _wanted_tree(tar, commit)
                if target is None:
                    found = _read_tree(tar, None)
                else:
                    with DirectoryTree(target) as into:
                        found = _read_tree(tar, into)
            while rest := bounded.read(_CHUNK):
                if rest.strip(b"\0"):
                    raise _Refused("has something after its end")
    except (_Refused, tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as e:
        raise CheckFailed(f"{name} is not the archive of {commit}: {e or 'it ends early'}", _HINT) from e
    if found != wanted:
        raise CheckFailed(
            f"{name} has the files of tree {found}, but the tree of commit {commit} is {wanted}", _HINT
        )


def _wanted_tree(tar: tarfile.TarFile, commit: str) -> str:
    """Return the id of the commit's tree from the commit object, the first file of the archive."""
    member = tar.next()
    content = _content(tar, member) if member and member.isreg() else b""
    if git_id("commit", content).hex() != commit:
        raise _Refused("its first file is not the object of that commit")
    found = re.match(rb"tree ([0-9a-f]{40})\n", content)
    if not found:
        raise _Refused("the commit has no tree")
    return found[1].decode()


def _read_tree(tar: tarfile.TarFile, into: DirectoryTree | None) -> str:
    """Return the id of the tree of all other files; create these in ``into``."""
    tree: _Tree = {}
    count = 0
    while member := tar.next():
        count += 1
        if count > _MAX_MEMBERS:
            raise _Refused(f"has more than {_MAX_MEMBERS} files")
        tar.members = []  # type: ignore[attr-defined] # it keeps all of them
        path = _path(member.name)
        content = b""
        if member.isdir():
            mode, id_ = _SUBMODULE, bytes.fromhex(member.linkname)
            if len(id_) != 20 or member.size:
                raise _Refused(f"{path} is a folder, but not of a submodule")
        elif member.issym():
            content = os.fsencode(member.linkname)
            _check_link(path, member.linkname)
            mode, id_ = _LINK, git_id("blob", content)
        else:
            content = _content(tar, member)
            mode, id_ = _PROGRAM if member.mode & 0o100 else _FILE, git_id("blob", content)
        _insert(tree, path, mode, id_)
        if into:
            _create(into, path, mode, content)
    return _tree_id(tree).hex()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise _Refused(f"{member.name} is incomplete")
    return content


def _path(name: str) -> str:
    """Return the path below the archive's one directory. Names that git refuses are refused."""
    _, _, path = name.partition("/")
    parts = path.split("/")
    if any(part in ("", ".", "..") or part.lower() == ".git" for part in parts) or "\0" in path:
        raise _Refused(f"has a file {name!r}")
    if len(parts) > _MAX_DEPTH:
        raise _Refused(f"has folders in more than {_MAX_DEPTH} others")
    return path


def _check_link(path: str, target: str) -> None:
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if not target or posixpath.isabs(target) or reached.partition("/")[0] == "..":
        raise _Refused(f"{path} is a link out of it: {target!r}")


def _insert(tree: _Tree, path: str, mode: bytes, id_: bytes) -> None:
    *folders, name = os.fsencode(path).split(b"/")
    for folder in folders:
        inner = tree.setdefault(folder, {})
        if not isinstance(inner, dict):
            raise _Refused(f"{path} is in a folder that is a file")
        tree = inner
    if name in tree:
        raise _Refused(f"has two entries for {path}")
    tree[name] = (mode, id_)


def _tree_id(tree: _Tree) -> bytes:
    lines = []
    for name, entry in tree.items():
        mode, id_ = (_FOLDER, _tree_id(entry)) if isinstance(entry, dict) else entry
        # Git sorts a folder as if its name ended with a slash.
        lines.append((name + b"/" * (mode == _FOLDER), b"%s %s\0%s" % (mode, name, id_)))
    return git_id("tree", b"".join(line for _, line in sorted(lines)))


def _create(into: DirectoryTree, path: str, mode: bytes, content: bytes) -> None:
    folders = path.split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        if into.lstat(folder := "/".join(folders[:depth])) is None:
            into.make_folder(folder)
    if mode == _SUBMODULE:
        into.make_folder(path)
    elif mode == _LINK:
        into.symlink(content, path)
    else:
        into.create(path, content, 0o777 if mode == _PROGRAM else 0o666)


def add_file(tar: tarfile.TarFile, name: str, content: bytes, time: int) -> None:
    """Append a file to an archive that is being written."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime = len(content), time
    tar.addfile(member, io.BytesIO(content))
