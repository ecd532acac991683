"""cann: CANN's toolkit, kernels, Python packages and NNAL, and whether processes will find them."""

from __future__ import annotations

import os
import re

from vimectl.doctor import ascend, npu
from vimectl.doctor.editable import installs
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.stacks.detection import find
from vimectl.stacks.installed import site_directories
from vimectl.stacks.schema import Stack
from vimectl.stacks.versions import matches

_KERNELS = "opp/built-in/op_impl/ai_core/tbe/kernel"
# The folder of kernels of each kind of chip.
_SOCS = {"A2": "ascend910b", "A3": "ascend910_93"}
# Compiling an operator imports tbe; the runtime's own bindings are acl.
_PYTHON = ("acl", "tbe")
# What set_env.sh of the toolkit and of NNAL export, and torch_npu and vllm-ascend read.
_EXPORTED = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "ATB_HOME_PATH")

# The toolkit may be on the path under its version's name and in the environment under that of a link to it.
_LIBRARIES = re.compile(r"/(ascend-toolkit|cann)[^/]*(/[^/]+)?/lib64/?$")


def checks(stack: Stack) -> list[Check]:
    cann = stack.cann or "none"
    return [
        Check("cann.toolkit", f"the stack's torch-npu and vllm-ascend are built with CANN {cann}", _toolkit),
        Check("cann.kernels", "operators are a package of their own for each kind of chip", _kernels),
        Check("cann.nnal", "vllm-ascend loads libatb.so of NNAL, of the same release as CANN", _nnal),
        Check("cann.environment", "torch_npu finds CANN through what its set_env.sh exports", _environment),
        Check("cann.python", "operators are compiled by CANN's own Python packages (PYTHONPATH)", _python),
        Check("cann.torch-npu", "a torch_npu is built for one release of CANN", _torch_npu),
        Check(
            "cann.vllm-ascend",
            "vllm-ascend asserts at start that the chip is of the kind it was built for (_build_info.py)",
            _built_for,
        ),
    ]  # fmt: skip


def _toolkit(subject: Subject) -> Outcome:
    wanted = subject.stack.cann
    if wanted is None:
        return skipped(f"{subject.stack.name} needs no CANN")
    home = ascend.toolkit(subject.host)
    version = _version(subject)
    if home is None:
        found = "no toolkit"
    else:
        found = f"{home}: {version}" if version else f"{home} without ascend_toolkit_install.info"
    return judged(
        version is not None and matches(version, wanted),
        found,
        wanted,
        f"install Ascend-cann-toolkit {wanted}{_or_image(subject)}",
    )


def _kernels(subject: Subject) -> Outcome:
    home = ascend.toolkit(subject.host)
    if reason := _needless(subject, home):
        return skipped(reason)
    assert home is not None
    there = [soc for soc in _SOCS.values() if subject.host.path(f"{home}/{_KERNELS}/{soc}").is_dir()]
    info = ascend.toolkit_info(subject.host, home, "ops")
    version, toolkit = info.get("version"), _version(subject)
    kind = _machine_kind(subject)
    wanted = _SOCS[kind] if kind else " or ".join(_SOCS.values())
    fitting = bool(there) if kind is None else wanted in there
    found = f"kernels for {', '.join(there) or 'no chip'}" + (f", {version}" if version else "")
    return judged(
        fitting and (version is None or version == toolkit),
        found,
        f"kernels for {wanted}" + (f", {toolkit}" if toolkit else ""),
        f"install the operators of CANN {subject.stack.cann} for this chip (Ascend-cann-<chip>-ops)",
    )


def _nnal(subject: Subject) -> Outcome:
    if reason := _needless(subject, "any"):
        return skipped(reason)
    # Released together: a stack that does not record it has the one of its CANN.
    wanted = subject.stack.nnal or subject.stack.cann
    assert wanted is not None
    place, version = ascend.atb_version(subject.host)
    return judged(
        version is not None and matches(version, wanted),
        f"{place}: {version}" if version else f"no ATB in {place}",
        wanted,
        f"install Ascend-cann-nnal {wanted}, and source /usr/local/Ascend/nnal/atb/set_env.sh",
    )


