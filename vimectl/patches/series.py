"""Find and read series: ordered patches for one release or commit of a package.

A series is a directory with a quilt ``series`` file, which lists the patch files in order, and the patches:
plain diffs with full ``index`` lines, whose blob ids identify each file before and after. ``series.toml``,
which is optional, says what the series is for. vimectl's own are ``patches/<package>/<version>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from vime_runtime.spec.errors import UsageError, nearest, unknown

from vimectl.patches.blobs import LINK, FileId
from vimectl.patches.patchfile.binary import BinaryBudget
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.patchfile.links import LinkLookup, SeriesLinks
from vimectl.patches.patchfile.names import printable
from vimectl.patches.patchfile.quilt import quilt_series
from vimectl.patches.patchfile.reader import load as load_text
from vimectl.patches.patchfile.rules import parse_valid
from vimectl.util.resources import data_dir
from vimectl.util.toml import read_toml

ORDER, ABOUT = "series", "series.toml"
_KEYS = {"package": str, "version": str, "commit": str, "module": str, "unneeded": dict}
_IMPORT = "vimectl patch import DIR --package NAME --version V --out NEW writes a series with full ids"


class Patch(NamedTuple):
    """One patch of a series: the file ``<id>.patch``, its diffs by path, and the text above them."""

    id: str
    text: bytes
    diffs: dict[str, FileDiff]
    header: bytes

    @property
    def files(self) -> list[str]:
        """Return the paths that the patch touches, in its order."""
        return list(self.diffs)


class _SeriesFields(NamedTuple):
    name: str
    package: str
    patches: tuple[Patch, ...]
    version: str = ""
    commit: str = ""
    module: str = ""
    directories: tuple[Path, ...] = ()
    unneeded: Mapping[str, str] = MappingProxyType({})


# Tuples, and no dataclass: importing dataclasses takes a twelfth of the time of `vimectl patch verify`.
class Series(_SeriesFields):
    """Patches for one release (``version``) or commit of a package, in the order in which they apply.

    ``name`` is for messages. ``directories`` has one directory, or several when series are stacked, the
    bottom one first. ``module`` is the folder that identifies the package in a target (``vllm``); empty when
    the series does not say. ``unneeded`` gives, by the slug of a patch of another release, why this release
    needs none.
    """

    @property
    def directory(self) -> Path:
        """Return the directory of the topmost series."""
        return self.directories[-1]

    @cached_property
    def chains(self) -> dict[str, list[str | None]]:
        """Return by path the blob ids of a file (None: no such file): as released, then after each patch."""
        chains: dict[str, list[str | None]] = {}
        for patch in self.patches:
            for path, diff in patch.diffs.items():
                before, after = _ids(diff)
                chains.setdefault(path, [before]).append(after)
        return chains

    @cached_property
    def modes(self) -> dict[str, list[str | None]]:
        """Return by path the git modes of a file, parallel to ``chains``; None: not stated, any mode fits.

        The first stated mode implies the one before it: a link was a link, and an executable bit that is
        set was not set.
        """
        modes: dict[str, list[str | None]] = {}
        for path in self.chains:
            diffs = [patch.diffs[path] for patch in self.touching(path)]
            first = next((mode for diff in diffs if (mode := _stated_mode(diff))), None)
            current = first if first in (None, LINK) else "100644" if first == "100755" else "100755"
            modes[path] = [current]
            for diff in diffs:
                # A file that is deleted and created again does not keep its mode.
                kept = None if diff.action in ("create", "delete") else current
                current = _stated_mode(diff) or kept
                modes[path].append(current)
        return modes

    def position(self, path: str, found: FileId) -> int | None:
        """Return how many of the patches that touch ``path`` are applied to a file; None: unknown content.

        The highest number counts if the file returns to an earlier content.
        """
        for index in reversed(range(len(self.chains[path]))):
            blob, mode = self.chains[path][index], self.modes[path][index]
            link_fits = (mode == LINK) == (found.mode == LINK)
            if blob == found.blob and (blob is None or (link_fits and mode in (None, found.mode))):
                return index
        return None

    def touching(self, path: str) -> list[Patch]:
        """Return the patches that touch ``path``, in order: the n-th leads to ``chains[path][n + 1]``."""
        return [patch for patch in self.patches if path in patch.diffs]

    def find(self, patch_id: str) -> Patch:
        """Return a patch by its id. Raises UsageError when there is none."""
        for patch in self.patches:
            if patch.id == patch_id:
                return patch
        raise unknown(f"patch of {self.name}", patch_id, [patch.id for patch in self.patches])

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 over the names and digests of the patches."""
        lines = [f"{hashlib.sha256(patch.text).hexdigest()}  {patch.id}\n" for patch in self.patches]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def checked(self, lookup: LinkLookup = lambda path: None) -> Series:
        """Return the series.

        ``lookup`` has the symbolic links of the target.
        Raises UsageError when a patch does not start where the one below it ends, or a link leads out.
        """
        links = SeriesLinks(lookup)
        for patch in self.patches:
            for defect in links.check(patch.diffs.values()):
                where = f"{self.name}: {file_name(patch.id)}:{defect.line}: {defect.rule}"
                raise UsageError(f"{where}: {printable(defect.message)}", "remove the link from the patch")
        last: dict[str, tuple[str, str | None]] = {}
        for patch in self.patches:
            for path, diff in patch.diffs.items():
                before, after = _ids(diff)
                below, blob = last.get(path, ("", before))
                if blob != before:
                    raise UsageError(
                        f"{self.name}: {patch.id} starts at {path} {before or 'without the file'},"
                        f" {below} leaves {blob or 'no such file'}",
                        "vimectl patch lint shows how the patches fit; vimectl patch import writes them anew",
                    )
                last[path] = patch.id, after
        return self


