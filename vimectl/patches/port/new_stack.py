"""Make the stack of a new vllm-ascend release: its facts, and the series of the nearest releases, ported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import content, release_finder
from vimectl.patches import series as series_files
from vimectl.patches.port.command import PortOutcome, port_series, slug
from vimectl.patches.port.rebase import misfit
from vimectl.patches.release_files import PatchedRelease
from vimectl.patches.series import Series
from vimectl.stacks.catalog import load_summary, stack_names
from vimectl.stacks.new import read_facts, stack_text
from vimectl.stacks.versions import distance
from vimectl.util.output_file import write_output
from vimectl.util.phase_progress import show_phases
from vimectl.util.resources import data_dir

_PACKAGES = ("vllm", "vllm-ascend")


@dataclass(frozen=True)
class SeriesForStack:
    """The series of a package in a new stack, from the release ``source``.

    It is the same one if the files that it patches are byte for byte the same. Otherwise ``outcome`` is that
    of porting it.
    """

    package: str
    version: str
    source: str
    unneeded: Mapping[str, str]
    outcome: PortOutcome | None = None

    @property
    def result(self) -> str:
        """Return ``same``, ``ported`` or ``conflict``."""
        if self.outcome is None:
            return "same"
        return "ported" if self.outcome.written else "conflict"


@dataclass(frozen=True)
class NewStack:
    """A stack file that was written. ``disagreements``: see ``stacks.new.ReleaseFacts``."""

    path: Path
    series: list[SeriesForStack]
    disagreements: list[str]


def make_stack(name: str, version: str, data: Path, patches: Path) -> NewStack:
    """Write the stack ``name`` of vllm-ascend ``version``, and the series that it needs.

    The facts are from the release's source archive. A series is that of the nearest release that has one,
    ported unless the files that it touches are the same.

    Args:
        data: the folder of the stack file.
        patches: the folder of ported series, ``<package>/<version>``.

    Raises:
        UsageError: there is no such release, or a file to write exists.
        CheckFailed: the release has no source archive, or its documents do not state what a stack needs.
        MissingRequirement: a release cannot be fetched, or git is not installed.
    """
    path = data / f"{name}.toml"
    if os.path.lexists(path):
        raise UsageError(f"{path}: exists already", "remove it first, or choose another name")
    with show_phases() as progress:
        files = release_finder.files_of("vllm-ascend", version)
        if files and all(file.kind == "wheel" for file in files):
            raise CheckFailed(
                f"vllm-ascend {version} has no source archive, whose documents state the facts",
                "write the stack file by hand, after one in vimectl/stacks/data",
            )
        archive = release_finder.find("vllm-ascend", version, progress, kinds=("sdist",))
    facts = read_facts(version, archive.read, [file.name for file in files])
    series = [_series(package, facts.packages[package], patches) for package in _PACKAGES]
    shipped = patches.resolve() == data_dir("patches")
    entries, notes = {}, []
    for one in series:
        folder = Path(os.path.relpath(patches / one.package / one.version, data)).as_posix()
        ported = one.version if shipped else folder
        entries[one.package] = [ported if one.outcome else one.source]
        same = f", whose patched files are those of {one.version}" if one.source != one.version else ""
        notes.append(f"series of {one.package} {one.source}{', ported' if one.outcome else same}")
    data.mkdir(parents=True, exist_ok=True)
    write_output(path, stack_text(name, facts, entries, "; ".join(notes)).encode())
    return NewStack(path, series, facts.disagreements)


def _series(package: str, version: str, patches: Path) -> SeriesForStack:
    candidates = _nearest(package, version)
    nearest, release = candidates[0], PatchedRelease(content.release(package, version))
    # A series with fewer patches may fit too, but leaves out what this release may need.
    wanted = [slug(patch.id) for patch in nearest.patches]
    alike = (one for one in candidates if [slug(patch.id) for patch in one.patches] == wanted)
    if same := next((one for one in alike if not misfit(one, release)), None):
        return SeriesForStack(package, version, same.version, same.unneeded)
    out = patches / package / version
    outcome = port_series(package, nearest.version, version, out=out)
    unneeded = series_files.read(out).unneeded if outcome.written else nearest.unneeded
    return SeriesForStack(package, version, nearest.version, unneeded, outcome)


def _nearest(package: str, version: str) -> list[Series]:
    """Return the series of a package that the shipped stacks for NPUs have, the nearest release first.

    Of two that are equally near the older is first: a newer one may lack a patch that this release needs.
    """
    stacks = [load_summary(name) for name in stack_names()]
    versions = {v for one in stacks if "vllm-ascend" in one.packages for v in one.patches.get(package, ())}
    ordered = sorted(versions, key=lambda v: (distance(v, version), Version(v) > Version(version)))
    return [series_files.load(package, each) for each in ordered]
