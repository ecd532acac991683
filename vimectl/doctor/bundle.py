"""Write a support bundle: a zip file with the facts of a machine, without secrets and names."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.process_roles import ROLES
from vime_runtime.spec.recipe import Recipe

from vimectl import __version__
from vimectl.doctor.redact import Redactor
from vimectl.doctor.runner import DoctorReport
from vimectl.env.memory_saver.verify import verify_installed
from vimectl.recipes.environment import environment
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.detection import detect_stack
from vimectl.stacks.installed import distributions
from vimectl.util.host import Host

# Only variables that concern the stack are included, by prefix. Not even the names of the others are.
_VARIABLES = (
    "ACL", "ASCEND", "ASDOPS", "ATB", "CANN", "CUDA", "GLOO", "HCCL", "HF_HUB_OFFLINE", "LCCL", "LCAL",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "MASTER_", "MEGATRON", "MKL", "NCCL", "NPU", "OMP", "PATH", "PYTHON",
    "PYTORCH", "RAY", "TASK_QUEUE", "TBE", "TMPDIR", "TMS", "TOKENIZERS", "TOOLCHAIN", "TORCH", "TRITON",
    "VIME", "VIRTUAL_ENV", "VLLM", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
_FILES = (
    "/etc/os-release",
    "/proc/version",
    "/proc/meminfo",
    "/proc/self/limits",
    "/proc/self/status",
    "/proc/self/cgroup",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/ip_local_reserved_ports",
    "/usr/local/Ascend/driver/version.info",
    "/usr/local/Ascend/firmware/version.info",
    "/usr/local/Ascend/nnal/atb/latest/version.info",
)
_COMMANDS = (
    ["uname", "-srm"],
    ["df", "-Pk", "/dev/shm", "."],
    ["npu-smi", "info"],
    ["npu-smi", "info", "-m"],
    ["nproc"],
)
_SECONDS = 10
_README = """The facts that `vimectl doctor --bundle` collected on a machine, to attach to a bug report.

    doctor.txt, doctor.json   the report
    stack.json                the stack, and how the installed packages differ from it
    packages.json             every package of the interpreter: version and directory
    environment.json          the variables that concern the stack, here and in each process
    memory_saver.json         the torch_memory_saver libraries
    recipe.json               the recipe, if one was given
    files/, commands/         files of the machine and output of commands

Secrets are replaced by <secret>, names of people by <user>, those of the machine by <host>. No program can
recognize all of them: check the files before you share them.
"""


def check_bundle_path(file: Path) -> None:
    """Raise UsageError if a bundle cannot be written to ``file``. Called before the slow part."""
    if file.exists():
        raise UsageError(f"{file} exists already", "give another file to --bundle, or remove it")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file.absolute().parent}: no such directory", "give a file in one that exists")


def write_bundle(file: Path, report: DoctorReport, text: str, host: Host, recipe: Recipe | None) -> list[str]:
    """Write a bundle, a zip file that only its owner can read.

    Args:
        text: the report as text.

    Returns:
        the names of the files in it.

    Raises:
        UsageError: the file exists already, or cannot be written.
    """
    check_bundle_path(file)
    host = host.with_command_cache()
    redact = Redactor(host)
    stack = load_stack(report.stack)
    documents: dict[str, Any] = {
        "doctor.json": {"vimectl": __version__, **report.as_json()},
        "stack.json": {"stack": stack.model_dump(), "installed": asdict(detect_stack(host))},
        "packages.json": {
            name: [f"{item.version} in {item.location}" for item in items]
            for name, items in sorted(distributions(host).items())
        },
        "environment.json": _environment(host, recipe),
        "memory_saver.json": [asdict(build) for build in verify_installed(host, stack)],
    }
    if recipe:
        documents["recipe.json"] = recipe.model_dump(mode="json")
    contents = {"README.txt": _README, "doctor.txt": redact.text(text)}
    contents |= {
        name: json.dumps(redact.value(document), indent=2, default=str) + "\n"
        for name, document in documents.items()
    }
    for path in _FILES:
        if (found := host.read(path)) is not None:
            contents[f"files{path}"] = redact.text(found)
    for argv in _COMMANDS:
        answer = host.run(argv, _SECONDS)
        output = f"$ {' '.join(argv)}\nexit status {answer.code}\n{answer.stdout}{answer.stderr}"
        contents[f"commands/{'-'.join(argv).replace('/', '_')}.txt"] = redact.text(output)
    _write_zip(file, contents)
    return list(contents)


def _write_zip(file: Path, contents: dict[str, str]) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise UsageError(f"{file}: cannot be written: {e.strerror}", "give another file to --bundle") from e
    with os.fdopen(descriptor, "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def _environment(host: Host, recipe: Recipe | None) -> dict[str, Any]:
    here = {name: value for name, value in sorted(host.environment.items()) if name.startswith(_VARIABLES)}
    found: dict[str, Any] = {"here": here, "others": len(host.environment) - len(here)}
    if recipe:
        scratch = Path("/tmp/vime-0")
        found["processes"] = {
            role: {
                name: setting.model_dump()
                for name, setting in environment(recipe, role, host, scratch).items()
            }
            for role in ROLES
        }
    return found
