"""Read what the system allows this user: a name, writable directories, new threads."""

from __future__ import annotations

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host

# clone3(2) with no arguments: the kernel refuses it with EINVAL and creates nothing. A seccomp filter that
# does not know the call answers for it, with ENOSYS or EPERM.
_CLONE3 = 435
PROGRAM = (
    "import ctypes, errno; libc = ctypes.CDLL(None, use_errno=True); "
    f"libc.syscall({_CLONE3}, None, 0); print(errno.errorcode[ctypes.get_errno()])  # clone3"
)


def read_user_name(host: Host, user: int) -> str:
    """Return the name of a user, from /etc/passwd or what else the C library asks; empty if it has none."""
    if found := host.search("/etc/passwd", rf"^([^:\n]+):[^:\n]*:{user}:"):
        return found[1]
    answer = host.run(["getent", "passwd", str(user)], 5)
    return answer.stdout.partition(":")[0] if answer.code == 0 else ""


def read_writable(host: Host, path: str) -> bool:
    """Return True if this user may write a file, or in a directory. Raises Unavailable."""
    answer = host.run(["test", "-w", path], 5)
    if answer.code > 1:
        raise Unavailable(f"test -w {path}: {answer.stderr.strip() or answer.code}")
    return answer.code == 0


def read_existing(host: Host, path: str) -> str:
    """Return the path itself, or the nearest directory above it that exists."""
    while path not in ("", "/") and not host.exists(path):
        path = path.rstrip("/").rpartition("/")[0]
    return path or "/"


def read_clone3(host: Host) -> str:
    """Return the name of the error with which clone3(2) refuses to do nothing. Raises Unavailable."""
    answer = host.run([host.python, "-c", PROGRAM], 5)
    if answer.code != 0 or not answer.stdout.strip():
        raise Unavailable(f"{host.python} does not run")
    return answer.stdout.strip()
