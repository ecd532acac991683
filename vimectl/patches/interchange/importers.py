"""Import a quilt series, a folder of patches, a mailbox, or one patch as a series for a release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from email.message import Message as Mail
from email.parser import BytesParser
from email.policy import default as DEFAULT
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches import series as series_files
from vimectl.patches.git_commands import FileChanges
from vimectl.patches.interchange.description import PatchDescription, as_dep3, from_mail, from_text
from vimectl.patches.lint.release_check import PatchedRelease, check_release
from vimectl.patches.patchfile.apply import apply_patch
from vimectl.patches.patchfile.file_diff import PatchFile
from vimectl.patches.patchfile.reader import load
from vimectl.patches.patchfile.rules import parse_valid
from vimectl.patches.release_files import ReleaseFiles
from vimectl.patches.series_writer import NewPatch, write_series

# The email header with the id of an exported patch.
ID_HEADER = "X-Vimectl-Id"
NO_AUTHOR = "vimectl <vimectl@localhost>"
_MAIL_START = re.compile(rb"^(?=From .*\d\d:\d\d.*\d{4}[ \t]*\r?\n)", re.MULTILINE)
_IS_MAIL = re.compile(rb"(?:From |[A-Za-z-]+:[ \t])")
_SUFFIXES = (".patch", ".diff", ".eml", ".mbox")


@dataclass(frozen=True)
class ImportablePatch:
    """One patch. ``slug`` is for its id; ``origin`` names it in messages."""

    slug: str
    origin: str
    description: PatchDescription
    patch: PatchFile


@dataclass(frozen=True)
class ImportedPatch:
    """A patch of the new series: its origin, its files before and after, and the number of its hunks that
    were not at the stated line."""

    id: str
    origin: str
    changes: FileChanges
    offsets: int

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch import --json` prints for the patch."""
        files = [
            {"path": path, "before": before.blob if before else None, "after": after.blob if after else None}
            for path, (before, after) in self.changes.items()
        ]
        return {"id": self.id, "from": self.origin, "files": files, "offsets": self.offsets}


