"""Read which instructions the processors have."""

from __future__ import annotations

import re

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host

CPUINFO = "/proc/cpuinfo"


def read_instructions(host: Host) -> tuple[str, frozenset[str]]:
    """Return the model of the processors, and the features that all of them have.

    They are ``flags`` on x86-64 and ``Features`` on aarch64; the kernel's elf_hwcaps.rst has their meaning.

    Raises:
        Unavailable: /proc/cpuinfo lists no features.
    """
    text = host.read(CPUINFO) or ""
    listed = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    if not listed:
        raise Unavailable(f"{CPUINFO} lists no features of the processor")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    maker = re.search(r"^CPU implementer\s*:\s*(\S+)", text, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)", text, re.MULTILINE)
    name = f"implementer {maker[1]}, part {part[1]}" if maker and part else "the processor"
    return model[1] if model else name, frozenset.intersection(*(frozenset(one.split()) for one in listed))
