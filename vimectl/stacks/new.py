"""Write a stack file for a release of vllm-ascend from the documents in its own source archive.

The sources of the facts, the first that has one:

- vllm: the release matrix, then the Dockerfile. torch, torch-npu, triton-ascend, transformers: the metadata.
- cann: the release matrix, the installation guide, the base image. nnal: the installation guide.
- python: the release matrix, the installation guide. machines: the wheels, then the image workflow.
- images: the guides, if the version that they name is that of the release. ray: the Dockerfile.

No fact is guessed. A missing one gets its reason, and what two sources state differently is in the notes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed

_REQUIRED = ("torch", "torch-npu", "triton-ascend")
_MACHINES = {"aarch64": "arm64", "x86_64": "amd64"}  # names in wheels, and in images
_PINNED_BY_JOBS = ("megatron-lm", "mindspeed")
_GUIDES = ("docs/source/installation.md", "docs/source/getting_started/installation.md")


@dataclass
class ReleaseFacts:
    """The facts that a release states about itself: the tables of a stack file, without its patches.

    ``disagreements`` has the facts for which two of its documents say different things.
    """

    version: str
    packages: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    python: str = ""
    machines: list[str] = field(default_factory=list)
    cann: str = ""
    nnal: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, str] = field(default_factory=dict)
    disagreements: list[str] = field(default_factory=list)

    def disagree(self, fact: str, text: str) -> None:
        """Record that another document says something else about a fact that has a note."""
        self.notes[fact] += f"; {text}"
        self.disagreements.append(f"{fact}: {text}")


class _Documents:
    """The documents of a release; a missing one is empty."""

    def __init__(self, version: str, read: Callable[[str], bytes | None]) -> None:
        def text(path: str) -> str:
            return (read(path) or b"").decode("utf-8", "replace")

        self.version = version
        self.metadata = HeaderParser().parsestr(text("PKG-INFO"))
        self.matrix = text("docs/source/community/versioning_policy.md")
        self.guide = next(filter(None, map(text, _GUIDES)), "")
        self.dockerfile = text("Dockerfile")
        self.image_workflow = text(".github/workflows/_schedule_image_build.yaml")
        # From 0.24 on mkdocs.yml has the variables of the guides, before that conf.py.
        pattern = r"""^\s+["']?(\w+)["']?: *["']?(.*?)["']?,?$"""
        variables = text("mkdocs.yml") or text("docs/source/conf.py")
        self.variables: dict[str, str] = dict(re.findall(pattern, variables, re.MULTILINE))

    def row(self) -> dict[str, str]:
        """Return the row of the release in its release matrix by column; empty when it has none."""
        columns: list[str] = []
        for line in self.matrix.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if cells[0] == "vLLM Ascend":
                columns = cells
            elif cells[0].removeprefix("v") == self.version:
                return dict(zip(columns, cells, strict=False))
        return {}

    def required(self) -> dict[str, str]:
        """Return the version specifiers of the metadata by canonical name."""
        lines = self.metadata.get_all("Requires-Dist") or []
        return {canonicalize_name(one.name): str(one.specifier) for one in map(Requirement, lines)}

    def guide_version(self, software: str) -> str:
        """Return an exact version in the guide's table of requirements, or ""."""
        found = re.search(rf"^\s*\| {software} +\| == (\S+)", self.guide, re.MULTILINE)
        return found[1] if found else self.variable(f"release_{software.lower()}_version")

    def variable(self, name: str) -> str:
        """Return a variable about the newest release, or "" when that is another one."""
        return self.variables.get(name, "") if self.of_guides() == self.version else ""

    def of_guides(self) -> str:
        """Return the version that the guides name in commands and image tags."""
        return self.variables.get("vllm_ascend_version", "").removeprefix("v")

    def base_image(self) -> str:
        """Return the image that the Dockerfile starts from, with the defaults of its arguments."""
        found = re.search(r"^FROM (\S+)", self.dockerfile, re.MULTILINE)
        return re.sub(r"\$\{(\w+)\}", lambda m: self.argument(m[1]), found[1]) if found else ""

    def argument(self, name: str) -> str:
        """Return the default of an argument of the Dockerfile, or ""."""
        found = re.search(rf'^ARG {name}="?(.*?)"?$', self.dockerfile, re.MULTILINE)
        return str(found[1]) if found else ""


def read_facts(version: str, read: Callable[[str], bytes | None], file_names: Sequence[str]) -> ReleaseFacts:
    """Return what a release of vllm-ascend says about itself.

    Args:
        read: returns the content of a file of its source archive, or None.
        file_names: all files of the release on the package index.

    Raises:
        CheckFailed: its documents do not state the vLLM, Python or machines that it is for.
    """
    facts, documents = ReleaseFacts(version), _Documents(version, read)
    for fill in (_packages, _cann, _python, _machines, _ranges, _images):
        fill(facts, documents, file_names)
    for name in _PINNED_BY_JOBS:
        facts.unrecorded[name] = f"no published job is known that pins it for vllm-ascend {version}"
    facts.unrecorded["memory_saver"] = f"no published build is known for a job on vllm-ascend {version}"
    needed = {"vllm": facts.packages["vllm"], "python": facts.python, "machines": facts.machines}
    if missing := [fact for fact, value in needed.items() if not value]:
        raise CheckFailed(
            f"the source archive of vllm-ascend {version} does not state: {', '.join(missing)}",
            "write the stack file by hand, after one in vimectl/stacks/data",
        )
    return facts


def _packages(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    row = documents.row()
    built = documents.argument("VLLM_TAG").removeprefix("v")
    stated = row.get("vLLM", "").removeprefix("v")
    facts.packages = {"vllm": stated or built, "vllm-ascend": facts.version}
    required = documents.required()
    for name in _REQUIRED:
        if required.get(name, "").startswith("=="):
            facts.packages[name] = required[name].removeprefix("==")
        else:
            facts.unrecorded[name] = "the metadata does not require one version of it"
    where = "its release matrix" if stated else "VLLM_TAG in its Dockerfile (its release matrix has no row)"
    facts.notes["packages"] = (
        f"documents in the source archive of vllm-ascend {facts.version}; vllm: {where}; "
        "the others: the metadata"
    )
    if not any(name.endswith(".whl") for name in file_names):
        facts.notes["vllm-ascend"] = (
            "released as a source archive only: installing it builds it, which takes CANN"
        )
    if stated and built and built != stated:
        facts.disagree("packages", f"its Dockerfile has VLLM_TAG v{built}")
    for name, column in (("torch-npu", "PyTorch/torch_npu"), ("triton-ascend", "Triton Ascend")):
        other = row.get(column, "").rpartition("/")[2].strip()
        if other and other != facts.packages.get(name):
            facts.disagree("packages", f"the matrix has {name} {other}")
        build = documents.argument(f"{name.upper().replace('-', '_')}_VERSION")
        if build:
            facts.disagree("packages", f"its Dockerfile installs another {name}, {build}")


def _cann(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    image = documents.base_image()
    base = re.split("[-_]", image.rpartition(":")[2])[0]  # 9.1.0-910b-..., 9.2.0_20260930220649-...
    sources = {
        "release matrix": documents.row().get("Stable CANN", ""),
        "table of requirements in the installation guide": documents.guide_version("CANN"),
        "base image of the Dockerfile": base,
    }
    where = next((name for name, value in sources.items() if value), "")
    if not where:
        facts.unrecorded["cann"] = "neither the matrix nor the guide nor the Dockerfile states it"
    else:
        facts.cann = sources[where]
        facts.notes["cann"] = f"{where} of vllm-ascend {facts.version}"
        if base and base != facts.cann:
            facts.disagree("cann", f"its Dockerfile starts from {image}")
    facts.nnal = documents.guide_version("NNAL")
    if facts.nnal:
        facts.notes["nnal"] = f"installation guide of vllm-ascend {facts.version}"
    else:
        facts.unrecorded["nnal"] = (
            f"the installation guide takes it from a variable, which is that of {documents.of_guides()}"
        )


def _python(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    bullet = re.search(r"^- Python: (.*)$", documents.guide, re.MULTILINE)
    sources = {
        "release matrix": documents.row().get("Python", ""),
        "installation guide": bullet[1] if bullet else documents.variable("release_python_version"),
        "main_python_version in mkdocs.yml": documents.variables.get("main_python_version", ""),
    }
    where = next((name for name, value in sources.items() if value.startswith(">=")), "")
    facts.python = sources.get(where, "").replace(" ", "")
    facts.notes["python"] = f"{where} of vllm-ascend {facts.version}"


def _machines(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    wheels = [name for name in file_names if name.endswith(".whl")]
    facts.machines = [machine for machine in _MACHINES if any(machine in name for name in wheels)]
    facts.notes["machines"] = f"vllm-ascend {facts.version} has wheels for these"
    if not wheels:
        workflow = documents.image_workflow
        facts.machines = [name for name, tag in _MACHINES.items() if f"tag: {tag}" in workflow]
        facts.notes["machines"] = f"the image workflow of vllm-ascend {facts.version} builds for these"


def _ranges(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    if ray := re.search(r"'ray(?:\[\w+\])?([<>=][^']*)'", documents.dockerfile):
        facts.ranges["ray"] = ray[1]
        facts.notes["ray"] = f"installed by the Dockerfile of vllm-ascend {facts.version}"
    else:
        facts.unrecorded["ray"] = "its Dockerfile does not name a version"
    if transformers := documents.required().get("transformers"):
        facts.ranges["transformers"] = transformers
        facts.notes["transformers"] = f"the metadata of vllm-ascend {facts.version} requires this version"
    else:
        facts.unrecorded["transformers"] = "the metadata does not require it"


def _images(facts: ReleaseFacts, documents: _Documents, file_names: Sequence[str]) -> None:
    if documents.of_guides() == facts.version:
        a2 = f"quay.io/ascend/vllm-ascend:v{facts.version}"
        facts.images = {"a2": a2, "a3": f"{a2}-a3"}
        facts.notes["images"] = (
            f"tags as vllm-ascend {facts.version}'s guides name them; "
            f"its Dockerfile starts from {documents.base_image()}"
        )
    else:
        facts.unrecorded["images"] = (
            f"the guides in its source archive name the tags of {documents.of_guides()}; "
            "no image of this release is known"
        )


def stack_text(name: str, facts: ReleaseFacts, patches: Mapping[str, Sequence[str]], note: str) -> str:
    """Return the text of a stack file. ``note`` says where the patches are from."""
    pair = f"vLLM {facts.packages['vllm']} with vllm-ascend {facts.version} on Ascend NPUs"
    tables: dict[str, dict[str, object]] = {
        "stack": {
            "name": name,
            "description": f"{pair}, CANN {facts.cann}" if facts.cann else pair,
            "device": "npu",
            "python": facts.python,
            "machines": facts.machines,
        },
        "packages": dict(facts.packages),
        "ranges": dict(facts.ranges),
        "images": dict(facts.images),
        "patches": {package: list(versions) for package, versions in patches.items()},
        "notes": {**facts.notes, "patches": note},
        "unrecorded": dict(facts.unrecorded),
    }
    lines = [f"# {pair}.", ""]
    single = {"cann": facts.cann, "nnal": facts.nnal}
    lines += [f"{key} = {json.dumps(value)}" for key, value in single.items() if value]
    for table, values in tables.items():
        if values:
            # JSON's strings and lists of strings are TOML's too.
            lines += ["", f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"
