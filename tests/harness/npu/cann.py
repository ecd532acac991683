"""Build the stand-ins for CANN's C libraries against the headers in the released torch_npu."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from functools import cache
from pathlib import Path

from harness import TESTS
from harness.upstream import released

SOURCES = TESTS / "npu" / "cann"
TORCH_NPU = "2.13.0"
ZIG = "0.17.1"  # the compiler of a machine that has none
FLAGS = ["-O2", "-g", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror"]
# What processes load, each with its sources; libascendcl has all others. The empty ones torch_npu only loads.
LIBRARIES = {
    "hccl": "hccl*.cpp",  # the headers are C++
    "acl_op_compiler": "op_compiler.c",
    "opapi": "opapi.c",
    "torch_memory_saver": "memory_saver.c",
    "atb": "atb.c",
    "vllm_ascend_C": "camem.cpp",
    "acl_tdt_channel": "",
    "ge_runner": "",
    "graph": "",
}


@cache
def torch_npu() -> Path:
    """Return a folder for PYTHONPATH with the released torch_npu, unpacked once per user."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(released.wheel("torch_npu", TORCH_NPU)) as archive:
            archive.extractall(folder)

    return released.cached("torch_npu", TORCH_NPU, unpack)


@cache
def build() -> Path:
    """Return a folder for LD_LIBRARY_PATH with the compiled stand-ins, built once per user and content."""
    include = torch_npu() / "torch_npu" / "include"
    paths = [include, *(include / "third_party" / library / "inc" for library in ("acl", "hccl"))]
    compile_c = compiler()
    own = {name: sorted(SOURCES.glob(pattern)) if pattern else [] for name, pattern in LIBRARIES.items()}
    common = sorted(set(SOURCES.glob("*.c")).difference(*own.values()))
    content = hashlib.sha256(repr((TORCH_NPU, compile_c)).encode())
    for source in (Path(__file__), *sorted(SOURCES.iterdir())):
        content.update(source.name.encode() + source.read_bytes())

    def compile_all(folder: Path) -> None:
        linked = [f"-L{folder}", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", "-lascendcl"]
        for name, sources in {"ascendcl": common, **own}.items():
            standard = "-std=gnu++17" if "cpp" in LIBRARIES.get(name, "") else "-std=gnu11"
            files = sources or ["-x", "c", os.devnull, "-x", "none"]
            output = ["-o", folder / f"lib{name}.so", *files, *(linked if name != "ascendcl" else [])]
            done = subprocess.run(
                [*compile_c, standard, *FLAGS, *(f"-I{path}" for path in paths), *output],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        # torch_npu looks HcclGroupStart and HcclGroupEnd up here, the rest of HCCL in libhccl.
        (folder / "libhcomm.so").symlink_to("libhccl.so")
        # vllm-ascend looks for this name among the mapped files (device_allocator/camem.py, lib_name).
        (folder / "libvllm_ascend_C.so").rename(folder / "vllm_ascend_C.so")

    return released.cached("cann", content.hexdigest()[:32], compile_all)


def compiler() -> list[str]:
    """Return the command for C and for C++ without its library: the machine's compiler, else that of a wheel.

    zig builds the library of C++ from source when it is needed, which takes minutes.
    """
    if shutil.which("cc") and shutil.which("c++"):
        return ["cc"]

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(released.wheel("ziglang", ZIG)) as archive:
            archive.extractall(folder)
        (folder / "ziglang" / "zig").chmod(0o755)

    return [str(released.cached("ziglang", ZIG, unpack) / "ziglang" / "zig"), "cc"]