def stack_up(parts: Sequence[Series]) -> Series:
    """Return several series of one package as one, the bottom one first.

    Raises UsageError when one does not start where those below it end.
    """
    if len(parts) == 1:
        return parts[0]
    seen: set[str] = set()
    patches = []
    for patch in (patch for part in parts for patch in part.patches):
        unique, number = patch.id, 2
        while unique in seen:
            unique, number = f"{patch.id}-{number}", number + 1
        seen.add(unique)
        patches.append(patch._replace(id=unique))
    bottom = parts[0]
    return Series(
        name=" + ".join(part.name for part in parts),
        package=bottom.package,
        patches=tuple(patches),
        version=next((part.version for part in parts if part.version), ""),
        commit=next((part.commit for part in parts if part.commit), ""),
        module=next((part.module for part in parts if part.module), ""),
        directories=tuple(directory for part in parts for directory in part.directories),
        unneeded={slug: reason for part in parts for slug, reason in part.unneeded.items()},
    ).checked()


def known() -> dict[str, list[str]]:
    """Return the versions for which vimectl has a series, by package, both sorted by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(data_dir("patches").glob(f"*/*/{ORDER}")):
        found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return found


def load(package: str, version: str) -> Series:
    """Return one of vimectl's own series. Raises UsageError when there is none."""
    versions = known()
    if package not in versions:
        raise unknown("package", package, versions)
    if version not in versions[package]:
        raise unknown(f"series of {package}", version, versions[package])
    return _read_once(data_dir("patches") / package / version, f"{package}/{version}")


@cache
def _read_once(directory: Path, name: str) -> Series:
    """Read a series that no command changes."""
    return read(directory)._replace(name=name)


def find(package: str, version: str, directory: Path | None = None) -> Series:
    """Return the series in a directory, or vimectl's own for this version. Errors are those of both."""
    return read(directory) if directory else load(package, version)


def read(directory: Path) -> Series:
    """Read a series directory.

    Raises UsageError when it is no series, or a patch has an error or no full ids.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory", "name the directory of a series")
    if not (directory / ORDER).is_file():
        raise UsageError(
            f"{directory}: there is no file called {ORDER} here, which lists the patches", _IMPORT
        )
    about = _about(directory / ABOUT)
    patches: list[Patch] = []
    budget = BinaryBudget()
    for file, strip in quilt_series(directory / ORDER):
        if strip not in (None, 1):
            raise UsageError(f"{file} is not for -p1, as the patches of a series are", _IMPORT)
        name = file.relative_to(directory).as_posix()
        patches.append(parse_patch(name.removesuffix(".patch"), load_text(file)))
        budget.add(patches[-1].diffs.values(), str(file))
    return Series(
        name=str(directory),
        package=about.get("package", ""),
        patches=tuple(patches),
        version=about.get("version", ""),
        commit=about.get("commit", ""),
        module=about.get("module", ""),
        directories=(directory,),
        unneeded=about.get("unneeded", {}),
    ).checked()


def file_name(patch_id: str) -> str:
    """Return the name of the file of a patch."""
    return patch_id if patch_id.endswith(".diff") else f"{patch_id}.patch"


def parse_patch(patch_id: str, text: bytes) -> Patch:
    """Return a patch of a series from its text. Raises UsageError when it has an error or no full ids."""
    name = file_name(patch_id)
    parsed = parse_valid(text, name, 1)
    diffs: dict[str, FileDiff] = {}
    for diff in parsed.diffs:
        if problem := _unusable(diff, diffs):
            raise UsageError(f"{name}:{diff.line}: {diff.path}: {problem}", _IMPORT)
        diffs[diff.path] = diff
    return Patch(patch_id, text, diffs, parsed.header)


def _unusable(diff: FileDiff, others: Iterable[str]) -> str:
    """Return why a series cannot have this diff, or ""."""
    if diff.action in ("rename", "copy"):
        return f"a series has no {diff.action}, but a deletion and a creation"
    if diff.path in others:
        return "a second diff of the same file, or a change of its type"
    if not diff.has_full_ids:
        return "the index line is missing or does not have full blob ids"
    modes = {diff.old_mode, diff.new_mode} - {None}
    return "a file becomes a link, or the reverse" if len(modes) > 1 and LINK in modes else ""


def _ids(diff: FileDiff) -> tuple[str | None, str | None]:
    return diff.old_blob if diff.old_path else None, diff.new_blob if diff.new_path else None


def _stated_mode(diff: FileDiff) -> str | None:
    """Return the mode that a diff sets; None if it sets none, or that of any new file."""
    if LINK in (diff.old_mode, diff.new_mode):
        return LINK
    if diff.new_path is None or diff.new_mode == diff.old_mode:
        return None
    return None if diff.action == "create" and diff.new_mode == "100644" else diff.new_mode


def _about(path: Path) -> dict[str, Any]:
    data = read_toml(path) if path.is_file() else {}
    for key, value in data.items():
        if key not in _KEYS:
            raise UsageError(f"{path}: unknown key {key!r}.{nearest(key, _KEYS)}", "remove it")
        if not isinstance(value, _KEYS[key]):
            raise UsageError(f"{path}: {key!r} is not a {_KEYS[key].__name__}", "correct it")
    return data
