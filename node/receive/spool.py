"""The data set of a C-STORE request on its way to the disk: written as it comes, digested and measured, never held in memory.

pynetdicom collects a data set by writing fragments to a BytesIO; a `Spool` stands in its place and passes them to a part file. Whatever
fails here ends as a refusal that the service answers; the rest of the data set is then read and dropped, so that the association lives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from node.receive.admission import Refusal, Status, judge_error, judge_size, judge_space
from storage.objects import ObjectStore, PartFile

MAX_COMMAND = 65536
"""Bytes of a command set (PS3.7 annex E needs a few hundred)."""
SPACE_EVERY = 64 * 2**20
"""Bytes between two looks at the free space while an object arrives."""


class Spool(BytesIO):
    """Sink of one data set. `part` is None before the first byte and after a refusal."""

    def __init__(self, message: DIMSEMessage, begin: Callable[[DIMSEMessage], tuple[PartFile, bytes]], reserve: int, limit: int,
                 free: Callable[[], int]) -> None:
        super().__init__()
        self._message, self._begin, self._reserve, self._limit, self._free = message, begin, reserve, limit, free
        self._hash = hashlib.sha256()
        self._checked = 0
        self.part: PartFile | None = None
        self.meta_bytes = 0
        self.size = 0
        self.refusal: Refusal | None = None
        self.error: BaseException | None = None

    @property
    def digest(self) -> str:
        """sha256 hex of the data set as received."""
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        """Takes one fragment; never raises."""
        self.size += len(data)
        if self.refusal is None:
            try:
                self.refusal = judge_size(self.size, self._limit) or self._space()
                if self.refusal is None:
                    if self.part is None:
                        self.part, meta = self._begin(self._message)
                        self.meta_bytes = len(meta)
                        self.part.write(meta)
                    self._hash.update(data)
                    self.part.write(data)
            except Exception as error:
                self.refuse(error)
            if self.refusal is not None:
                self.discard()
        return len(data)

    def _space(self) -> Refusal | None:
        if self.part is not None and self.size - self._checked < SPACE_EVERY:
            return None
        self._checked = self.size
        return judge_space(self._free(), self._reserve)

    def refuse(self, error: BaseException) -> None:
        """Our own failure becomes the answer."""
        self.error, self.refusal = error, judge_error(error)

    def discard(self) -> None:
        """Removes the part file, if there is one."""
        part, self.part = self.part, None
        if part is not None:
            part.discard()


class _Command(BytesIO):
    """A command set of bounded size."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MAX_COMMAND:
            raise ValueError("command set is too large")
        return super().write(data)


class SpoolingDimse(DIMSEServiceProvider):
    """DIMSE provider whose messages carry a `Spool` for their data set."""

    def __init__(self, assoc: Any, store: ObjectStore, reserve: int, limit: int, free: Callable[[], int],
                 meta: Callable[[DIMSEMessage], bytes]) -> None:
        super().__init__(assoc)
        self._store, self._reserve, self._limit, self._free, self._meta = store, reserve, limit, free, meta
        self._spool: Spool | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Collects the fragments; a message that cannot be understood aborts the association (PS3.8 9.3.8)."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.encoded_command_set = _Command()
            self._spool = Spool(self.message, self._begin, self._reserve, self._limit, self._free)
            self.message.data_set = self._spool
        try:
            super().receive_primitive(primitive)
        except Exception:
            self.discard()
            self.dul.event_queue.put("Evt19")
        if self.message is None:
            self._spool = None  # complete: it belongs to the request now

    def _begin(self, message: DIMSEMessage) -> tuple[PartFile, bytes]:
        if not isinstance(message, C_STORE_RQ):
            raise ValueError("a data set without a C-STORE request")
        return self._store.begin(), self._meta(message)

    def discard(self) -> None:
        """Removes what an ended association left half-way: the object in flight and those that nobody will answer."""
        spool, self._spool, self.message = self._spool, None, None
        if spool is not None:
            spool.discard()
        while True:
            _, request = self.get_msg(block=False)
            if request is None:
                return
            waiting = getattr(request, "DataSet", None)
            if isinstance(waiting, Spool):
                waiting.discard()


NO_DATA_SET = Refusal(Status.CANNOT_UNDERSTAND, "no data set")
