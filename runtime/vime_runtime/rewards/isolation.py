"""Restrict a reward process, before the user's code is imported, with what an unprivileged process may use.

Verifiers evaluate what a model wrote. Each restriction is tried separately, because containers and older
kernels refuse some of them; ``restrict`` returns what is possible nevertheless.

Not covered: the process can read all files of its user, and change modes and times of files (Landlock
has no right for that).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
from collections.abc import Mapping
from pathlib import Path

# A reward that allocates more private memory gets MemoryError.
MEMORY_BYTES = 4 * 2**30
# The largest file in the temporary folder.
FILE_BYTES = 2**30

# Variables that a reward process inherits; all others may be secrets.
INHERITED = ("PATH", "HOME", "USER", "TZ", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
INHERITED_PREFIX = "LC_"

_libc = ctypes.CDLL(None, use_errno=True)

# linux/prctl.h
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

# linux/sched.h
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000

# linux/audit.h, and the numbers of system calls that differ: asm/unistd_64.h, asm-generic/unistd.h.
# Denied: socket, ptrace, process_vm_readv, process_vm_writev, io_uring_setup (it can open sockets too),
# pidfd_getfd. Sockets of socketpair(2), which asyncio needs, have no address and stay possible.
_DENIED_CALLS = {
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425, 438)),
}

# linux/landlock.h; the numbers are the same on all architectures.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_WRITE_FILE = 1 << 1
# Rights to change files, by the version of the interface that has them: WRITE_FILE and those from REMOVE_DIR
# to MAKE_SYM; REFER; TRUNCATE.
_WRITE_RIGHTS = {1: _WRITE_FILE | 0x1FF0, 2: 1 << 13, 3: 1 << 14}
_TCP_RIGHTS = 0b11  # version 4: bind and connect
_SCOPES = 0b11  # version 6: abstract UNIX sockets, and signals


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that cannot be secrets."""
    return {
        name: value
        for name, value in environment.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIX)
    }


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent exits: PR_SET_CHILD_SUBREAPER(2const)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def enter_namespaces() -> bool:
    """Put the children of this process into new namespaces of users, process ids and System V IPC.

    They then have no privileges outside, see no other process, and are killed with the first of them:
    user_namespaces(7), pid_namespaces(7). Returns False if the platform refuses that.
    """
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWPID | _CLONE_NEWIPC) != 0:
        # A privileged process may not need a namespace of users.
        return bool(_libc.unshare(_CLONE_NEWPID | _CLONE_NEWIPC) == 0)
    # A group can only be mapped by a process that cannot drop groups. Without a map, which AppArmor may
    # forbid, the process still has the access rights of its user.
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
    for name, text in maps.items():
        with contextlib.suppress(OSError):
            Path("/proc/self", name).write_text(text, encoding="ascii")
    return True


def restrict(folder: str, in_namespaces: bool) -> list[str]:
    """Restrict this process and its descendants; ``folder`` is the only one in which they may write.

    Returns:
        what is possible nevertheless because the platform refuses a restriction, in words.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    possible, version = [], 0
    try:
        version = _deny_writes(folder)
    except OSError as e:
        possible.append(f"write to files outside its temporary folder ({e.strerror})")
    if version < 6 and not in_namespaces:
        possible.append("send signals to processes of this user")
    try:
        _deny_calls()
    except OSError as e:
        possible.append(f"use the network ({e.strerror})")
    # Version 3 of capabilities, this process; none effective, permitted or inheritable: capset(2).
    _libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))
    return possible


def _deny_writes(folder: str) -> int:
    """Deny writes outside ``folder``, TCP, and signals and ptrace(2) to processes outside: landlock(7).

    Returns:
        the version of the kernel's interface; before version 6 signals are not denied.

    Raises:
        OSError: the kernel has no Landlock, or a security policy forbids it.
    """
    version = _call(_LANDLOCK_CREATE, None, 0, 1)
    rights = sum(bits for since, bits in _WRITE_RIGHTS.items() if since <= version)
    attributes = struct.pack(
        "QQQ", rights, _TCP_RIGHTS if version >= 4 else 0, _SCOPES if version >= 6 else 0
    )
    ruleset = _call(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    for path, allowed in ((folder, rights), ("/dev/null", _WRITE_FILE)):
        directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _call(_LANDLOCK_ADD, ruleset, 1, struct.pack("=Qi", allowed, directory), 0)
        os.close(directory)
    _call(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return version


def _deny_calls() -> None:
    """Make the system calls of ``_DENIED_CALLS`` fail with EACCES: seccomp(2), linux/filter.h.

    Raises:
        OSError: the kernel has no filters, or the architecture is unknown.
    """
    if platform.machine() not in _DENIED_CALLS:
        raise OSError(0, f"unknown architecture {platform.machine()}")
    architecture, denied = _DENIED_CALLS[platform.machine()]
    load, equal, at_least, return_ = 0x20, 0x15, 0x35, 0x06
    # (code, jump if true, jump if false, operand). Offset 4 is the architecture, 0 the number of the call;
    # numbers from 2**30 are x32 calls. Each test jumps to the last line, which denies.
    tests = [(at_least, 2**30), *((equal, number) for number in denied)]
    program = [(load, 0, 0, 4), (equal, 0, len(tests) + 2, architecture), (load, 0, 0, 0)]
    program += [(code, len(tests) - i, 0, operand) for i, (code, operand) in enumerate(tests)]
    program += [(return_, 0, 0, 0x7FFF0000), (return_, 0, 0, 0x00050000 | 13)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    argument = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(filters))
    if _libc.prctl(_PR_SET_SECCOMP, 2, argument, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _call(number: int, *arguments: object) -> int:
    """Make a system call that the C library has no function for. Raises OSError."""
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
