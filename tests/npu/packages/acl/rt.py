"""The function of pyACL, CANN's interface for Python, that vllm-ascend's sleep mode calls at level 1.

CANN, "acl.rt.memcpy": arguments and result are those of ``aclrtMemcpy``, addresses as integers.
"""

from __future__ import annotations

import ctypes

_aclrtMemcpy = ctypes.CDLL("libascendcl.so").aclrtMemcpy
_aclrtMemcpy.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def memcpy(dst: int, dest_max: int, src: int, count: int, direction: int) -> int:
    """Copy memory; return 0 or an error code."""
    return int(_aclrtMemcpy(dst, dest_max, src, count, direction))
