"""Build an image. It gets its tag only after every check has passed and its documents are written."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import platformdirs
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import UsageError

from vimectl import __version__
from vimectl.env import vimectl_wheel
from vimectl.images import manifest, provenance, sbom
from vimectl.images.builders import Builder, BuildJob
from vimectl.images.manifest import SourceManifest
from vimectl.images.plan import ImagePlan
from vimectl.images.provenance import LOG, PROVENANCE, SBOM, BuiltImage
from vimectl.images.saved_image import SavedImage
from vimectl.images.source_folder import check_for_plan
from vimectl.util import source_date_epoch
from vimectl.util.directory_lock import explain_disk_errors, lock_directory
from vimectl.util.output_file import check_output
from vimectl.util.resources import data_dir
from vimectl.util.subprocess import OnLine

_RECORD = f"{manifest.IMAGE_DIR}/{manifest.IMAGE_RECORD}".lstrip("/")


def default_records(plan: ImagePlan) -> Path:
    """Return the directory for the records of an image when the user gives none."""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path("images") / f"{plan.stack.name}-{now}"


def build_image(
    plan: ImagePlan,
    folder: Path,
    tag: str,
    records: Path,
    builder: Builder,
    on_line: OnLine,
    stand_in: bool = False,
    epoch: int | None = None,
) -> BuiltImage:
    """Build an image from the folder with its sources. The log is in ``records`` in any case.

    Args:
        records: the directory for the log, the SBOM and the provenance.
        stand_in: the base image does not have the real CANN: do not record the memory saver as known-good.
        epoch: SOURCE_DATE_EPOCH in seconds, None for the current time.

    Raises:
        UsageError, CheckFailed: the source folder is incomplete, altered, or for another plan.
        CheckFailed, MissingRequirement: a step failed; the message has its last lines and a hint.
        KeyboardInterrupt: interrupted. No tag, container, mount or temporary file remains.
    """
    began = datetime.now(timezone.utc)
    _prepare_records(records)
    with _work_directory(on_line) as (work, lock_fd):
        context = work / "context"
        with explain_disk_errors(work, "free some space, or set TMPDIR to a directory on another disk"):
            context.mkdir()
            (work / "own").mkdir()
            # A private copy, so that no change after the check counts.
            found = check_for_plan(folder, plan, vimectl_wheel.make_wheel(work / "own"), context)
        job = BuildJob(
            dockerfile=data_dir("docker") / f"Dockerfile.{plan.stack.stack.device}",
            context=context,
            base=plan.base,
            machine=plan.machine,
            arguments=_arguments(plan, context, found, stand_in),
            epoch=epoch,
            work=work,
            log=records / LOG,
            lock_fd=lock_fd,
        )
        base = builder.pull(plan.base, plan.machine, job.log, on_line)
        with builder.build(job, on_line) as image:
            identity = builder.identity(image)
            assert identity is not None
            saved = SavedImage(builder.save_command(image), keep=[_RECORD])
            built = BuiltImage(
                tag=tag,
                id=identity.id,
                labels=saved.configuration.labels,
                base_digest=base.digest,
                builder=builder.name,
                builder_version=builder.version,
                arguments=job.arguments,
                epoch=epoch,
                began=began,
                ended=datetime.now(timezone.utc),
                records=records,
            )
            record = json.loads(saved.kept[_RECORD])
            installed = [(one["name"], one["version"]) for one in record["installed"]]
            sbom.write(records / SBOM, tag, f"sha256:{built.id}", found, installed, source_date_epoch.now())
            provenance.write(plan, found, built)
            builder.tag(image, tag)
    return built


def _prepare_records(records: Path) -> None:
    """Create the directory for the records, and refuse anything but regular files in their places."""
    try:
        records.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(f"{records}: cannot be created: {e.strerror}", "name another --records") from e
    for name in (LOG, SBOM, PROVENANCE):
        check_output(records / name)


def _arguments(plan: ImagePlan, context: Path, found: SourceManifest, stand_in: bool) -> dict[str, str]:
    (wheel,) = (entry for entry in found.sources if entry.kind == "own-wheel")
    series = [
        f"{entry.name}={entry.series or entry.sha256}" for entry in found.sources if entry.kind == "patches"
    ]
    given = plan.arguments | {
        "SERIES": ",".join(series),
        "REVISION": f"sha256:{wheel.sha256}",
        "VERSION": __version__,
        "MANIFEST": sha256_file(context / manifest.FILE),
    }
    if plan.chip:
        given["STAND_IN"] = "yes" if stand_in else "no"
    return given


@contextmanager
def _work_directory(on_line: OnLine) -> Iterator[tuple[Path, int]]:
    """Create a directory for a builder's temporary files; unmount what it left there, and remove it.

    One build of this user runs at a time, so that leftovers cannot be those of a running build. The lock's
    directory has a link to the temporary one: the next build removes it when this one is killed.
    """
    folder = Path(platformdirs.user_cache_dir("vimectl")) / "image-build-lock"
    with lock_directory(folder, lambda: on_line("waiting for another image build")) as lock_fd:
        link = folder / "work"
        if link.is_symlink():
            _remove_work(link)
        work = Path(tempfile.mkdtemp(prefix="vimectl-image-"))
        link.symlink_to(work)
        try:
            yield work, lock_fd
        finally:
            _remove_work(link)


def _remove_work(link: Path) -> None:
    """Remove the temporary directory that a link names, and the link."""
    work = link.readlink()
    # rmtree would delete through a mount: the user's own sources.
    for mount in sorted(_mounts(work), reverse=True):
        # PATH of the user names the program, as for every other program.
        subprocess.run(["umount", "--lazy", mount], capture_output=True, start_new_session=True)  # nosec B607
    if not _mounts(work):
        shutil.rmtree(work, ignore_errors=True)
    link.unlink()


def _mounts(directory: Path) -> list[str]:
    """Return the mount points below a directory. Source: proc_pid_mountinfo(5), field 5."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(directory.resolve())]
