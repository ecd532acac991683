"""Make a small base image to build on in tests, where the real one (16 GB) is not available.

Real in it: Debian with its Python, and the Python sources of vLLM and vllm-ascend as they were released,
where the real base has them. Made up: a CANN tree (folders, version files and a set_env.sh), and the metadata
of what takes gigabytes or an NPU (torch, torchvision, torch-npu, triton-ascend, ray, transformers), and the
compiled operators of vllm-ascend.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import platformdirs

from harness.memory_saver.elf_file import ElfFile
from harness.upstream import released
from vimectl.stacks.catalog import load_stack

STACK = "ascend-0.22"
IMAGE = "localhost/vimectl-stand-in-base"
DEBIAN_IMAGE = "localhost/vimectl-stand-in-debian"
# Build tools that the base has as well.
TOOLS = ["setuptools==79.0.1", "wheel==0.45.1", "pybind11==2.13.6"]
PYTHON = "/usr/local/python3.11"
SITE = f"{PYTHON}/lib/python3.11/site-packages"
WORKSPACE = "/vllm-workspace"
_CANN = "/usr/local/Ascend/cann-9.0.0"

FILES = {
    f"{_CANN}/x86_64-linux/ascend_toolkit_install.info": "package_name=Ascend-cann-toolkit\nversion=9.0.0\n",
    f"{_CANN}/x86_64-linux/ascend_ops_install.info": "package_name=Ascend-cann-910b-ops\nversion=9.0.0\n",
    f"{_CANN}/opp/built-in/op_impl/ai_core/tbe/kernel/ascend910b/stand-in.txt": "no kernel\n",
    f"{_CANN}/lib64/libascendcl.so": "",
    f"{_CANN}/lib64/libhccl.so": "",
    f"{_CANN}/python/site-packages/acl.so": "",
    f"{_CANN}/python/site-packages/tbe/__init__.py": "",
    f"{_CANN}/set_env.sh": f"""\
export ASCEND_TOOLKIT_HOME={_CANN} ASCEND_HOME_PATH={_CANN} ASCEND_OPP_PATH={_CANN}/opp
export LD_LIBRARY_PATH={_CANN}/lib64:$LD_LIBRARY_PATH
export PYTHONPATH={_CANN}/python/site-packages:$PYTHONPATH
""",
    "/usr/local/Ascend/nnal/atb/9.0.0/version.info": "    Ascend-cann-atb : 9.0.0\n",
    "/usr/local/Ascend/nnal/atb/9.0.0/atb/cxx_abi_1/lib/libatb.so": "",
    # Like the real one, it reads the arguments of the script that sources it.
    "/usr/local/Ascend/nnal/atb/set_env.sh": """\