def import_series(
    path: Path, package: str, version: str, files: ReleaseFiles, out: Path, module: str | None = None
) -> list[ImportedPatch]:
    """Write the patches in ``path`` as a series for a release into a new folder.

    ``module`` is the folder that identifies the package: by default that of its other series, otherwise its
    name. Each patch is applied to the release by git's rules, and git writes the new diff: with full blob
    ids, at the actual lines, a rename as a deletion and a creation.

    Raises:
        UsageError: there are no patches, one does not apply, ``out`` exists, or a series cannot express a
            change.
        MissingRequirement: git is not installed, or the folder cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", "name another --out, or remove it")
    release = PatchedRelease(files)
    imported: list[ImportedPatch] = []
    patches: list[NewPatch] = []
    for number, one in enumerate(read_patches(path), 1):
        changes, offsets = _changes(one, release)
        release = release.with_changes({path: after for path, (_, after) in changes.items()})
        patch_id = f"{number:04}-{one.slug}"
        imported.append(ImportedPatch(patch_id, one.origin, changes, offsets))
        patches.append(NewPatch(patch_id, as_dep3(one.description).encode(), changes))
    comment = f"Patches for the released {package} {version}, in the order in which they apply."
    write_series(out, comment, package, version, module or _module(package), patches)
    return imported


def _module(package: str) -> str:
    versions = series_files.known().get(package)
    return series_files.load(package, versions[0]).module if versions else package.replace("-", "_")


def _changes(one: ImportablePatch, release: PatchedRelease) -> tuple[FileChanges, int]:
    """Return the changed files, and the number of hunks found at another line. Raises UsageError."""
    found = check_release(one.patch, release)
    try:
        results = apply_patch(one.patch, release.file)
    except UsageError as e:
        misfits = (f"line {fit.line}: the hunk does not fit {fit.path}" for fit in found.fits if not fit.fits)
        raise UsageError(
            f"{one.origin}: does not apply to {release.name}: {next(misfits, e.message)}",
            "vimectl patch lint FILE --against ... shows how each hunk fits",
        ) from e
    changes = {path: (release.file(path), after) for path, after in sorted(results.items())}
    changes = {path: states for path, states in changes.items() if states[0] != states[1]}
    if not changes:
        raise UsageError(f"{one.origin}: changes nothing in {release.name}", "leave it out")
    return changes, sum(fit.result == "offset" for fit in found.fits)


def read_patches(path: Path) -> list[ImportablePatch]:
    """Return the patches in a file or folder, in the order in which they apply.

    Raises UsageError when there are none, or one has a lint error.
    """
    if path.is_dir():
        files = _quilt(path / "series") if (path / "series").is_file() else _folder(path)
    elif path.name == "series":
        files = _quilt(path)
    else:
        files = [path]
    found = [patch for file in files for patch in _in_file(file)]
    if not found:
        raise UsageError(f"{path}: there are no patches here", "give a patch, a mailbox or a quilt series")
    return found


def _quilt(series: Path) -> list[Path]:
    """Return the patches that a quilt series lists. Raises UsageError for options other than -p1."""
    files = []
    for number, line in enumerate(series.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if any(option not in ("-p1", "-pab") for option in words[1:]):
            raise UsageError(
                f"{series}:{number}: {' '.join(words[1:])}: only -p1 is supported", "refresh the patch"
            )
        file = series.parent / words[0]
        if not file.resolve().is_relative_to(series.parent.resolve()):
            raise UsageError(
                f"{series}:{number}: {words[0]} is outside of the series' folder", "move the patch into it"
            )
        files.append(file)
    return files


def _folder(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _in_file(path: Path) -> Iterator[ImportablePatch]:
    data = load(path)
    before, *mails = _MAIL_START.split(data)
    if before or len(mails) < 2:
        yield _parse(path.stem, str(path), data)
    else:
        for number, mail in enumerate(mails, 1):
            yield _parse("", f"{path}, message {number}", mail)


def _parse(name: str, origin: str, data: bytes) -> ImportablePatch:
    mail, text = _decode_mail(data)
    patch = parse_valid(text, origin)
    words = patch.header.decode("utf-8", "replace")
    if mail is None:
        description = from_text(words, name)
        return ImportablePatch(_slug(name or description.subject), origin, description, patch)
    subject = re.sub(r"^(\s*\[[^\]]*\])*\s*", "", " ".join(str(mail["Subject"] or name).split()))
    description = _with_author(from_mail(subject, words), mail)
    named = str(mail[ID_HEADER] or "") or name
    return ImportablePatch(_slug(named or subject), origin, description, patch)


def _decode_mail(data: bytes) -> tuple[Mail | None, bytes]:
    """Return an email and its decoded text; for anything else, None and all of it."""
    head, blank, _ = data.partition(b"\n\n")
    if not (_IS_MAIL.match(data) and re.search(rb"^Subject:", head, re.MULTILINE) and blank):
        return None, data
    if re.search(rb"^Description:", head, re.MULTILINE):  # DEP-3 has a Subject, too
        return None, data
    mail = BytesParser(policy=DEFAULT).parsebytes(re.sub(rb"^From .*\n", b"", data))
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"] or [mail]
    return mail, b"\n".join(part.get_payload(decode=True) or b"" for part in parts)  # type: ignore[misc]


def _with_author(description: PatchDescription, mail: Mail) -> PatchDescription:
    """Add author and date of the email, unless the description has them."""
    fields = dict(description.fields)
    author = str(mail["From"] or "")
    if author and author != NO_AUTHOR:
        fields.setdefault("Author", author)
    with suppress(TypeError, ValueError):  # no date, or a malformed one
        fields.setdefault("Last-Update", parsedate_to_datetime(str(mail["Date"])).date().isoformat())
    return replace(description, fields=fields)


def _slug(name: str) -> str:
    """Return a name for the id of a patch: lowercase letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"^\d+-", "", name.lower())).strip("-")
    return plain[:60].strip("-") or "patch"
