"""The data set of a C-STORE request on its way to the disk: written as it comes, digested and measured, never held in memory.

Whatever fails here ends as a refusal that the service answers; the rest of the data set is then read and dropped, so that the
association lives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.receive.admission import Refusal, Status, judge_error, judge_size, judge_space
from node.receive.digest import HELP_FROM, Digest, Helper
from node.receive.file_meta import proof_at
from node.receive.limits import SPACE_EVERY
from node.receive.quick_scan import HEAD
from storage.objects import ObjectStore, PartFile

_HELPER = Helper()
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

    `part` is None before the first byte and after a refusal; a `refusal` that is known beforehand lets nothing be written at all.
    """

    def __init__(self, room: Room, meta: bytes, refusal: Refusal | None = None) -> None:
        self._room, self._meta = room, meta
        self._digest = Digest(_HELPER)
        self._checked = 0
        self.part: PartFile | None = None
        self.meta_bytes = len(meta)
        self.size = 0
        self.head = bytearray()
        """The first bytes, at most HEAD."""
        self.refusal = refusal
        self.error: BaseException | None = None

    @property
    def digest(self) -> str:
        """sha256 hex of the data set as received."""
        return self._digest.digest().hex()

    @property
    def holds_views(self) -> bool:
        """Whether the views of the last `write` must hold until the next one, or `digest`, returns."""
        return self.size > HELP_FROM

    def prove(self) -> None:
        """Writes the digest into the file meta information: from then on the file itself tells that it is whole."""
        assert self.part is not None
        self.part.stamp(proof_at(self._meta), self._digest.digest())

    def write(self, *pieces: bytes | memoryview) -> None:
        """Takes fragments, fewer than `storage.objects.MAX_PIECES`; never raises. Views must hold as `holds_views` says."""
        more = sum(map(len, pieces))
        self.size += more
        if self.refusal is not None or not more:
            return
        try:
            self.refusal = judge_size(self.size, self._room.limit) or self._space(more)
            if self.refusal is None:
                self._digest.update(pieces)
                if self.part is None:
                    self.part = self._room.store.begin()
                    self.part.write(self._meta, *pieces)
                else:
                    self.part.write(*pieces)
                for piece in pieces if len(self.head) < HEAD else ():
                    self.head += piece[:HEAD - len(self.head)]
        except Exception as error:
            self.refuse(error)
        if self.refusal is not None:
            self.discard()

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
