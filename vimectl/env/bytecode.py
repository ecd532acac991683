"""Compile the modules of an environment, and share the byte code with other environments.

    PYTHON bytecode.py SITE_PACKAGES CACHE

uv installs a stack faster than Python compiles it. Without byte code each process of the first run would
compile what it imports, and of every run where PYTHONDONTWRITEBYTECODE is set. The cache has byte code by the
digest of its source. The environment's own interpreter runs this file: it imports only the standard library.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

# Magic number, flags, time and size of the source, 4 bytes each. Source: PEP 552.
_HEADER_BYTES = 16
_MODULES_AT_A_TIME = 256


def compile_site(site: Path, cache: Path) -> None:
    """Compile every module below ``site`` that has no valid byte code, on all cores."""
    folder = cache / f"{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER.hex()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        work = partial(compile_module, cache=folder)
        for _ in pool.map(work, _modules(site), chunksize=_MODULES_AT_A_TIME):
            pass


def compile_module(source: str, cache: Path) -> None:
    """Put byte code for ``source`` into its ``__pycache__``: from ``cache``, or compiled and kept there.

    Does nothing for a file that is not valid Python: some packages contain templates.
    """
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        kept = cache / hashlib.sha256(file.read()).hexdigest()
    numbers = (0, int(status.st_mtime), status.st_size)
    header = importlib.util.MAGIC_NUMBER + b"".join((n & 0xFFFFFFFF).to_bytes(4, "little") for n in numbers)
    target = Path(importlib.util.cache_from_source(source))
    if _header(target) == header:
        return
    target.parent.mkdir(exist_ok=True)
    found = _header(kept)
    if found == header:
        _place(kept, target)
    elif found:
        # Another copy of the same source, with another time.
        temporary = target.with_name(f"{target.name}.{os.getpid()}")
        temporary.write_bytes(header + kept.read_bytes()[_HEADER_BYTES:])
        temporary.replace(target)
    else:
        try:
            py_compile.compile(
                source,
                str(target),
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
            )
        except py_compile.PyCompileError:
            return
        _place(target, kept)


def _modules(site: Path) -> Iterator[str]:
    for folder, _, names in os.walk(site):
        yield from (os.path.join(folder, name) for name in names if name.endswith(".py"))


def _header(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def _place(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``, or copy it to another disk. Python never changes byte code in place."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


if __name__ == "__main__":
    compile_site(Path(sys.argv[1]), Path(sys.argv[2]))
