"""Write the commands that install packages, for the package manager of the examined environment.

All fixes of the checks of packages come from here. A command works when it is pasted into bash.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.python_environment import PythonEnvironment, read_python_environment

# PyTorch's builds without CUDA for x86-64, and Huawei's builds that the package index does not have. Both as
# docs/source/installation.md:136-140 and :207 of vllm-ascend 0.22.1rc1 say.
PYTORCH_CPU = "https://download.pytorch.org/whl/cpu"
ASCEND = "https://mirrors.huaweicloud.com/ascend/repos/pypi"


# The package index has no local versions of torch_npu, and triton-ascend up to 3.2.0.
_ONLY_ASCEND = re.compile(r"torch-npu==.*\+|triton-ascend==(?!3\.2\.0$)")


@dataclass(frozen=True)
class Install:
    """Install requirements in one command, by default without their dependencies.

    ``over`` says what to do with an installed distribution of the same version: keep it, replace it, or write
    over it without a look at what was installed (its metadata is damaged, so it cannot be uninstalled).
    ``editable`` is a checkout to install from instead. ``variables`` are set for the command.
    """

    requirements: Sequence[str] = ()
    over: Literal["keep", "replace", "ignore"] = "keep"
    dependencies: bool = False
    editable: str = ""
    variables: str = ""


@dataclass(frozen=True)
class Uninstall:
    """Uninstall distributions in one command."""

    names: Sequence[str]


def python_environment(facts: Facts) -> PythonEnvironment:
    """Return the examined environment."""
    return facts.read(read_python_environment, facts.interpreter)


def commands(facts: Facts, *steps: Install | Uninstall | str) -> str:
    """Return the steps as one line; each runs only if the one before it succeeded. A text is a command."""
    environment = python_environment(facts)
    if environment.managed and not all(isinstance(step, str) for step in steps):
        return _in_new_environment(environment, facts.stack.name, steps)
    return " && ".join(_command(environment, step) for step in steps)


def _in_new_environment(
    environment: PythonEnvironment, name: str, steps: Sequence[Install | Uninstall | str]
) -> str:
    """Return the steps for a virtual environment: the distribution's own Python must not be changed."""
    directory = f"/opt/{name}" if environment.root else f"~/{name}"
    new = PythonEnvironment(f"{directory}/bin/python", machine=environment.machine, root=environment.root)
    # What is installed there is imported instead of the system's, which cannot be uninstalled.
    texts = [_command(new, step) for step in steps if not isinstance(step, Uninstall)]
    options = ["--system-site-packages"] if texts else []
    make = shlex.join([*_prefix(environment), environment.python, "-m", "venv", *options])
    reason = f"the distribution manages {environment.python} (PEP 668)"
    after = f"use {new.python}" if texts else f"install the stack there and use {new.python}"
    return " && ".join([f"{make} {directory}", *texts]) + f"  # {reason}: {after}"


def _command(environment: PythonEnvironment, step: Install | Uninstall | str) -> str:
    if isinstance(step, str):
        return " ".join([*map(shlex.quote, _prefix(environment)), step])
    words = _uninstall(environment, step) if isinstance(step, Uninstall) else _install(environment, step)
    text = " ".join(word if word.startswith("~/") else shlex.quote(word) for word in words)
    variables = step.variables if isinstance(step, Install) else ""
    if variables and environment.root:
        variables = f"env {variables}"
    return " ".join(filter(None, [" ".join(map(shlex.quote, _prefix(environment))), variables, text]))


def _prefix(environment: PythonEnvironment) -> list[str]:
    return ["chroot", environment.root] if environment.root else []


def _uninstall(environment: PythonEnvironment, step: Uninstall) -> list[str]:
    if environment.uses_uv:
        return ["uv", "pip", "uninstall", "--python", environment.python, *step.names]
    return [environment.python, "-m", "pip", "uninstall", "--yes", *step.names]


def _install(environment: PythonEnvironment, step: Install) -> list[str]:
    uv = environment.uses_uv
    words = [environment.python, "-m", "pip", "install"]
    if uv:
        words = ["uv", "pip", "install", "--python", environment.python]
    if step.over != "keep":
        # uv links its cache into environments: a file that was changed there is changed in the cache.
        words += ["--reinstall", "--no-cache"] if uv else [f"--{_PIP_OVER[step.over]}"]
    if not step.dependencies:
        words.append("--no-deps")
    words += _indexes(step.requirements, uv)
    if step.editable:
        words += ["--no-build-isolation", "--editable", step.editable]
    return [*words, *step.requirements]


_PIP_OVER = {"replace": "force-reinstall", "ignore": "ignore-installed"}


def _indexes(requirements: Sequence[str], uv: bool) -> Iterator[str]:
    """Yield the options for requirements that the package index does not have."""
    from_pytorch = [one for one in requirements if one.endswith("+cpu")]
    from_ascend = [one for one in requirements if _ONLY_ASCEND.match(one)]
    if from_pytorch and len(from_pytorch) == len(requirements):
        yield from ("--index-url", PYTORCH_CPU)
        return
    if from_pytorch:
        yield from ("--extra-index-url", PYTORCH_CPU)
    if from_ascend:
        yield from ("--extra-index-url", ASCEND)
    if uv and (from_pytorch or from_ascend):
        # By default uv asks only the first index that has a package of a name.
        yield from ("--index-strategy", "unsafe-best-match")
