"""environment: the user of this process, its directories, and what a container lets it do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.doctor.check import CheckList, CheckResult, Status, result
from vimectl.doctor.facts import Facts, driver
from vimectl.doctor.facts.account import read_clone3, read_existing, read_user_name, read_writable
from vimectl.doctor.facts.environment import read_variable
from vimectl.doctor.facts.packages import read_glibc

CHECKS = CheckList(running=True)

# The first release of Docker whose seccomp profile answers clone3 with ENOSYS, and of glibc that calls it.
_DOCKER, _GLIBC = (20, 10, 10), (2, 34)


@dataclass(frozen=True)
class PathVariable:
    """A variable that names directories or files.

    ``created``: what is missing is created, so the directory above must be writable. ``needed``: a run fails
    without, otherwise something is ignored or slower.
    """

    name: str
    created: bool = False
    needed: bool = False
    several: bool = False


_PATHS = (
    PathVariable("TMPDIR"),
    PathVariable("ASCEND_CUSTOM_OPP_PATH", several=True),
    PathVariable("HCCL_SO_PATH", needed=True),
    PathVariable("SSL_CERT_FILE"),
    PathVariable("REQUESTS_CA_BUNDLE"),
    PathVariable("CURL_CA_BUNDLE"),
    PathVariable("ASCEND_PROCESS_LOG_PATH", created=True),
    PathVariable("ASCEND_WORK_PATH", created=True),
    PathVariable("ASCEND_CACHE_PATH", created=True),
    PathVariable("HF_HOME", created=True),
    PathVariable("HF_HUB_CACHE", created=True),
    PathVariable("XDG_CACHE_HOME", created=True, needed=True),
    PathVariable("TRITON_CACHE_DIR", created=True, needed=True),
    PathVariable("TORCHINDUCTOR_CACHE_DIR", created=True, needed=True),
    PathVariable("VLLM_CACHE_ROOT", created=True, needed=True),
    PathVariable("VLLM_CONFIG_ROOT", created=True),
)


@CHECKS.add(
    "environment.user",
    source="vllm-ascend#9490, PR 9495: HCCL error 19 (ra init failed); vllm PR 46734; "
    "torch 2.13: _inductor/runtime/cache_dir_utils.py (uses the number), hindsight PR 3934",
    reads=("/etc/passwd", "/proc/self/status", "getent passwd *"),
)
def user_name(facts: Facts) -> CheckResult:
    """HCCL and torch before 2.13 look the user up by its number: without an entry in /etc/passwd no
    communicator of several ranks is created, and vLLM cannot be imported (getpwuid: uid not found).
    """
    user, groups = facts.read(driver.read_identity)
    name = facts.read(read_user_name, user)
    home = facts.environment.get("HOME") or "/tmp"  # nosec B108 # part of a hint
    entry = f"user:x:{user}:{min(groups)}::{home}:/bin/sh"
    needed = facts.stack.stack.device == "npu"
    return result(
        bool(name) or not needed,
        f"{name or 'no name'}, number {user}",
        "an entry in /etc/passwd" if needed else "any user",
        f"echo '{entry}' >> /etc/passwd, as root, or in the image of the container",
    )


@CHECKS.add(
    "environment.home",
    source="triton, vLLM and CANN: defaults of TRITON_CACHE_DIR, VLLM_CACHE_ROOT, ASCEND_PROCESS_LOG_PATH",
    reads=("$HOME", "*", "test -w *"),
    after=("environment.user",),
)
def home(facts: Facts) -> CheckResult:
    """Triton, vLLM, CANN and vimectl write below HOME: ~/.triton, ~/.cache and ~/ascend/log."""
    path = facts.environment.get("HOME", "")
    if not path.startswith("/"):
        found = f"HOME={path}: not an absolute path" if path else "HOME is not set"
    elif facts.missing([path]):
        found = f"{path} does not exist"
    else:
        found = "" if facts.read(read_writable, path) else f"{path} cannot be written"
    fix = "export HOME=DIR, a directory that this user may write"
    if path.startswith("/") and facts.read(read_existing, path) != "/":
        fix += f"; or, as root: mkdir -p {path} && chown {facts.read(driver.read_identity)[0]} {path}"
    return result(not found, found or path, "a directory that this user may write", fix)


@CHECKS.add(
    "environment.paths",
    source="the documentation of each variable: CANN 9.0 environment variables, vllm/envs.py, "
    "vllm_ascend/envs.py, huggingface_hub, triton, Python's ssl and tempfile",
    reads=(*(f"${one.name}" for one in _PATHS), "*", "test -w *"),
)
def paths(facts: Facts) -> CheckResult:
    """Variables name files and directories: what is read must exist, what is created must be writable."""
    wrong: list[str] = []
    unset: list[str] = []
    count, bad = 0, "warn"
    for one in _PATHS:
        values = facts.read(read_variable, facts.optional_recipe, one.name)
        for value in dict.fromkeys(filter(None, [values.here, *values.processes.values()])):
            count += 1
            problems = _path_problems(facts, one, value)
            if problems:
                wrong += problems
                unset.append(one.name)
                if one.needed and (not values.processes or value in values.processes.values()):
                    bad = "fail"
    status: Status = "fail" if bad == "fail" else "warn"
    return result(
        not wrong,
        "; ".join(wrong) or f"{count} variables name what exists or can be created",
        "files and directories that exist or can be created",
        f"unset {' '.join(dict.fromkeys(unset))}  (or in the recipe's [env])",
        status,
    )


def _path_problems(facts: Facts, variable: PathVariable, value: str) -> list[str]:
    entries = list(filter(None, value.split(":"))) if variable.several else [value]
    if not variable.created:
        return [f"{variable.name}: {entry} does not exist" for entry in facts.missing(entries)]
    above = {entry: facts.read(read_existing, entry) for entry in entries if entry.startswith("/")}
    return [
        f"{variable.name}: {entry} cannot be written"
        for entry, existing in above.items()
        if not facts.read(read_writable, existing)
    ]


@CHECKS.add(
    "environment.clone3",
    source="moby/moby#42680; Docker 20.10.10 release notes; xinference#1871",
    reads=("docker --version", "* -c import ctypes*", "getconf GNU_LIBC_VERSION", "ldd --version"),
)
def clone3(facts: Facts) -> CheckResult:
    """glibc 2.34 creates threads with clone3, and the seccomp filter of Docker before 20.10.10 refuses it to
    containers with EPERM, so that they cannot create a thread.
    """
    works, text = facts.program("docker", "--version")
    version = re.search(r"Docker version (\d+)\.(\d+)\.(\d+)", text) if works else None
    old = version is not None and tuple(map(int, version.groups())) < _DOCKER
    expected = "clone3 is not refused with EPERM"
    fix = "docker run --security-opt seccomp=unconfined ...; install Docker 20.10.10 or later on the host"
    glibc = facts.read(read_glibc)
    answer = facts.read(read_clone3)
    if answer == "EPERM" and (glibc is None or glibc >= _GLIBC):
        return CheckResult("fail", "clone3: EPERM" + (f"; {text}" if old else ""), expected, fix)
    if old:
        found = f"clone3: {answer} here; {text} refuses it to containers without --privileged"
        return CheckResult("warn", found, expected, fix)
    return CheckResult("pass", f"clone3: {answer}" + (f"; {text}" if version else ""), expected)
