"""Build an image, all or nothing: it gets a name when every gate is passed and all about it is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import UsageError

from vimectl import __version__
from vimectl.images import image_paths, manifest, provenance, sbom
from vimectl.images.builder import Builder, Configuration, Job
from vimectl.images.manifest import Manifest
from vimectl.images.plan import Plan
from vimectl.images.provenance import Made
from vimectl.stacks.installed import InstalledDistribution
from vimectl.util import source_date_epoch
from vimectl.util.resources import data_dir

_BILL, _PROVENANCE = "sbom.json", "provenance.json"
_DOCKERFILES = {"npu": "Dockerfile.npu", "cpu": "Dockerfile.cpu"}


@dataclass(frozen=True)
class Request:
    """What is to be built: the plan, from which folder of sources, under which name.

    ``stand_in``: the base has no Ascend compiler, so the kernels are left out and the image says so.
    ``epoch`` is SOURCE_DATE_EPOCH in seconds, None for now. ``records`` is the folder that gets the log and
    what is written about the image.
    """

    plan: Plan
    folder: Path
    tag: str
    records: Path
    stand_in: bool = False
    epoch: int | None = None


@dataclass(frozen=True)
class Built:
    """An image that was built, how that came about, and the files that say so."""

    image: Configuration
    made: Made
    log: Path
    bill: Path
    provenance: Path


def dockerfile(plan: Plan) -> Path:
    """Return the Dockerfile for a plan. Raises UsageError when there is none for its device."""
    device = plan.stack.stack.device
    if device not in _DOCKERFILES:
        raise UsageError(f"there is no Dockerfile for {device}", f"known: {', '.join(_DOCKERFILES)}")
    return data_dir("docker") / _DOCKERFILES[device]


def tag(plan: Plan) -> str:
    """Return the name that an image of a plan gets when none is given."""
    return f"vimectl:{'-'.join(filter(None, (plan.stack.name, plan.chip)))}"


def records(plan: Plan) -> Path:
    """Return the folder for what is written about an image when none is given."""
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return Path("images") / f"{plan.stack.name}-{now}"


def arguments(request: Request, found: Manifest) -> dict[str, str]:
    """Return the build arguments."""
    plan = request.plan
    (own,) = (entry for entry in found.sources if entry.kind == "own-wheel")
    series = [f"{entry.name}={entry.series}" for entry in found.sources if entry.kind == "patches"]
    given = plan.arguments | {
        "SERIES": ",".join(series),
        "REVISION": own.commit or f"sha256:{own.sha256}",
        "VERSION": __version__,
        "MANIFEST": sha256_file(request.folder / manifest.FILE),
    }
    if plan.chip:
        given["STAND_IN"] = "yes" if request.stand_in else "no"
    return given


def build(request: Request, builder: Builder, on_line: Callable[[str], None]) -> Built:
    """Build the image. The log stays in ``request.records``, whatever happens.

    Raises:
        UsageError, CheckFailed: the folder of sources is not whole, or not for this plan.
        CheckFailed, MissingRequirement: a step failed; which, with its last lines and the likely mend.
        KeyboardInterrupt: interrupted. No name, container, mount or temporary file is left.
    """
    began = datetime.now(timezone.utc)
    found = manifest.check(request.folder)
    manifest.fits(found, request.plan, request.folder)
    request.records.mkdir(parents=True, exist_ok=True)
    log = request.records / "build.log"
    with _scratch() as work:
        job = Job(
            dockerfile=dockerfile(request.plan),
            context=request.folder.absolute(),
            base=request.plan.base,
            arguments=arguments(request, found),
            epoch=request.epoch,
            work=work,
            log=log,
        )
        base_digest = builder.base_digest(job, on_line)
        image = builder.build(job, on_line)
        try:
            made = Made(
                name=request.tag,
                digest=f"sha256:{builder.configuration(image).digest}",
                base_digest=base_digest,
                builder=builder.name,
                builder_version=builder.version(),
                arguments=job.arguments,
                epoch=request.epoch,
                began=began,
                ended=datetime.now(timezone.utc),
            )
            built = Built(
                image=builder.configuration(image),
                made=made,
                log=log,
                bill=_bill(
                    request, found, made, builder.read(image, f"{image_paths.IMAGE}/{image_paths.RECORD}")
                ),
                provenance=request.records / _PROVENANCE,
            )
            provenance.write(built.provenance, request.plan, found, made, beside=[log, built.bill])
            builder.tag(image, request.tag)
        except BaseException:
            builder.remove(image)
            raise
    return built


def _bill(request: Request, found: Manifest, made: Made, record: str) -> Path:
    """Write the bill of materials, of what the image says is installed in it."""
    written = json.loads(record)
    installed = [
        InstalledDistribution(one["name"], one["version"], Path(one["location"]))
        for one in written["installed"]
    ]
    path = request.records / _BILL
    return sbom.write(path, made.name, made.digest, found, installed, source_date_epoch.now())


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for a builder's temporary files, removed with whatever it left mounted there."""
    work = Path(tempfile.mkdtemp(prefix="vimectl-image-"))
    try:
        yield work
    finally:
        # Removing a folder would go through a mount into what is mounted: the user's own sources.
        for mount in sorted(_mounts(work), reverse=True):
            subprocess.run(["umount", "--lazy", mount], capture_output=True, start_new_session=True)
        if not _mounts(work):
            shutil.rmtree(work, ignore_errors=True)


def _mounts(directory: Path) -> list[str]:
    """The mount points below a directory. Source: proc_pid_mountinfo(5), whose fifth field they are."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(directory.resolve())]
