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

from vime_runtime.spec.atomic_io import sha256_file

from vimectl import __version__
from vimectl.images import manifest, provenance, sbom
from vimectl.images.builder.base import Builder, BuildJob
from vimectl.images.manifest import SourceManifest
from vimectl.images.plan import ImagePlan
from vimectl.images.provenance import LOG, SBOM, BuiltImage
from vimectl.util import source_date_epoch
from vimectl.util.resources import data_dir
from vimectl.util.subprocess import OnLine


def default_tag(plan: ImagePlan) -> str:
    """Return the tag of an image when the user gives none."""
    return f"vimectl:{'-'.join(filter(None, (plan.stack.name, plan.chip)))}"


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
        UsageError, CheckFailed: the source folder is incomplete, or for another plan.
        CheckFailed, MissingRequirement: a step failed; the message has its last lines and a hint.
        KeyboardInterrupt: interrupted. No tag, container, mount or temporary file remains.
    """
    began = datetime.now(timezone.utc)
    found = manifest.check_folder(folder)
    manifest.check_matches_plan(found, plan, folder)
    records.mkdir(parents=True, exist_ok=True)
    with _work_directory() as work:
        job = BuildJob(
            dockerfile=data_dir("docker") / f"Dockerfile.{plan.stack.stack.device}",
            context=folder.absolute(),
            base=plan.base,
            arguments=_arguments(plan, folder, found, stand_in),
            epoch=epoch,
            work=work,
            log=records / LOG,
        )
        base_digest = builder.base_digest(job, on_line)
        image = builder.build(job, on_line)
        try:
            built = BuiltImage(
                tag=tag,
                configuration=builder.configuration(image),
                base_digest=base_digest,
                builder=builder.name,
                builder_version=builder.version(),
                arguments=job.arguments,
                epoch=epoch,
                began=began,
                ended=datetime.now(timezone.utc),
                records=records,
            )
            record = json.loads(builder.read(image, f"{manifest.IMAGE_DIR}/{manifest.IMAGE_RECORD}"))
            installed = [(one["name"], one["version"]) for one in record["installed"]]
            digest = f"sha256:{built.configuration.digest}"
            sbom.write(records / SBOM, tag, digest, found, installed, source_date_epoch.now())
            provenance.write(plan, found, built)
            builder.tag(image, tag)
        except BaseException:
            builder.remove(image)
            raise
    return built


def _arguments(plan: ImagePlan, folder: Path, found: SourceManifest, stand_in: bool) -> dict[str, str]:
    (wheel,) = (entry for entry in found.sources if entry.kind == "own-wheel")
    series = [
        f"{entry.name}={entry.series or entry.sha256}" for entry in found.sources if entry.kind == "patches"
    ]
    given = plan.arguments | {
        "SERIES": ",".join(series),
        "REVISION": wheel.commit or f"sha256:{wheel.sha256}",
        "VERSION": __version__,
        "MANIFEST": sha256_file(folder / manifest.FILE),
    }
    if plan.chip:
        given["STAND_IN"] = "yes" if stand_in else "no"
    return given


@contextmanager
def _work_directory() -> Iterator[Path]:
    """Create a directory for a builder's temporary files; unmount what it left there, and remove it."""
    work = Path(tempfile.mkdtemp(prefix="vimectl-image-"))
    try:
        yield work
    finally:
        # rmtree would delete through a mount: the user's own sources.
        for mount in sorted(_mounts(work), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, start_new_session=True)
        if not _mounts(work):
            shutil.rmtree(work, ignore_errors=True)


def _mounts(directory: Path) -> list[str]:
    """Return the mount points below a directory. Source: proc_pid_mountinfo(5), field 5."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(directory.resolve())]
