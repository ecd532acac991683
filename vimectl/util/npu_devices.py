"""The NPU device nodes of a host, and the driver files that a container needs from it.

Source: `docker run` in vllm-ascend's installation guide (0.22.1rc1), and its multi-node guides for hccn.conf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.util.host import Host

# Device nodes of the driver itself. No NPU can be opened without them.
MANAGER_NODES = ("/dev/davinci_manager", "/dev/devmm_svm", "/dev/hisi_hdc")


@dataclass(frozen=True)
class DriverMount:
    """A file or directory of the driver. No process can use an NPU when a ``needed`` one is missing, and no
    job on several nodes can communicate when one for ``several`` is.
    """

    path: str
    why: str
    needed: bool = False
    several: bool = False
    directory: bool = False


# They are mounted writable, as in these guides.
MOUNTS = (
    DriverMount(
        "/usr/local/Ascend/driver/lib64",
        "the driver's libraries, which every process on an NPU loads",
        needed=True,
        directory=True,
    ),
    DriverMount("/usr/local/Ascend/driver/version.info", "the driver's version", needed=True),
    DriverMount("/usr/local/dcmi", "the library that npu-smi uses", needed=True, directory=True),
    DriverMount("/etc/ascend_install.info", "the driver's installation directory", needed=True),
    DriverMount("/usr/local/bin/npu-smi", "the driver's command line tool, which the doctor runs"),
    DriverMount("/usr/local/Ascend/driver/tools/hccn_tool", "shows the network of the NPUs", several=True),
    DriverMount("/etc/hccn.conf", "the network addresses of the NPUs, for multi-node runs", several=True),
)


def device_numbers(host: Host) -> list[int]:
    """Return the numbers of the NPU device nodes, ascending."""
    numbers = (re.fullmatch(r"davinci(\d{1,6})", name) for name in host.names("/dev"))
    return sorted(int(one[1]) for one in numbers if one)


def device_nodes(host: Host) -> list[str]:
    """Return the paths of the NPU device nodes, in numeric order."""
    return [f"/dev/davinci{number}" for number in device_numbers(host)]
