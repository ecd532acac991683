"""Read an image from the archive that `docker save` writes, and `podman save` and `buildah push` as well.

The archive has the image's configuration, its layers, and a manifest with their order. Formats:
https://github.com/moby/docker-image-spec and https://github.com/opencontainers/image-spec/blob/main/layer.md

An image has tens of gigabytes, so the archive is read as a stream and is never stored: once for the
configuration and the list of files, once more to extract them. Nothing is mounted and no container is
created, so that this works for every user and leaves nothing in the builder's store.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import posixpath
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

from vime_runtime.spec.errors import CheckFailed

_CHUNK = 2**20
# Far above the configuration of any image, and the files that callers keep.
_MAX_DOCUMENT = 64 * 2**20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_TYPES = {tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c", tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}


@dataclass(frozen=True)
class ImageConfiguration:
    """The configuration of an image. ``machine`` is the CPU architecture as Go names it."""

    labels: Mapping[str, str]
    environment: Mapping[str, str]
    user: str
    machine: str


@dataclass
class _Node:
    """An entry of the image's tree, with the layer that has it. A directory without a member is implied."""

    layer: str = ""
    member: tarfile.TarInfo | None = None
    children: dict[str, _Node] = field(default_factory=dict)

    def walk(self, path: str = "") -> Iterator[tuple[str, _Node]]:
        """Yield everything below with its path, each directory before its entries."""
        for name, node in self.children.items():
            yield path + name, node
            yield from node.walk(f"{path}{name}/")


class SavedImage:
    """The configuration and the files of an image.

    ``kept`` has the content of those small files that the caller named.
    """

    def __init__(self, command: Sequence[str], keep: Collection[str] = ()) -> None:
        """Read an image.

        Args:
            command: writes the archive to its standard output.
            keep: paths of files without a leading slash.

        Raises:
            CheckFailed: the command fails, or its output is not the archive of one image.
        """
        self._command = command
        layers: dict[str, list[tarfile.TarInfo]] = {}
        contents: dict[tuple[str, str], bytes] = {}

        def list_layer(name: str, layer: tarfile.TarFile) -> None:
            layers[name] = []
            for member in layer:
                layers[name].append(member)
                if (path := _path(member)) in keep and (file := layer.extractfile(member)):
                    contents[name, path] = file.read(_MAX_DOCUMENT)

        documents = self._read(list_layer)
        try:
            (manifest,) = documents["manifest.json"]
            self.configuration = _configuration(documents[manifest["Config"]])
            order = [documents.get(name, name) for name in manifest["Layers"]]
            self._root = _merge((name, layers[name]) for name in order)
        except (KeyError, ValueError, TypeError, AttributeError) as e:
            raise self._error(f"not the archive of one image: {e!r}") from e
        tree = [(node.layer, path) for path, node in self._root.walk()]
        self.kept = {path: contents[layer, path] for layer, path in tree if (layer, path) in contents}

    def extract(self, root: Path) -> list[str]:
        """Write directories, files and symlinks into an empty directory; return the lines of the tree digest.

        Owners and devices are left out. Symlinks are created last, so nothing is written through one.

        Raises:
            CheckFailed: the command fails.
            OSError: the directory cannot be written.
        """
        wanted: dict[tuple[str, int], list[str]] = {}
        for path, node in self._root.walk():
            if node.member is None or node.member.isdir():
                (root / path).mkdir()
            elif node.member.isreg():
                wanted.setdefault((node.layer, node.member.offset), []).append(path)
        digests = {}

        def extract_layer(name: str, layer: tarfile.TarFile) -> None:
            for member in layer:
                layer.members = []  # type: ignore[attr-defined] # it keeps all of them
                paths = wanted.get((name, member.offset))
                if paths and (file := layer.extractfile(member)):
                    found = _write(file, root / paths[0], member.mode)
                    for other in paths[1:]:
                        os.link(root / paths[0], root / other)
                    digests.update(dict.fromkeys(paths, found))

        self._read(extract_layer)
        if lost := set().union(*wanted.values()) - digests.keys():
            raise self._error(f"the image changed while it was read: {min(lost)} is missing")
        for path, node in self._root.walk():
            if node.member and node.member.issym():
                (root / path).symlink_to(node.member.linkname)
        tree = sorted(self._root.walk(), key=lambda entry: os.fsencode(entry[0]))
        return [_line(path, node.member, digests.get(path)) for path, node in tree]

    def _read(self, on_layer: Callable[[str, tarfile.TarFile], None]) -> dict[str, Any]:
        """Pass each layer to a function; return the JSON files and the targets of links by their names."""
        documents: dict[str, Any] = {}
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=errors) as process,
        ):
            assert process.stdout is not None
            problem = ""
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    for member in archive:
                        if member.issym():  # another name of a layer
                            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                            documents[member.name] = posixpath.normpath(target)
                        elif file := cast("BufferedReader | None", archive.extractfile(member)):
                            if file.peek(1)[:1] in (b"{", b"["):
                                documents[member.name] = json.loads(file.read(_MAX_DOCUMENT))
                            elif member.size >= tarfile.BLOCKSIZE:  # else a version number
                                with tarfile.open(fileobj=file, mode="r|*") as layer:
                                    on_layer(member.name, layer)
                while process.stdout.read(_CHUNK):  # the padding at the end
                    pass
            except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as e:
                problem = str(e) or "it ends early"
                process.stdout.close()
            if process.wait() or problem:
                errors.seek(0)
                raise self._error(errors.read().decode(errors="replace").strip() or problem)
        return documents

    def _error(self, problem: str) -> CheckFailed:
        command = " ".join(self._command)
        return CheckFailed(f"{command}: {problem}", f"`{self._command[0]} info` shows if it works here")


