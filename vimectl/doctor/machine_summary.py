"""Summarize a machine in labeled values: for an issue, a support bundle, and to compare nodes.

The labels of several values of one kind start with a word for it: ``package``, ``patches``, ``network``,
``hccn``, ``model``, ``disk``, ``variable``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vime_runtime.spec.private_values import SECRET

from vimectl import __version__
from vimectl.doctor.facts import Facts, Unavailable, cann, driver, hccn, limits
from vimectl.doctor.facts.inputs import read_model_files, read_patch_state
from vimectl.doctor.facts.networks import read_hccn_addresses, read_interfaces
from vimectl.doctor.facts.npu_smi import read_listing
from vimectl.doctor.facts.packages import (
    TORCH_COMPANIONS,
    read_checkout,
    read_editable_installs,
    read_glibc,
)
from vimectl.doctor.facts.pins import read_pinned_source
from vimectl.env.memory_saver.verify import verify_installed
from vimectl.util.console import one_line
from vimectl.util.dist_info import canonical_name
from vimectl.util.npu_devices import device_nodes
from vimectl.util.secrets import is_secret, redact
from vimectl.util.units import size

if TYPE_CHECKING:
    from vimectl.doctor.runner import DoctorReport

# Only variables that concern the stack are shown, by prefix. Not even the names of the others are.
VARIABLES = (
    "ACL", "ASCEND", "ASDOPS", "ATB", "CANN", "CUDA", "GLOO", "HCCL", "HF_HUB_OFFLINE", "LCCL", "LCAL",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "MASTER_", "MEGATRON", "MKL", "NCCL", "NPU", "OMP", "PATH", "PYTHON",
    "PYTORCH", "RANK_TABLE_FILE", "RAY", "TASK_QUEUE", "TBE", "TMPDIR", "TMS", "TOKENIZERS", "TOOLCHAIN",
    "TORCH", "TRITON", "VIME", "VIRTUAL_ENV", "VLLM", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
# In addition to the packages of the stack: what upstream asks for in issues (torch.utils.collect_env,
# `vllm collect-env`), and what else the runtime imports.
_NEAR_PACKAGES = (
    *TORCH_COMPANIONS, "numpy", "ray", "transformers", "tokenizers", "safetensors", "huggingface-hub",
    "pyzmq", "triton", "triton-ascend", "opencv-python-headless", "megatron-core", "mindspeed", "mbridge",
    "torch-memory-saver", "te-ascend", "pip", "setuptools",
)  # fmt: skip
# The directories whose file systems may be full: of packages, of Ray and caches, and the working directory.
_DISKS = ("/", "/tmp", ".")  # nosec B108 # measured
_DIGITS = 16


def summarize(facts: Facts) -> dict[str, str]:
    """Return the facts of a machine as labeled values. A fact that is unavailable is ``unknown (reason)``."""
    found: dict[str, str] = {"vimectl": __version__, "stack": facts.stack.title}
    if recipe := facts.optional_recipe:
        found["recipe"] = recipe.recipe.name
    npu = facts.stack.stack.device == "npu"
    for label, read in (_MACHINE | _NPU if npu else _MACHINE).items():
        found[label] = _known(lambda read=read: read(facts))  # type: ignore[misc]
    for label, read_all in _SEVERAL.items():
        try:
            found.update(read_all(facts))
        except Exception as e:
            found[label] = _unknown(e)
    return {label: one_line(facts.without_root(value)) for label, value in found.items() if value}


def as_text(summary: dict[str, str], report: DoctorReport, redact: Callable[[str], str]) -> str:
    """Return the block to paste into an issue: the summary, then the failed checks.

    Each value is redacted alone, because a label such as ``package tokenizers`` looks like that of a secret.
    """
    lines = [f"{label}: {redact(value)}" for label, value in summary.items()]
    counts = ", ".join(f"{count} {status}" for status, count in report.summary.items() if count)
    lines += ["", f"checks: {counts}"]
    for result in report.failures:
        lines += [f"FAIL {result.id}: {redact(result.found)}", f"     expected: {redact(result.expected)}"]
    return "\n".join(lines) + "\n"


def _known(read: Callable[[], str]) -> str:
    """Return a value, or ``unknown`` with the reason: a summary is most needed when something is broken."""
    try:
        return read()
    except Exception as e:
        return _unknown(e)


def _unknown(error: Exception) -> str:
    named = "" if isinstance(error, Unavailable) else f"{type(error).__name__}: "
    return f"unknown ({named}{' '.join(str(error).split())})"


def _system(facts: Facts) -> str:
    return facts.search("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)') or "unknown (/etc/os-release)"


def _glibc(facts: Facts) -> str:
    found = facts.read(read_glibc)
    return ".".join(map(str, found)) if found else "another C library"


def _cann(facts: Facts) -> str:
    home = facts.read(cann.read_home)
    if not home:
        return "none"
    version = facts.read(cann.read_install_info, home)["version"]
    return f"{version or 'unknown version'} in {home}"


def _nnal(facts: Facts) -> str:
    version = facts.read(cann.read_nnal_version)
    return f"{version} in {facts.read(cann.read_nnal_home)}" if version else "none"


def _firmware(facts: Facts) -> str:
    fields = facts.read(driver.read_fields, driver.FIRMWARE_INFO)
    return fields["package_version"] or fields["Version"] or "none"


def _chips(facts: Facts) -> str:
    chips = facts.read(read_listing).chips
    return ", ".join(f"{count} x {name}" for name, count in Counter(chip.name for chip in chips).items())


def _chip_health(facts: Facts) -> str:
    chips = facts.read(read_listing).chips
    bad = [f"{chip.label}: {chip.health}" for chip in chips if chip.health != "OK"]
    return ", ".join(bad) or "OK"


def _memory_saver(facts: Facts) -> str:
    builds = facts.read(verify_installed, facts.stack)
    texts = [
        f"{build.name or build.sha256[:_DIGITS]}: {build.verdict}" + (", not loaded" * (build.loads is False))
        for build in builds
    ]
    return "; ".join(texts) or "not installed"


def _memory(facts: Facts) -> str:
    total = size(facts.read(limits.read_meminfo, "MemTotal"))
    available, limited_by = facts.read(limits.read_memory)
    return f"{size(available)} of {total} available, limited by {limited_by}"


def _space(path: str) -> Callable[[Facts], str]:
    def read(facts: Facts) -> str:
        total, free = facts.read(limits.read_disk_space, path)
        return f"{size(free)} of {size(total)} free"

    return read


# Labels of single values.
_MACHINE: dict[str, Callable[[Facts], str]] = {
    "OS": _system,
    "kernel": lambda facts: facts.output("uname", "-r"),
    "machine": lambda facts: facts.output("uname", "-m"),
    "glibc": _glibc,
    "container": lambda facts: facts.read(driver.read_container) or "none",
    "Python": lambda facts: facts.interpreter.version or "none",
    "interpreter": lambda facts: facts.interpreter.path,
    "memory": _memory,
    "cores": lambda facts: f"{facts.read(limits.read_cores):g}",
    "/dev/shm": _space("/dev/shm"),  # nosec B108 # measured
    **{f"disk {path}": _space(path) for path in _DISKS},
}
_NPU: dict[str, Callable[[Facts], str]] = {
    "driver": lambda facts: facts.read(driver.read_version) or "none",
    "firmware": _firmware,
    "CANN": _cann,
    "NNAL": _nnal,
    "device nodes": lambda facts: ", ".join(facts.read(device_nodes)) or "none",
    "chips": _chips,
    "chip health": _chip_health,
    "memory saver": _memory_saver,
}


def _packages(facts: Facts) -> Iterator[tuple[str, str]]:
    own = [*facts.stack.packages, *facts.stack.ranges]
    editable = {one.name: one.directory for one in facts.read(read_editable_installs)}
    for name in dict.fromkeys(canonical_name(name) for name in (*own, *_NEAR_PACKAGES)):
        item = facts.find(name) or next(iter(facts.installed.get(name, ())), None)
        if item is None:
            if name in facts.stack.packages:
                yield f"package {name}", "not installed"
            continue
        text = item.version
        if item.name in editable:
            checkout = facts.read(read_checkout, editable[item.name])
            state = f"at {checkout[0]}, {checkout[1]} files changed" if checkout else "no git checkout"
            text += f", editable in {editable[item.name]}: {state}"
        elif commit := facts.search(f"{item.metadata}/direct_url.json", r'"commit_id":\s*"([0-9a-f]{40})"'):
            text += f", commit {commit}"
        yield f"package {name}", text
    for name in facts.stack.commits:
        if source := facts.read(read_pinned_source, facts.stack, name):
            where = f" in {source.directory}" if source.directory else ""
            commit = source.commit or "unknown commit"
            yield f"package {name}", f"{source.version or 'unknown version'}, {commit}{where}"


def _patches(facts: Facts) -> Iterator[tuple[str, str]]:
    for package in facts.stack.patches:

        def state(package: str = package) -> str:
            statuses, _ = facts.read(read_patch_state, facts.stack, package)
            texts = []
            for one in statuses:
                missing = [patch.id for patch in one.patches if patch.state not in ("applied", "upstream")]
                texts.append(one.state + (f", without {', '.join(missing)}" if missing else ""))
                texts += [one.unfinished.message] if one.unfinished else []
            return "; ".join(texts) or "not installed"

        yield f"patches {package}", _known(state)


def _networks(facts: Facts) -> Iterator[tuple[str, str]]:
    for name, addresses in facts.read(read_interfaces).items():
        yield f"network {name}", ", ".join(addresses) or "no address"
    for number, address in facts.read(read_hccn_addresses).items():
        yield f"hccn {number}", address
    if facts.nodes > 1:  # one command for each NPU
        answers = facts.read(hccn.read_answers, hccn.TLS).values()
        yield "hccn TLS", ", ".join(sorted({hccn.parse(hccn.TLS, answer) or "unknown" for answer in answers}))


def _model(facts: Facts) -> Iterator[tuple[str, str]]:
    if recipe := facts.optional_recipe:
        files = facts.read(read_model_files, recipe)
        yield "model", recipe.model.path if files else f"no files in {recipe.model.path}"
        for name, text in files.items():
            yield f"model {name}", text


def _variables(facts: Facts) -> Iterator[tuple[str, str]]:
    for name, value in sorted(facts.environment.items()):
        if name.startswith(VARIABLES):
            shown = SECRET if is_secret(name) else redact(value)
            yield f"variable {name}", shown or "empty"


# Readers of several values; the label is for all of them if they cannot be read.
_SEVERAL: dict[str, Callable[[Facts], Iterator[tuple[str, str]]]] = {
    "package": _packages,
    "patches": _patches,
    "network": _networks,
    "model": _model,
    "variable": _variables,
}
