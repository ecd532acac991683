"""host: the directories in which a run creates sockets, libraries and files."""

from __future__ import annotations

import os

from vimectl.doctor.check import CheckList, CheckResult, Status, result
from vimectl.doctor.facts import Facts
from vimectl.doctor.facts.account import read_writable
from vimectl.doctor.facts.environment import read_variable
from vimectl.doctor.facts.mounts import MOUNTS, read_mount, read_scratch_parent, read_temporary
from vimectl.doctor.facts.processes import read_processes
from vimectl.util.scratch_directory import RAY_SOCKET, SOCKET_PATH_BYTES

CHECKS = CheckList(running=True)

_TEMPORARY = ("$TMPDIR", "$TEMP", "$TMP", "*")
# Where libraries are kept, by device: the variable that names the directory, and its default below HOME.
_CACHES = {
    "npu": {"TRITON_CACHE_DIR": ".triton/cache", "TORCHINDUCTOR_CACHE_DIR": ""},
    "cpu": {"VLLM_CACHE_ROOT": ".cache/vllm", "TORCHINDUCTOR_CACHE_DIR": ""},
}


@CHECKS.add(
    "host.socket-path",
    source="unix(7): sun_path; Ray 2.60: _private/utils.py, validate_socket_filepath; verl#1120",
    reads=(*_TEMPORARY, "$RAY_TMPDIR", "/proc", "/proc/*"),
)
def socket_path(facts: Facts) -> CheckResult:
    """Ray's sockets are below the directory for temporary files, and their paths are limited to 107 bytes. A
    run that starts its own cluster uses /tmp if TMPDIR is too long; `ray start` does not.
    """
    expected = f"paths of at most {SOCKET_PATH_BYTES} bytes"
    temporary, scratch = facts.read(read_temporary), facts.read(read_scratch_parent)
    if facts.nodes == 1:
        moved = f"{temporary} is too long: " if scratch != temporary else ""
        return CheckResult("pass", f"{moved}sockets of a run are below {scratch}", expected)
    started = any(one.program == "raylet" for one in facts.read(read_processes))
    path = facts.environment.get("RAY_TMPDIR") or temporary
    length = len(os.fsencode(path + RAY_SOCKET))
    name = "RAY_TMPDIR" if facts.environment.get("RAY_TMPDIR") else "TMPDIR"
    return result(
        started or length <= SOCKET_PATH_BYTES,
        f"{length} bytes below {path}" + ("; Ray is started" if started else ""),
        expected,
        f"export {name}=/tmp  (in the shell of `ray start`)",
    )


@CHECKS.add(
    "host.exec-tmp",
    source="mount(8), noexec; vllm-ascend#10551; pytorch#91005",
    reads=(*_TEMPORARY, MOUNTS, "$HOME", *(f"${name}" for caches in _CACHES.values() for name in caches)),
)
def executable_mounts(facts: Facts) -> CheckResult:
    """triton and torch.compile build libraries in the directory for temporary files and in their caches. None
    can be loaded from a file system that is mounted with noexec: failed to map segment from shared object.
    """
    places = {"TMPDIR": [facts.read(read_scratch_parent)]}
    for name, default in _CACHES[facts.stack.stack.device].items():
        values = facts.read(read_variable, facts.optional_recipe, name)
        home = facts.environment.get("HOME")
        usual = f"{home}/{default}" if home and default else None
        given = [value or usual for value in values.given]
        places[name] = [path for path in dict.fromkeys(given) if path and path.startswith("/")]
    mounts = {path: facts.read(read_mount, path) for paths in places.values() for path in paths}
    closed = {path: mount.directory for path, mount in mounts.items() if "noexec" in mount.options}
    names = [name for name, paths in places.items() if any(path in closed for path in paths)]
    mounted = list(dict.fromkeys(closed.values()))
    fixes = [f"mount -o remount,exec {directory}" for directory in mounted]
    moves = " ".join(f"{name}=DIR" for name in names)
    return result(
        not closed,
        "; ".join(f"{path}: {mount} is mounted with noexec" for path, mount in closed.items())
        or f"{', '.join(mounts)}: exec",
        "file systems without noexec",
        f"{' && '.join(fixes)}, as root; or export {moves}, directories of another file system",
    )


@CHECKS.add(
    "host.working-directory",
    source="CANN environment variables: ASCEND_WORK_PATH; vllm-ascend#433, #2748; vimectl/runs/plan.py",
    reads=("test -w .", "$PWD", "$ASCEND_WORK_PATH"),
)
def working_directory(facts: Facts) -> CheckResult:
    """CANN's operator compiler creates kernel_meta in the working directory, unless ASCEND_WORK_PATH is set,
    and a run creates its directory there, unless --run-dir is given.
    """
    place, writable = facts.environment.get("PWD", "."), facts.read(read_writable, ".")
    needed = facts.stack.stack.device == "npu" and not facts.environment.get("ASCEND_WORK_PATH")
    bad: Status = "fail" if needed else "warn"
    return result(
        writable,
        place if writable else f"{place} cannot be written",
        "a working directory that this user may write",
        'start the run in a directory that this user may write: cd "$HOME"',
        bad,
    )
