"""A data set of a file as P-DATA-TFs (PS3.8 9.3.5 and annex E): one PDV in each, many in one buffer, for one call of the system.

The buffer has the headers of its PDUs in their places once and for all; the file is read into the gaps between them. Nothing is copied in
Python, and whatever the size of the object, one buffer of about BUFFER bytes per association is all that is held.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_HEADER = struct.Struct(">BxLLBB")
"""Headers of PDU and PDV: type, length, length, context ID, message control header."""
_DATA_TF = 4
_MORE, _LAST = 0, 2
BUFFER = 256 * 1024
LARGEST = 128 * 1024
"""Most bytes of data in one PDV, also where the peer takes any length."""
MOST_GAPS = 512
"""Of one buffer; Linux reads into 1024 (IOV_MAX)."""


class FileCut(Exception):
    """Our own file ends before its data set does."""


class Fragments:
    """Buffer of one association; `peer_max` is the peer's Maximum Length, in bytes, 0 = any."""

    def __init__(self, peer_max: int) -> None:
        most = LARGEST if not peer_max else min(peer_max - 6, LARGEST)
        self._size = max(most, 2) & ~1  # fragments are of even length
        self._step = _HEADER.size + self._size
        count = max(1, min(MOST_GAPS, BUFFER // self._step))
        self._buffer = memoryview(bytearray(count * self._step))
        self._gaps = [self._buffer[at + _HEADER.size:at + self._step] for at in range(0, len(self._buffer), self._step)]
        self._context = -1

    def of(self, handle: int, start: int, length: int, context_id: int, pad: bool = False) -> Iterator[memoryview]:
        """P-DATA-TFs of the `length` bytes from `start` on, each view until the next is asked for. FileCut, or OSError of the file.

        `pad`: a stream of odd length gets the null byte that a deflated data set must have (PS3.5 A.5).
        """
        if context_id != self._context:
            self._context = context_id
            for k in range(len(self._gaps)):
                self._header(k, self._size, _MORE)
        at, end, room = start, start + length, len(self._gaps) * self._size
        while end - at > room:
            self._read(handle, at, self._gaps, room)
            at += room
            yield self._buffer
        left = end - at
        whole, rest = divmod(left, self._size)
        if not rest and whole:
            whole, rest = whole - 1, self._size
        gaps = [*self._gaps[:whole], self._gaps[whole][:rest]]
        self._read(handle, at, gaps, left)
        if pad and rest % 2:
            self._gaps[whole][rest] = 0
            rest += 1
        self._header(whole, rest, _LAST)
        yield self._buffer[:whole * self._step + _HEADER.size + rest]
        self._header(whole, self._size, _MORE)

    def _header(self, k: int, size: int, flags: int) -> None:
        _HEADER.pack_into(self._buffer, k * self._step, _DATA_TF, size + 6, size + 2, self._context, flags)

    def _read(self, handle: int, at: int, gaps: list[memoryview], size: int) -> None:
        """Fills `gaps` with the `size` bytes from `at` on."""
        got = os.preadv(handle, gaps, at)
        while got < size:  # a file system may give less than there is
            k, offset = divmod(got, self._size)
            more = os.preadv(handle, [gaps[k][offset:], *gaps[k + 1:]], at + got)
            if not more:
                raise FileCut
            got += more
