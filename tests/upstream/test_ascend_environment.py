"""An environment for NPUs, created from its lock and imported over the stand-ins for CANN.

What cannot be had where the test runs is replaced or left out, and printed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit
from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import MissingRequirement

from harness.npu import cann, missing_libraries
from harness.npu.machine import Machine
from vimectl.doctor.facts.packages import module_of
from vimectl.env.uv import uv_environment
from vimectl.releases import pip_config
from vimectl.releases.locked_files import download_locked
from vimectl.stacks.catalog import load_stack, lock_path
from vimectl.stacks.lock import Pin, read_lock
from vimectl.stacks.schema import PinnedPackage, Stack

STACK = "ascend-0.22"
# Both load extension modules that are linked with more libraries of CANN than torch_npu.
ENGINE = "import vllm_ascend.vllm_ascend_C"
TRAINER = "from vime_runtime.device import get; get('npu').before_megatron(); import megatron.core"
EXTENSIONS = ("torch_npu/dynamo/torchair/core/_npu_graph_executor.so", "vllm_ascend/vllm_ascend_C.*.so")
LIBRARIES = ("torch/lib", "torch_npu/lib")
# A mangled name in a namespace of torch or torch_npu.
OF_TORCH = re.compile(r"_ZNK?(2at|3c10|5torch|6caffe2|6at_npu|7c10_npu)")
VERSIONS = (
    "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


@pytest.mark.exhaustive
@pytest.mark.needs("network")
def test_every_installed_package_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the packages of the stack, whether each is installed and imports, and what was not tried."""
    stack = load_stack(STACK)
    file, not_tried = obtainable(stack, tmp_path)
    # Not among the directories that pytest keeps.
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        directory = Path(folder, "env")
        command = [sys.executable, "-m", "vimectl", "env", "create", directory, "--stack", file, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        assert done.returncode == 0, done.stdout
        named = {text.split()[0] for text in not_tried}
        left_out = json.loads(done.stdout)["left_out"]
        not_tried += [text for text in left_out if text.partition(":")[0] not in named]
        rows, failures = import_all(stack, directory, tmp_path)
    with capsys.disabled():
        print(f"\n{stack.name}, {len(read_lock(file.with_suffix('.txt')))} packages of its lock installed")
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, (28, 26, 10, 8), strict=True)))
        print(*(f"not tried: {text}" for text in not_tried), sep="\n")
    assert not failures


def obtainable(stack: Stack, folder: Path) -> tuple[Path, list[str]]:
    """Write a stack file with what this machine can have of a stack, and its lock next to it.

    Return the file, and what it lacks or has another build of, each with the reason.
    """
    pins = read_lock(lock_path(stack.name))
    missing: dict[str, Pin] = {}
    for name in sorted(stack.origin.keys() & pins.keys()):
        try:
            download_locked([pins[name]], folder / "files", stack.origin, lambda now: None)
        except MissingRequirement:
            missing[name] = pins.pop(name)
    not_tried = [f"{name} {pin.version}: its index cannot be reached" for name, pin in missing.items()]
    public = {name: pin.version.partition("+")[0] for name, pin in missing.items() if "+" in pin.version}
    if public:
        others = resolve([f"{name}=={version}" for name, version in public.items()], pins, stack, folder)
        pins |= {name: pin for name, pin in others.items() if name not in pins}
        not_tried += [f"{name} {pins[name].version} is installed instead" for name in public]
    unreachable = {key: commit for key, commit in stack.commits.items() if not is_reachable(commit)}
    not_tried += [f"{key}: {commit.url} cannot be reached" for key, commit in unreachable.items()]
    # Without a distribution a commit is not built.
    commits = {key: {"url": commit.url, "commit": commit.commit} for key, commit in unreachable.items()}
    file = folder / "obtainable.toml"
    file.write_text(tomlkit.dumps({"extends": stack.name, "commits": commits}))
    file.with_suffix(".txt").write_text("".join(f"{pin.text}\n" for pin in pins.values()))
    return file, not_tried


def resolve(requirements: list[str], pins: dict[str, Pin], stack: Stack, folder: Path) -> dict[str, Pin]:
    """Return pins of requirements, and of what they require, which fit the other pins of a stack."""
    (folder / "pins").write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins.values()))
    without = (f"{name}; sys_platform == 'never'\n" for name in stack.lock_without)
    (folder / "without").write_text("".join(without))
    command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--no-config", "--generate-hashes"]
    command += ["--python-version", str(stack.stack.lock_python), "--only-binary=:all:", "--quiet"]
    command += ["--constraints", str(folder / "pins"), "--override", str(folder / "without")]
    done = subprocess.run(
        [*command, "--output-file", folder / "resolved.txt"],
        input="\n".join(requirements),
        text=True,
        env=os.environ | uv_environment(pip_config.read()),
    )
    assert done.returncode == 0
    return read_lock(folder / "resolved.txt")


def is_reachable(commit: PinnedPackage) -> bool:
    command = ["git", "ls-remote", "--exit-code", commit.url, "HEAD"]
    try:
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        return not subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode
    except subprocess.TimeoutExpired:
        return False


def import_all(stack: Stack, directory: Path, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Import the packages of a stack in an environment, each in a child process.

    Return rows of package, version, installed and imported, and the errors.
    """
    (site,) = directory.glob("lib/python3.*/site-packages")
    libraries = folder / "libraries"
    libraries.mkdir()
    present = [cann.build(), *(site / name for name in LIBRARIES)]
    extensions = [file for pattern in EXTENSIONS for file in site.glob(pattern)]
    symbols = missing_libraries.build(extensions, present, libraries)
    # The released extensions fit the installed torch and torch_npu.
    failures = [f"undefined symbol {name}" for name in symbols if OF_TORCH.match(name)]
    environment = Machine(folder / "machine").environment(
        PYTHONPATH="",  # nothing of the tests but the C libraries
        LD_LIBRARY_PATH=os.pathsep.join(map(str, (libraries, cann.build()))),
        ASCEND_RT_VISIBLE_DEVICES="0",
        OMP_NUM_THREADS="1",
    )
    python = directory / "bin" / "python"
    output = subprocess.check_output([python, "-I", "-c", VERSIONS], text=True)
    installed = {canonicalize_name(name): version for name, version in json.loads(output).items()}
    for commit in stack.commits.values():
        if installed.get(commit.distribution, commit.version) != commit.version:
            failures.append(f"{commit.distribution} {installed[commit.distribution]}, not {commit.version}")
    rows = [["package", "version", "installed", "imported"]]
    for label, needed, statement in imports(stack):
        there = installed.keys() >= needed
        imported = "-"
        if there:
            done = subprocess.run(
                [python, "-P", "-c", statement], env=environment, capture_output=True, text=True, timeout=600
            )
            imported = "no" if done.returncode else "yes"
            if done.returncode:
                failures.append(f"{statement}: {done.stderr[-3000:]}")
        versions = " ".join(installed.get(name, "") for name in needed)
        rows.append([label, versions, "yes" if there else "no", imported])
    return rows, failures


def imports(stack: Stack) -> Iterator[tuple[str, set[str], str]]:
    """Yield what is imported, the distributions that it needs, and the statement."""
    built = [commit.distribution for commit in stack.commits.values()]
    for name in [*stack.packages, "torchvision", *stack.ranges, *built, "vimectl"]:
        yield name, {name}, f"import {module_of(name)}"
    yield "operators of vllm-ascend", {"vllm-ascend"}, ENGINE
    yield "the trainer's Megatron-core", {"mindspeed", "megatron-core"}, TRAINER
