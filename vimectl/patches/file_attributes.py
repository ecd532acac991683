"""Keep the owner, permissions, ACL and other extended attributes of a file that is replaced."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from vimectl.patches.blobs import new_file_mode

_ACL, _DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
# Signatures and privileges of a certain content; the kernel removes the privileges when a file is written.
_OF_CONTENT = ("security.capability", "security.evm", "security.ima")
_ABSENT = (errno.ENODATA, errno.ENOTSUP)
# Format and tags of an ACL: linux/posix_acl_xattr.h.
_ENTRY = struct.Struct("<HHI")
_USER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


class FileAttributes(NamedTuple):
    """Owner, group, and extended attributes of a file. ``new``: they are those for a new file."""

    uid: int
    gid: int
    xattrs: Mapping[str, bytes]
    new: bool = False


def attributes_of(descriptor: int) -> FileAttributes:
    """Return the attributes of an open file, as far as this user may read them."""
    status, xattrs = os.fstat(descriptor), {}
    for name in _names(descriptor):
        with suppress(OSError):  # removed at this moment, or only root may read it
            xattrs[name] = os.getxattr(descriptor, name)
    return FileAttributes(status.st_uid, status.st_gid, xattrs)


def attributes_in(folder: int, executable: bool) -> FileAttributes:
    """Return the attributes of a new file in an open folder: its owner, and what its default ACL says."""
    status = os.fstat(folder)
    try:
        default = os.getxattr(folder, _DEFAULT_ACL)
    except OSError as e:
        if e.errno not in _ABSENT:
            raise
        return FileAttributes(status.st_uid, status.st_gid, {}, new=True)
    acl = _inherited(default, 0o777 if executable else 0o666)
    return FileAttributes(status.st_uid, status.st_gid, {_ACL: acl}, new=True)


def give(descriptor: int, wanted: FileAttributes, st_mode: int | None, same_content: bool) -> list[str]:
    """Give a new file, open for writing, these attributes and permissions.

    Args:
        st_mode: its permissions; None: those that the umask or the default ACL give a new file.
        same_content: the file that is replaced has the same content.

    Returns:
        The names of attributes that could not be kept: only root may set some of them.

    Raises:
        OSError: the group, an ACL or an attribute of the user cannot be kept.
    """
    _give_owner(descriptor, wanted)
    for name in set(_names(descriptor)) - wanted.xattrs.keys():
        if name == _ACL:  # inherited from the folder in which the file was made
            os.removexattr(descriptor, name)
    lost = []
    for name, value in sorted(wanted.xattrs.items()):
        if name in _OF_CONTENT and not same_content:
            lost.append(name)
            continue
        try:
            if name not in _names(descriptor) or os.getxattr(descriptor, name) != value:
                os.setxattr(descriptor, name, value)
        except OSError:
            if not name.startswith(("security.", "trusted.")):
                raise
            lost.append(name)
    if not (wanted.new and _ACL in wanted.xattrs):
        os.fchmod(descriptor, stat.S_IMODE(new_file_mode() if st_mode is None else st_mode))
    return lost


def _give_owner(descriptor: int, wanted: FileAttributes) -> None:
    """Root keeps owner and group, other users the group."""
    found = os.fstat(descriptor)
    if os.geteuid() == 0:
        if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
            os.fchown(descriptor, wanted.uid, wanted.gid)
    elif found.st_gid != wanted.gid:
        try:
            os.fchown(descriptor, -1, wanted.gid)
        except PermissionError as e:
            if not wanted.new:
                raise PermissionError(e.errno, f"only a member of group {wanted.gid} can keep it") from e


def _names(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as e:
        if e.errno not in _ABSENT:
            raise
        return []


def _inherited(default: bytes, mode: int) -> bytes:
    """Return the ACL of a new file of this mode in a folder with a default ACL, see acl(5)."""
    entries = list(_ENTRY.iter_unpack(default[4:]))
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP
    limits = {_USER: mode >> 6, group: mode >> 3, _OTHER: mode}
    return default[:4] + b"".join(
        _ENTRY.pack(tag, permissions & limits.get(tag, 7), user) for tag, permissions, user in entries
    )