def _environment(subject: Subject) -> Outcome:
    home = ascend.toolkit(subject.host)
    if reason := _needless(subject, home):
        return skipped(reason)
    if not subject.host.is_running:
        return skipped("a file system that is looked at has no environment")
    environment = subject.host.environment
    lacking = [name for name in _EXPORTED if not environment.get(name)]
    libraries = environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    if not any(path.rstrip("/") == f"{home}/lib64" or _LIBRARIES.search(path) for path in libraries):
        lacking.append("CANN's lib64 on LD_LIBRARY_PATH")
    scripts = f"source {str(home).removesuffix('/latest')}/set_env.sh"
    if "ATB_HOME_PATH" in lacking:
        scripts += " && source /usr/local/Ascend/nnal/atb/set_env.sh"
    return judged(
        not lacking,
        f"not set: {', '.join(lacking)}" if lacking else f"CANN of {home}",
        "what set_env.sh exports",
        scripts,
    )


def _python(subject: Subject) -> Outcome:
    home = ascend.toolkit(subject.host)
    if reason := _needless(subject, home):
        return skipped(reason)
    place = f"{home}/python/site-packages"
    lacking = [name for name in _PYTHON if not list(subject.host.path(place).glob(f"{name}*"))]
    return judged(
        not lacking,
        f"{place} without {', '.join(lacking)}" if lacking else f"{', '.join(_PYTHON)} in {place}",
        ", ".join(_PYTHON),
        f"install Ascend-cann-toolkit {subject.stack.cann} again, completely",
    )


def _torch_npu(subject: Subject) -> Outcome:
    cann = _version(subject)
    if reason := _needless(subject, cann):
        return skipped(reason)
    assert cann is not None
    have = find(subject.stack, "torch-npu", subject.installed)
    if have is None:
        return skipped("torch_npu is not installed (packages.torch-npu)")
    known = [load_stack(name) for name in stack_names()]
    built = [
        one.cann
        for one in known
        if one.cann and "torch-npu" in one.packages and matches(have.version, one.packages["torch-npu"])
    ]
    if not built:
        return skipped(f"no known stack has torch_npu {have.version}")
    return judged(
        any(matches(cann, version) for version in built),
        f"torch_npu {have.version} on CANN {cann}",
        f"CANN {' or '.join(sorted(set(built)))}",
        f"install CANN {sorted(set(built))[-1]}, or the torch_npu of the stack whose CANN is {cann}",
    )


def _built_for(subject: Subject) -> Outcome:
    if reason := _needless(subject, "any"):
        return skipped(reason)
    kind = _machine_kind(subject)
    places = [one.location for one in installs(subject.host)] + site_directories(subject.host)
    files = [place / "vllm_ascend" / "_build_info.py" for place in places]
    text = next((file for file in files if file.is_file()), None)
    if text is None:
        return skipped("no vllm_ascend/_build_info.py is installed")
    built = re.search(r"__device_type__\s*=\s*['\"](\w+)['\"]", text.read_text(errors="replace"))
    if kind is None or built is None:
        return skipped("which chip it is cannot be told" if built else f"{text} does not say for which chip")
    return judged(
        built[1] == kind,
        f"vllm-ascend built for {built[1]}, the chips are {kind}",
        kind,
        f"build vllm-ascend for {kind}{_or_image(subject)}",
    )


def _or_image(subject: Subject) -> str:
    images = subject.stack.images
    if images is None:
        return ""
    kind = _machine_kind(subject)
    fitting = [image for name, image in (("A2", images.a2), ("A3", images.a3)) if kind in (name, None)]
    return f", or start from the image {' or '.join(fitting)}" if fitting else ""


def _machine_kind(subject: Subject) -> str | None:
    listing = npu.listing(subject) if subject.host.is_running else None
    kinds = set(npu.kinds(listing).values()) if listing else set()
    return kinds.pop() if len(kinds) == 1 else None


def _version(subject: Subject) -> str | None:
    home = ascend.toolkit(subject.host)
    return ascend.toolkit_info(subject.host, home, "toolkit").get("version") if home else None


def _needless(subject: Subject, there: str | None) -> str | None:
    if subject.stack.cann is None:
        return f"{subject.stack.name} needs no CANN"
    return None if there else "no CANN toolkit is there (cann.toolkit)"
