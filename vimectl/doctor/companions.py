"""packages: how the stack's packages lie there: checkouts, whole or overwritten, and in what company."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from vimectl.doctor.editable import commit, installs
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.detection import find
from vimectl.stacks.installed import InstalledDistribution

# The runtime libraries of CUDA, and what is compiled for it alone.
_CUDA_PREFIXES = ("nvidia-", "cuda-bindings", "cuda-pathfinder", "cuda-toolkit", "cupy-cuda")
_CUDA = frozenset({"flash-attn", "flashinfer-python", "transformer-engine", "apex", "deep-ep", "xformers"})


def checks() -> list[Check]:
    return [
        Check(
            "packages.editable",
            "a checkout that moves on is no release: its commit is to be the version's",
            _editable,
        ),
        Check(
            "packages.cuda",
            "packages for CUDA replace files of the stack's own (triton) or are imported in its place",
            _cuda,
        ),
        Check(
            "packages.partners",
            "torchvision and torchaudio are compiled against one version of torch; another breaks them",
            _partners,
        ),
        Check(
            "packages.intact",
            "two distributions may have files in one folder (triton, triton-ascend): what is installed later "
            "overwrites them, what is uninstalled takes them along",
            _intact,
        ),
        Check(
            "packages.requires", "what a package of the stack requires must be there to import it", _requires
        ),
    ]


def _editable(subject: Subject) -> Outcome:
    names = {canonicalize_name(d) for p in subject.stack.packages for d in subject.stack.distributions(p)}
    found, moved = [], []
    for one in installs(subject.host):
        if one.name not in names:
            continue
        state = commit(subject.host, one.place)
        if state is None:
            found.append(f"{one.name} in {one.place}, no git checkout")
            continue
        changed = f", {state.changed} files changed" if state.changed else ""
        found.append(f"{one.name} in {one.place} at {state.described}{changed}")
        # git describe gives the tag alone when the commit has one; a version may have a local part.
        if state.described.removeprefix("v") != one.version.partition("+")[0]:
            moved.append(one)
    return judged(
        not moved,
        "; ".join(found) or "none of the stack",
        "each at the tag of its version",
        "; ".join(f"git -C {one.place} checkout v{one.version.partition('+')[0]}" for one in moved),
        "warn",
    )


def _cuda(subject: Subject) -> Outcome:
    if subject.stack.stack.device == "cuda":
        return skipped("the stack computes on CUDA")
    installed = subject.installed
    there = [name for name in sorted(installed) if name.startswith(_CUDA_PREFIXES) or name in _CUDA]
    if subject.stack.stack.device == "npu" and "triton" in installed and "triton-ascend" in installed:
        there += [] if _wanted_by(installed["triton-ascend"][0], "triton") else ["triton"]
    shown = ", ".join(there[:4]) + (f" and {len(there) - 4} more" if len(there) > 4 else "")
    return judged(
        not there,
        shown or "none",
        "no package for CUDA",
        f"python -m pip uninstall --yes {' '.join(there)}",
        "warn",
    )


def _partners(subject: Subject) -> Outcome:
    installed = subject.installed
    torch = installed.get("torch")
    if not torch:
        return skipped("torch is not installed")
    found, wrong = [], []
    for name in ("torchvision", "torchaudio"):
        for item in installed.get(name, [])[:1]:
            found.append(f"{name} {item.version}")
            asked = _wanted_by(item, "torch")
            if asked and not asked.specifier.contains(torch[0].version, prereleases=True):
                wrong.append(f"{name} {item.version} is for torch{asked.specifier}")
    return judged(
        not wrong,
        "; ".join(wrong) or ", ".join(found) or "neither is installed",
        f"built for torch {torch[0].version}",
        "python -m pip uninstall --yes " + " ".join(text.split()[0] for text in wrong),
    )


def _intact(subject: Subject) -> Outcome:
    installed = subject.installed
    wrong: dict[str, list[str]] = {}
    read = 0
    for package in subject.stack.packages:
        item = find(subject.stack, package, installed)
        for path, digest in _recorded(item) if item else ():
            read += 1
            try:
                content = (item.location / path).read_bytes() if item else b""
            except OSError:
                wrong.setdefault(package, []).append(f"{path} is gone")
                continue
            if digest and digest != _digest(content):
                wrong.setdefault(package, []).append(f"{path} is another's")
    if not read:
        return skipped("no package of the stack has a RECORD of its files")
    shown = [f"{package}: {texts[0]}" for package, texts in wrong.items()]
    return judged(
        not wrong,
        "; ".join(shown) or f"{read} modules as their packages brought them",
        "the files that each package brought",
        "python -m pip install --force-reinstall --no-deps "
        + " ".join(f"{package}=={subject.stack.packages[package]}" for package in wrong),
    )


def _requires(subject: Subject) -> Outcome:
    installed = subject.installed
    left_out = {canonicalize_name(name) for name in {**subject.stack.omitted, **subject.stack.unwanted}}
    lacking = []
    for package in subject.stack.packages:
        item = find(subject.stack, package, installed)
        for asked in _requirements(item) if item else ():
            name = canonicalize_name(asked.name)
            if name in installed or name in left_out:
                continue
            # torch itself may come under another name; the versions are packages.lock's business.
            lacking.append(f"{asked.name} (for {package})")
    shown = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
    return judged(
        not lacking,
        f"absent: {shown}" if lacking else "all there",
        "everything that the packages of the stack require",
        "python -m pip install --no-deps " + " ".join(dict.fromkeys(text.split()[0] for text in lacking)),
        "warn",
    )


def _recorded(item: InstalledDistribution) -> list[tuple[str, str]]:
    """The top modules of a distribution, with their digests as its RECORD has them ("": none)."""
    found = []
    for file in _metadata(item, "RECORD"):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            path, _, rest = line.partition(",")
            if path.endswith("/__init__.py") and path.count("/") == 1:
                method, _, digest = rest.partition(",")[0].partition("=")
                found.append((path, digest if method == "sha256" else ""))
    return found


def _digest(content: bytes) -> str:
    # As RECORD has it: urlsafe base64 without padding.
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _metadata(item: InstalledDistribution, name: str) -> Iterator[Path]:
    """A file of the metadata folder of a distribution, whose name may be spelled in several ways."""
    for file in item.location.glob(f"*-{item.version}.dist-info/{name}"):
        if canonicalize_name(file.parent.name.partition("-")[0]) == item.name:
            yield file


def _wanted_by(item: InstalledDistribution, name: str) -> Requirement | None:
    return next((asked for asked in _requirements(item) if canonicalize_name(asked.name) == name), None)


def _requirements(item: InstalledDistribution) -> list[Requirement]:
    """What a distribution requires here, without its extras; nothing when it does not say."""
    found = []
    for file in _metadata(item, "METADATA"):
        head = file.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
        for line in head.splitlines():
            # Most of them are of extras: not worth parsing.
            if line.startswith("Requires-Dist:") and "extra ==" not in line:
                with suppress(InvalidRequirement):
                    asked = Requirement(line.partition(":")[2].strip())
                    if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                        found.append(asked)
    return found
