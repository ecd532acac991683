"""Stand-ins for the libraries of CANN that extension modules are linked with and ``tests/npu/cann`` lacks.

Modules can then be loaded, not used: every function returns 0.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from harness.npu import cann

_LIBRARY = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_SYMBOL = re.compile(r"^undefined symbol: (\S+)", re.MULTILINE)
# The program that loads a module has these.
_OF_PYTHON = re.compile(r"_?Py")


def build(modules: Sequence[Path], libraries: Sequence[Path], folder: Path) -> list[str]:
    """Write into ``folder`` what the dynamic linker does not find for ``modules``; return the symbols.

    Args:
        libraries: the folders of the libraries that are there.
    """
    environment = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}
    found = ""
    for module in modules:
        command = ["ldd", "-r", module]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        found += done.stdout
    symbols = sorted({name for name in _SYMBOL.findall(found) if not _OF_PYTHON.match(name)})
    lines = (
        f'int f{i}(void) __asm__("{name}"); int f{i}(void) {{ return 0; }}' for i, name in enumerate(symbols)
    )
    (folder / "missing.c").write_text("\n".join(lines))
    output = folder / "libmissing.so"
    subprocess.run([*cann.compiler(), "-shared", "-fPIC", "-o", output, folder / "missing.c"], check=True)
    for name in set(_LIBRARY.findall(found)):
        (folder / name).symlink_to(output.name)
    return symbols
