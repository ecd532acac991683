"""Fetch and verify a package whose version number does not name one file (see ``[origin]`` in a stack)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.env.pip import Pip, files_taken
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin

_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_OFFERED = re.compile(r"\(from versions: (.*?)\)")


def download(
    pip: Pip,
    pin: Pin,
    origin: Origin,
    folder: Path,
    on_line: Callable[[str], None],
    extra: Sequence[str] = (),
) -> None:
    """Download a listed file into ``folder``: from the user's own sources, otherwise from its own index.

    ``extra`` are arguments for pip that say which interpreter it is for.

    Raises:
        CheckFailed: a file of that version was found and it is not a listed one.
        MissingRequirement: no source has the version.
    """
    common = ["download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=raw"]
    common += ["--dest", str(folder), *extra, "-r", pip.requirements([pin])]
    outputs = []
    # The index is named for this one package alone, so that one that cannot be reached delays nothing else.
    for source in ([], ["--index-url", origin.index, "--retries", "2"]):
        status, output = pip.run([*common, *source], on_line)
        if status == 0:
            return
        outputs.append(output)
    raise _refusal(pin, origin, outputs)


def verify(package: str, origin: Origin, site: Path) -> None:
    """Check by its marker that the installed build is the one meant. Raises CheckFailed when it is not."""
    marker = origin.marker
    try:
        text = (site / marker.path).read_text(encoding="utf-8", errors="replace")
    except OSError as e:
        raise CheckFailed(f"{package}: {site / marker.path} cannot be read: {e.strerror}") from e
    if not re.search(marker.pattern, text, re.MULTILINE):
        raise CheckFailed(
            f"{package}: {site / marker.path} does not say {marker.meaning}",
            "remove the environment's directory and create it again",
        )


def _refusal(pin: Pin, origin: Origin, outputs: list[str]) -> CheckFailed | MissingRequirement:
    expected = "; ".join(f"{file.name} sha256 {file.sha256}" for file in origin.files)
    hint = (
        f"give pip a source that has it: `pip config set global.find-links DIR` with the file in DIR, "
        f"or access to {origin.index}"
    )
    for output in outputs:
        got = _GOT.search(output)
        if got:
            taken = files_taken(output[: got.start()])
            name = taken[-1] if taken else f"a file of {pin.name} {pin.version}"
            return CheckFailed(f"found {name} sha256 {got[1]}, expected {expected}", hint)
    offered = [match[1] for output in outputs if (match := _OFFERED.search(output))]
    newest = offered[0].split(", ")[-1] if offered and offered[0] != "none" else ""
    found = (
        f"the newest of {pin.name} that pip's sources offer is {newest}"
        if newest
        else (f"pip's sources offer no {pin.name}")
    )
    return MissingRequirement(f"{pin.name} {pin.version}: {found}; expected {expected}", hint)
