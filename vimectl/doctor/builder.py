"""builder: the programs that vimectl and the stack call: a container engine, git, a C++ compiler."""

from __future__ import annotations

import re

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.schema import Stack

# docker's client answers without its daemon, which is what builds.
_ENGINES = {
    "docker": ["docker", "version", "--format", "{{.Server.Version}}"],
    "podman": ["podman", "--version"],
    "buildah": ["buildah", "--version"],
}
_SECONDS = 5


def checks(stack: Stack) -> list[Check]:
    return [
        Check("builder.engine", "an image is built by docker, podman or buildah", _engine),
        Check(
            "builder.git",
            "a package that is installed from a checkout is compared with git (`vimectl patch`)",
            _git,
        ),
        Check(
            "builder.compiler",
            "triton-ascend compiles a launcher for each kernel with $CC, clang++ or g++, at its first use",
            _compiler,
        ),
    ]


def _engine(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped("nothing can be run in another root")
    said = {}
    for name, command in _ENGINES.items():
        answer = subject.host.run(command, _SECONDS)
        if answer.code == 0:
            return Outcome("pass", f"{name} {_version(answer.stdout)}", "docker, podman or buildah")
        said[name] = _line(answer.stderr) or f"exit status {answer.code}"
    found = "; ".join(
        dict.fromkeys(text if name in text else f"{name}: {text}" for name, text in said.items())
    )
    if subject.recipe is not None:
        return skipped(f"a run needs none, and there is none: {found}")
    return Outcome(
        "warn", found, "docker, podman or buildah", "apt-get install buildah, or start docker's daemon"
    )


def _git(subject: Subject) -> Outcome:
    return _program(subject, ["git"], "apt-get install git")


def _compiler(subject: Subject) -> Outcome:
    if subject.stack.stack.device != "npu":
        return skipped(f"nothing is compiled on {subject.stack.stack.device}")
    given = subject.host.environment.get("CC")
    names = [given] if given else ["clang++", "g++"]
    return _program(subject, names, "unset CC" if given else "apt-get install g++", "fail")


def _program(subject: Subject, names: list[str], mend: str, bad: str = "warn") -> Outcome:
    if not subject.host.is_running:
        return skipped("nothing can be run in another root")
    said = []
    for name in names:
        answer = subject.host.run([name, "--version"], _SECONDS)
        if answer.code == 0:
            return Outcome("pass", _line(answer.stdout), " or ".join(names))
        said.append(_line(answer.stderr) or f"{name}: exit status {answer.code}")
    return judged(False, "; ".join(said), " or ".join(names), mend, "fail" if bad == "fail" else "warn")


def _line(text: str) -> str:
    return text.strip().splitlines()[0].strip() if text.strip() else ""


def _version(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+\S*", text)
    return found[0] if found else _line(text)
