"""Whether pages that were given back are still there: the kernel may take any, and leave zeros."""

from __future__ import annotations

import ctypes
import mmap

import torch

_WORDS = mmap.PAGESIZE // torch.int64.itemsize
_MARK = -1  # any word but zero


class Sentinels:
    """A mark in every page of a range. Set it before the pages are given back.

    The first two words of each page are kept aside. The first makes room for the mark: a page that the kernel
    took holds zeros instead. By writing the second one back a page is taken again, and only from then on does
    it matter what the first one holds.
    """

    def __init__(self, address: int, size: int) -> None:
        """``size`` bytes of whole pages at ``address``, which nobody else touches until ``still_there``."""
        pages = torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=torch.int64)
        self._words = pages.view(-1, _WORDS)[:, :2]
        self._kept = self._words.clone()
        self._words[:, 0] = _MARK

    def still_there(self) -> bool:
        """Take the pages again, and say whether all of them hold what they held.

        If not, they are for the caller to fill: some hold zeros, and none has its first word.
        """
        self._words[:, 1] = self._kept[:, 1]
        whole = bool((self._words[:, 0] == _MARK).all())
        if whole:
            self._words[:, 0] = self._kept[:, 0]
        return whole
