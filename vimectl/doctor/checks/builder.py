"""builder: the programs that vimectl and the packages of the stack call."""

from __future__ import annotations

import re

from vimectl.doctor.check import CheckList, CheckResult, Status, result
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.python_environment import read_header

CHECKS = CheckList(running=True)

# The docker client answers without its daemon, and the daemon builds.
_ENGINES = (
    ("docker", "version", "--format", "{{.Server.Version}}"),
    ("podman", "--version"),
    ("buildah", "--version"),
)


@CHECKS.add(
    "builder.engine",
    source="vimectl/images/builders.py; docker-version(1), buildah-build(1)",
    reads=tuple(" ".join(command) for command in _ENGINES),
)
def engine(facts: Facts) -> CheckResult:
    """Docker, podman or buildah builds the images."""
    expected = "docker, podman or buildah"
    answers: dict[str, str] = {}
    for command in _ENGINES:
        works, line = facts.program(*command)
        if works:
            version = re.search(r"\d+(\.\d+)+\S*", line)
            return CheckResult("pass", f"{command[0]} {version[0] if version else line}", expected)
        answers[command[0]] = line
    found = "; ".join(
        dict.fromkeys(line if name in line else f"{name}: {line}" for name, line in answers.items())
    )
    if facts.optional_recipe is not None:
        raise Unavailable(f"a run needs none: {found}")
    return CheckResult("warn", found, expected, "apt-get install buildah, or start docker's daemon")


@CHECKS.add(
    "builder.git",
    source="vimectl/patches/git_tree.py",
    reads=("git --version",),
)
def git(facts: Facts) -> CheckResult:
    """`vimectl patch` compares a package that is installed from a checkout with git."""
    return _program(facts, ["git"], "apt-get install git", "warn")


@CHECKS.add(
    "builder.compiler",
    source="triton-ascend 3.2.1: triton/backends/ascend/utils.py, _build_npu_ext",
    reads=("$CC", "clang++ --version", "g++ --version", "* --version"),
    device="npu",
)
def compiler(facts: Facts) -> CheckResult:
    """triton-ascend compiles a launcher for each kernel with $CC, clang++ or g++, at its first use."""
    given = facts.environment.get("CC")
    names = [given] if given else ["clang++", "g++"]
    return _program(facts, names, "unset CC" if given else "apt-get install g++", "fail")


@CHECKS.add(
    "builder.python-headers",
    source="triton-ascend 3.2.1: triton/backends/ascend/utils.py, _build_npu_ext; sglang#18644",
    reads=("*/Python.h", "*/pyvenv.cfg"),
    device="npu",
)
def python_headers(facts: Facts) -> CheckResult:
    """triton-ascend compiles its launcher with Python's headers. On a CPU nothing is compiled."""
    found, usual = facts.read(read_header, facts.interpreter)
    minor = ".".join(facts.interpreter.version.split(".")[:2])
    return result(
        bool(found),
        found or f"{usual or 'Python.h'} is absent",
        f"the headers of Python {minor}",
        f"apt-get install python{minor}-dev, or dnf install python3-devel, as root "
        "(of the distribution that has this interpreter)",
        "fail",
    )


def _program(facts: Facts, names: list[str], fix: str, bad: Status) -> CheckResult:
    """Return a pass if one of the programs works."""
    programs = [facts.program(name, "--version") for name in names]
    working = [line for works, line in programs if works]
    found = working[0] if working else "; ".join(line for _, line in programs)
    return result(bool(working), found, " or ".join(names), fix, bad)