def tree_digest(lines: Sequence[str]) -> str:
    """Return the digest of a file tree: two images with the same digest have the same files.

    Every entry of the tree is one line, ``TYPE MODE UID:GID CONTENT PATH``: the type as in ``ls`` (d, -, l,
    c, b, p), the permissions in octal, and as content the SHA-256 of a regular file, the target of a
    symlink, the numbers of a device, and "-" otherwise. Lines are sorted by path, as bytes; names and
    targets are escaped so that each fits on its line. The digest is the SHA-256 of all lines.

    Times are not included: builders treat SOURCE_DATE_EPOCH differently, and nothing relevant in an image
    depends on them. Neither are extended attributes and hard links (two names of one file count as two
    files).
    """
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _merge(layers: Iterable[tuple[str, list[tarfile.TarInfo]]]) -> _Node:
    """Return the tree of the layers, the lowest first."""
    root = _Node()
    for layer, members in layers:
        files: dict[str, tarfile.TarInfo] = {}
        for member in members:  # a whiteout removes what lower layers have
            folder, _, name = _path(member).rpartition("/")
            if name == _OPAQUE:
                _directory(root, folder).children.clear()
            elif name.startswith(_WHITEOUT):
                _directory(root, folder).children.pop(name.removeprefix(_WHITEOUT), None)
        for member in members:
            path = _path(member)
            folder, _, name = path.rpartition("/")
            if not name or name.startswith(_WHITEOUT):
                continue
            if member.islnk():  # as the file that it was in this layer: an upper one may replace that
                member = files[member.linkname.strip("/").removeprefix("./")]
            files[path] = member
            parent = _directory(root, folder)
            node = parent.children.setdefault(name, _Node())
            if not member.isdir():
                node.children = {}
            node.layer, node.member = layer, member
    return root


def _directory(root: _Node, path: str) -> _Node:
    for name in path.split("/") if path else ():
        root = root.children.setdefault(name, _Node())
        if root.member and not root.member.isdir():
            raise ValueError(f"{path} is below a file")
    return root


def _path(member: tarfile.TarInfo) -> str:
    """Return the path of a member without a leading slash; "" for the root."""
    path = posixpath.normpath(member.name).lstrip("/")
    if path.split("/")[0] == "..":
        raise ValueError(f"{member.name} is outside")
    return "" if path == "." else path


def _write(content: IO[bytes], target: Path, mode: int) -> str:
    """Write a new file, which its owner can read and remove; return its SHA-256."""
    hashed = hashlib.sha256()
    with target.open("xb") as file:
        while chunk := content.read(_CHUNK):
            hashed.update(chunk)
            file.write(chunk)
    target.chmod(mode & 0o777 | 0o600)
    return hashed.hexdigest()


def _line(path: str, member: tarfile.TarInfo | None, sha256: str | None) -> str:
    if member is None:
        return f"d 0755 0:0 - {_escape(path)}"
    content = sha256 or "-"
    if member.issym():
        content = _escape(member.linkname)
    elif member.ischr() or member.isblk():
        content = f"{member.devmajor}:{member.devminor}"
    kind = "d" if member.isdir() else _TYPES.get(member.type, "-")
    return f"{kind} {member.mode & 0o7777:04o} {member.uid}:{member.gid} {content} {_escape(path)}"


def _escape(name: str) -> str:
    """Return a unique form of a name without spaces and newlines."""
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return text.replace(" ", "\\x20").replace("\n", "\\x0a")


def _configuration(document: Mapping[str, Any]) -> ImageConfiguration:
    config = document.get("config") or {}
    pairs = [entry.partition("=") for entry in config.get("Env") or []]
    return ImageConfiguration(
        labels=config.get("Labels") or {},
        environment={name: value for name, _, value in pairs},
        user=config.get("User") or "",
        machine=document.get("architecture", ""),
    )
