"""Read a patch file that is to be used: one error in it, and it is not."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile import names, rules, safety
from vimectl.patches.patchfile.model import Defect, PatchFile
from vimectl.patches.patchfile.reader import load, parse


def read(path: Path) -> PatchFile:
    """Return what a patch file says. Raises UsageError with the first error's line and rule."""
    return checked(load(path), str(path))


def checked(data: bytes, name: str) -> PatchFile:
    """Return what the text of a patch file says; ``name`` is how messages call it. Raises like ``read``."""
    patch = parse(data)
    errors = [defect for defect in defects(patch) if rules.is_error(defect.rule)]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        said = f"{first.rule}: {names.printable(first.message)}{more}"
        raise UsageError(f"{name}:{first.line}: {said}", f"vimectl patch lint {name} shows all")
    return patch


def defects(patch: PatchFile) -> list[Defect]:
    """Return what is wrong with a patch file by itself, by line."""
    return sorted([*patch.defects, *safety.check(patch.diffs)], key=lambda defect: defect.line)