if [ $# -gt 0 ]; then echo "sourced with the arguments $*" >&2; return 1; fi
export ATB_HOME_PATH=/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_1
export LD_LIBRARY_PATH=$ATB_HOME_PATH/lib:$LD_LIBRARY_PATH
""",
    "/etc/Ascend/ascend_cann_install.info": "Toolkit_InstallPath=/usr/local/Ascend/ascend-toolkit/latest\n",
}
LINKS = {
    "/usr/local/Ascend/cann": _CANN,
    "/usr/local/Ascend/ascend-toolkit/latest": "/usr/local/Ascend/cann",
    "/usr/local/Ascend/ascend-toolkit/set_env.sh": "/usr/local/Ascend/cann/set_env.sh",
    "/usr/local/Ascend/nnal/atb/latest": "9.0.0",
}
# What Debian's smallest system lacks: vLLM's compiled part needs libnuma.
DEBIAN = "python3,python3-venv,ca-certificates,libnuma1"
# Packages of which only name and version exist.
SHIPPED = {
    "torch": "2.10.0+cpu",
    "torch-npu": "2.10.0",
    "triton-ascend": "3.2.1",
    "torchvision": "0.25.0",
    "ray": "2.48.0",
    "transformers": "5.5.4",
}


def storage() -> Path:
    """Return a store of images with the two fake bases, made once per user; tests only read it."""
    made_of = repr((DEBIAN, FILES, LINKS, SHIPPED, TOOLS, PYTHON, STACK))
    key = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    return released.cached("stand-in", key, _fill)


def configure(graph_root: Path, run_root: Path, file: Path, others: Sequence[Path] = ()) -> dict[str, str]:
    """Write a containers-storage configuration; return the environment variable that selects it."""
    found = json.dumps([str(other) for other in others])
    file.write_text(
        f'[storage]\ndriver = "{driver()}"\ngraphroot = "{graph_root}"\nrunroot = "{run_root}"\n'
        f"[storage.options]\nadditionalimagestores = {found}\n"
    )
    return {"CONTAINERS_STORAGE_CONF": str(file)}


def driver() -> str:
    """Return the storage driver that works here: overlay, which is fast, unless the disk is an overlay."""
    folder = Path(platformdirs.user_cache_dir())
    folder.mkdir(parents=True, exist_ok=True)
    return "vfs" if _run(["stat", "--file-system", "--format=%T", str(folder)]) == "overlayfs" else "overlay"


def _fill(folder: Path) -> None:
    tree = folder / "tree"
    _debian(tree)
    variables = configure(folder / "graph", folder / "run", folder / "storage.conf")

    def buildah(*arguments: str) -> str:
        return _run(["buildah", *arguments], variables)

    path = f"PATH={PYTHON}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def commit(name: str) -> None:
        container = buildah("from", "scratch")
        try:
            buildah("add", "--quiet", container, str(tree), "/")
            buildah("config", "--env", path, container)
            buildah("commit", "--quiet", container, name)
        finally:
            buildah("rm", container)

    commit(DEBIAN_IMAGE)
    _ascend(tree)
    commit(IMAGE)
    shutil.rmtree(tree)
    shutil.rmtree(folder / "run", ignore_errors=True)


def _debian(tree: Path) -> None:
    """Install Debian from this machine's apt mirror, with an interpreter like that of the real base."""
    suite, mirror = _mirror()
    _run(["debootstrap", "--variant=minbase", f"--include={DEBIAN}", suite, str(tree), mirror])
    for left in ("var/cache/apt", "var/lib/apt/lists", "var/log", "var/cache/debconf"):
        for path in (tree / left).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _run(["chroot", str(tree), "python3", "-m", "venv", PYTHON])


def _ascend(tree: Path) -> None:
    for path, text in FILES.items():
        _write(tree, path, text)
    for path, target in LINKS.items():
        (tree / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tree / path.lstrip("/")).symlink_to(target)
    for name, version in SHIPPED.items():
        _metadata(tree, name, version)
    stack = load_stack(STACK)
    for package in stack.patches:
        version = stack.packages[package]
        sources = released.python_sources(package, version)
        module, place = package.replace("-", "_"), f"{WORKSPACE}/{package}"
        shutil.copytree(sources / module, tree / place.lstrip("/") / module)
        if package == "vllm-ascend":
            machine = platform.machine()
            operators = f"{place}/{module}/vllm_ascend_C.cpython-311-{machine}-linux-gnu.so"
            (tree / operators.lstrip("/")).write_bytes(ElfFile(machine).content())
        folder = _metadata(tree, package, f"{version}+empty" if package == "vllm" else version)
        stated = {"url": f"file://{place}", "dir_info": {"editable": True}}
        _write(tree, f"{folder}/direct_url.json", json.dumps(stated))
        _write(tree, f"{SITE}/__editable__.{module}.pth", f"{place}\n")
    options = ["--quiet", "--no-deps", "--no-compile", "--upgrade"]
    target = f"--target={tree / SITE.lstrip('/')}"
    _run(["python3", "-m", "pip", "install", *options, target, *TOOLS])


def _metadata(tree: Path, name: str, version: str) -> str:
    folder = f"{SITE}/{name.replace('-', '_')}-{version}.dist-info"
    _write(tree, f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    _write(tree, f"{folder}/INSTALLER", "stand-in\n")
    return folder


def _mirror() -> tuple[str, str]:
    """Return the suite and the address from which this machine's apt gets Debian."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    suite = release["VERSION_CODENAME"].strip('"')
    form = "$(SITE) $(REPO_URI) $(CODENAME) $(COMPONENT)"
    listed = _run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    for line in listed.splitlines():
        _, address, codename, component = line.split()
        if (codename, component) == (suite, "main") and "security" not in address:
            return suite, address
    raise AssertionError(f"apt knows no main of {suite}: {listed}")


def _write(tree: Path, path: str, text: str) -> None:
    file = tree / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _run(command: Sequence[str], variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=os.environ | (variables or {}), capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()
