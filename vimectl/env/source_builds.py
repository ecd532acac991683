"""Build the packages of a stack that have no usable wheel: from source archives and commits.

The build requirements are in the lock, so nothing is downloaded for a build but the sources. These are
checked: a source archive by its digest in the lock, a commit by its id.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.env.installer import UvInstaller
from vimectl.env.memory_saver import pinned_build
from vimectl.releases import git_source
from vimectl.releases.commit_archive import check_archive
from vimectl.releases.locked_files import download_locked
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import PinnedCommit, Stack
from vimectl.util.cann import HOME_VARIABLES, read_home
from vimectl.util.directory_lock import lock_directory
from vimectl.util.host import Host
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

SAVER = "torch-memory-saver"
_COMPILERS = ("g++", "c++", "clang++")
# setup.py of vLLM and vllm-ascend import torch, which would load torch_npu and with it CANN's libraries.
_ENVIRONMENT = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
# A package that compiles against CANN asks npu-smi for the chip when this does not name it.
_CHIP = "SOC_VERSION"


@dataclass(frozen=True)
class CommitBuild:
    """A distribution that is built from a commit. ``folder`` has its build files, "" for the root."""

    name: str
    url: str
    commit: str
    left_out: Collection[str]
    folder: str = ""


def commit_builds(stack: Stack, host: Host) -> list[CommitBuild]:
    """Return what is built from commits on this machine: the memory saver only with CANN."""

    def build(name: str, pin: PinnedCommit, folder: str = "") -> CommitBuild:
        return CommitBuild(canonicalize_name(name), pin.url, pin.commit, tuple(pin.left_out), folder)

    found = [build(pin.distribution, pin) for pin in stack.commits.values() if pin.distribution]
    if stack.memory_saver and read_home(host):
        found.append(build(SAVER, stack.memory_saver, pinned_build.FOLDER))
    return found


def check_requirements(stack: Stack, host: Host) -> None:
    """Check that this machine has what the builds of a stack need, before anything is created.

    Raises MissingRequirement that names everything that is missing.
    """
    missing = dict(_missing(stack, host))
    if missing:
        raise MissingRequirement(
            f"{stack.name} is partly built from source, which needs {'; '.join(missing)}",
            "; ".join(dict.fromkeys(missing.values())),
        )


def _missing(stack: Stack, host: Host) -> Iterator[tuple[str, str]]:
    """Yield what is missing, each with how to get it."""
    path = host.environment.get("PATH", "")
    builds = commit_builds(stack, host)
    if builds and not shutil.which("git", path=path):
        yield "git", "apt-get install git"
    if builds and not any(shutil.which(name, path=path) for name in _COMPILERS):
        yield "a C++ compiler", "apt-get install g++"
    compiled = [name for name, source in stack.sources.items() if source.needs_cann]
    if not compiled:
        return
    names = f"for {' and '.join(compiled)}"
    script = "source /usr/local/Ascend/ascend-toolkit/set_env.sh"
    if not read_home(host):
        yield f"CANN {stack.cann} {names}", f"install the CANN toolkit {stack.cann}, then: {script}"
    elif not any(host.environment.get(name) for name in HOME_VARIABLES):
        yield f"the environment of CANN {names}", script
    nnal = host.environment.get("ATB_HOME_PATH")
    if not nnal or not host.is_dir(nnal):
        yield (
            f"NNAL {stack.nnal} and its environment {names}",
            f"install NNAL {stack.nnal}, then: source /usr/local/Ascend/nnal/atb/set_env.sh",
        )
    if not host.environment.get(_CHIP) and not shutil.which("npu-smi", path=path):
        yield (
            f"npu-smi, or {_CHIP} with the chip, {names}",
            f"export {_CHIP}=CHIP, such as ascend910b1",
        )


def left_out(stack: Stack, pins: Mapping[str, Pin], python: Path, host: Host) -> list[str]:
    """Return what an environment is made without, each with the reason and how to get it."""
    texts = []
    for name, origin in stack.origin.items():
        if name not in pins:
            command = f"{python} -m pip install --no-deps {name}=={stack.packages[name]} -i {origin.index}"
            texts.append(f"{name}: no digest of its wheel for this machine is known; install it: {command}")
    if stack.memory_saver and not read_home(host):
        texts.append(
            f"{SAVER}: it is compiled against CANN, which is not on this machine; with CANN run the same "
            "command again"
        )
    return texts


def install_archives(uv: UvInstaller, stack: Stack, pins: list[Pin]) -> None:
    """Build and install pins from their source archives.

    Raises:
        CheckFailed: an archive has another digest, or a build failed.
        MissingRequirement: no source has an archive or can be reached, or the disk is full.
    """
    folder = uv.work / "archives"
    for pin, archive in zip(pins, download_locked(pins, folder, {}, uv.report), strict=True):
        uv.report(PhaseProgress(f"building {pin.name} {pin.version}"))
        uv.install_local([str(archive)], {**_ENVIRONMENT, **stack.sources[pin.name].environment})


def install_commits(uv: UvInstaller, builds: list[CommitBuild]) -> None:
    """Build and install packages from the archives of their commits, which stay in the user's cache.

    Raises:
        CheckFailed: a repository has no such commit, or a build failed.
        MissingRequirement: a repository cannot be reached.
    """
    cache = Path(platformdirs.user_cache_dir("vimectl")) / "commits"
    for build in builds:
        uv.report(PhaseProgress(f"building {build.name} at {build.commit[:12]}"))
        # On the disk of the environment: sources take more space than the directory for temporary files has.
        with tempfile.TemporaryDirectory(dir=uv.work) as folder:
            _unpack(build, cache / f"{build.name}-{build.commit}", Path(folder), uv.report)
            uv.install_local([str(Path(folder, build.folder))], _ENVIRONMENT)


def _unpack(build: CommitBuild, cache: Path, target: Path, report: ReportPhase) -> None:
    """Unpack the archive of a commit, which is checked by the commit's id and fetched unless it is cached."""

    def on_line(line: str) -> None:
        report(PhaseProgress("downloading", detail=f"{build.name} {line}"))

    with lock_directory(cache, lambda: None) as lock_fd:
        archive = cache / "source.tar.gz"
        for attempt in ("cached", "fetched"):
            if not archive.is_file():
                git_source.archive(build, archive, cache / "work", lock_fd, on_line)
            try:
                with archive.open("rb") as file:
                    check_archive(file, archive.name, build.commit, target)
                return
            except CheckFailed:
                archive.unlink()
                shutil.rmtree(target)
                target.mkdir()
                if attempt == "fetched":
                    raise
