"""The data set of a C-STORE request on its way to the disk: written as it comes, digested and measured, never held in memory.

Whatever fails here ends as a refusal that the service answers; the rest of the data set is then read and dropped, so that the
association lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from node.receive.admission import Refusal, Status, judge_error, judge_size, judge_space
from node.receive.file_meta import proof_at
from node.receive.header_scan import Header
from node.receive.limits import SPACE_EVERY
from node.receive.quick_scan import HEAD, quick_scan
from storage.objects import ObjectStore, PartFile

NO_DATA_SET = Refusal(Status.CANNOT_UNDERSTAND, "no data set")


@dataclass(frozen=True)
class Room:
    """Where data sets go and how much may be taken: `limit` bytes each, never below `reserve` bytes of what `free` tells."""

    store: ObjectStore
    reserve: int
    limit: int
    free: Callable[[], int]


class Spool:
    """Sink of one data set behind `meta`, its preamble and file meta information.

    `syntax` is its transfer syntax UID; `part` is None before the first byte and after a refusal; a `refusal` that is known beforehand lets
    nothing be written at all.
    """

    def __init__(self, room: Room, meta: bytes, syntax: str, refusal: Refusal | None = None) -> None:
        self._room, self._meta, self._syntax = room, meta, syntax
        self._digest = blake3()
        self._checked = 0
        self.part: PartFile | None = None
        self.meta_bytes = len(meta)
        self.size = 0
        self._head = bytearray()  # the first bytes, at most HEAD
        self._scanned = False
        self._header: Header | None = None
        self.refusal = refusal
        self.error: BaseException | None = None

    @property
    def digest(self) -> str:
        """BLAKE3 hex (256 bits) of the data set as received."""
        return self._digest.hexdigest()

    def prove(self) -> None:
        """Writes the digest into the file meta information: from then on the file itself tells that it is whole."""
        assert self.part is not None
        self.part.stamp(proof_at(self._meta), self._digest.digest())

    def write(self, *pieces: bytes | memoryview) -> None:
        """Takes fragments, fewer than `storage.objects.MAX_PIECES`; never raises."""
        more = sum(map(len, pieces))
        self.size += more
        if self.refusal is not None or not more:
            return
        try:
            self.refusal = judge_size(self.size, self._room.limit) or self._space(more)
            if self.refusal is None:
                for piece in pieces:
                    self._digest.update(piece)
                if self.part is None:
                    self.part = self._room.store.begin()
                    self.part.write(self._meta, *pieces)
                else:
                    self.part.write(*pieces)
                if not self._scanned:
                    self._look(pieces)
        except Exception as error:
            self.refuse(error)
        if self.refusal is not None:
            self.discard()

    def _look(self, pieces: tuple[bytes | memoryview, ...]) -> None:
        """Reads the header as soon as it is here: the peer is still sending then, and waits for no answer."""
        for piece in pieces:
            self._head += piece[:HEAD - len(self._head)]
        if len(self._head) == HEAD:
            self.quick_header()

    def quick_header(self) -> Header | None:
        """What `quick_scan` makes of the first HEAD bytes, or of all where there are fewer; asked for when nothing more comes."""
        if not self._scanned:
            self._scanned, self._header = True, quick_scan(self._head, self._syntax)
        return self._header

    def _space(self, more: int) -> Refusal | None:
        if self.part is not None and self.size - self._checked < SPACE_EVERY:
            return None
        self._checked = self.size
        return judge_space(self._room.free() - more - SPACE_EVERY, self._room.reserve)

    def refuse(self, error: BaseException) -> None:
        """Our own failure becomes the answer."""
        self.error, self.refusal = error, judge_error(error)

    def discard(self) -> None:
        """Removes the part file, if there is one."""
        part, self.part = self.part, None
        if part is not None:
            part.discard()
