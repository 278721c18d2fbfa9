"""Upper layer of the fast path, and of sending, without sockets: bytes in, events out (PS3.8 9.2 state machine, 9.3 PDU structure).

Replaces pynetdicom's `dul.py`, `fsm.py` and the P-DATA-TF part of `pdu.py`: those pass every PDU through a queue between two threads,
copy each byte about seven times, and check no length. Here a fragment is a view of the caller's buffer, given out as soon as a part of
it is there; only headers and the small PDUs are ever held. Lengths are checked before anything is waited for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from node.receive.limits import FREE_FRAGMENTS, LEAST_FRAGMENT, MAX_ASSOCIATE, PDU_TOLERANCE

_PDU_HEADER = struct.Struct(">BxL")
_PDV_HEADER = struct.Struct(">LBB")
_LEAST_REQUEST = 68
"""Bytes of an A-ASSOCIATE-RQ or -AC before its variable items (PS3.8 tables 9-11 and 9-17)."""
RELEASE_REQUEST = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
RELEASE_RESPONSE = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"


class PduType(IntEnum):
    """First byte of a PDU (PS3.8 9.3.1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Reason(IntEnum):
    """Why the service provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class ProtocolError(Exception):
    """The peer breaks PS3.8 or PS3.7; the association is to be aborted with `reason`."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def abort(reason: Reason) -> bytes:
    """An A-ABORT by the service provider (PS3.8 9.3.8)."""
    return struct.pack(">BxLxxBB", PduType.ABORT, 4, 2, reason)


def data_tf(context_id: int, command: bytes, peer_max: int = 0) -> bytes:
    """One P-DATA-TF with the whole command set, more of them where the peer takes no more than `peer_max` bytes in each (PS3.8 annex E)."""
    size = max(peer_max - _PDV_HEADER.size, 2) & ~1 if peer_max else len(command)
    pdus = []
    for at in range(0, len(command), size):
        piece = command[at:at + size]
        flags = 3 if at + size >= len(command) else 1
        pdus.append(_PDU_HEADER.pack(PduType.DATA, len(piece) + 6) + _PDV_HEADER.pack(len(piece) + 2, context_id, flags) + piece)
    return b"".join(pdus)


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A whole A-ASSOCIATE-RQ with its header."""

    pdu: bytes


@dataclass(frozen=True, slots=True)
class AssociateAnswer:
    """A whole A-ASSOCIATE-AC or -RJ with its header."""

    pdu: bytes


@dataclass(slots=True)
class Fragment:
    """Part of a presentation data value. `data` is a view that holds until the next `feed`; `last` = the command or data set is complete."""

    context_id: int
    command: bool
    last: bool
    data: memoryview


class Release:
    """A-RELEASE-RQ."""


class Released:
    """A-RELEASE-RP."""


class Abort:
    """A-ABORT, from the peer or its provider."""


class _Part(Enum):
    """What the bytes that are collected next are."""

    PDU_HEADER = auto()
    PDV_HEADER = auto()
    BODY = auto()


Event = AssociateRequest | AssociateAnswer | Fragment | Release | Released | Abort


class UpperLayer:
    """One association's byte stream as an acceptor reads it, or a `requestor`. After an error it is of no more use.

    max_pdu: what we announce, in bytes.
    """

    def __init__(self, max_pdu: int, requestor: bool = False) -> None:
        self._most = max_pdu + PDU_TOLERANCE
        self._requestor = requestor
        self._part, self._need = _Part.PDU_HEADER, _PDU_HEADER.size
        self._held = bytearray()
        self._type = 0
        self._pdu_left = self._pdv_left = 0
        self._context, self._flags = 0, 0
        self._fragments = self._fragment_bytes = 0  # of the command or data set in progress
        self.established = False
        """Set by the caller with the A-ASSOCIATE-AC: state 6 instead of 2 and 3, or 5."""
        self.pdus = 0
        """PDUs whose header has come whole or in part."""
        self.pdu_length = 0
        """Bytes after the header of the newest PDU, 0 until they are known."""

    @property
    def in_pdu(self) -> bool:
        """Whether the stream stands inside a PDU."""
        return bool(self._held or self._pdu_left or self._pdv_left or self._part is not _Part.PDU_HEADER)

    def feed(self, data: memoryview) -> Iterator[Event]:
        """Events in `data`, in order; consumes all of it unless the caller stops early. ProtocolError for what PS3.8 forbids."""
        at, end = 0, len(data)
        while at < end:
            if self._pdv_left:
                take = min(self._pdv_left, end - at)
                self._pdv_left -= take
                yield Fragment(self._context, bool(self._flags & 1), bool(self._flags & 2) and not self._pdv_left, data[at:at + take])
                at += take
                continue
            if not self.in_pdu:
                self.pdus, self.pdu_length = self.pdus + 1, 0
            take = min(self._need - len(self._held), end - at)
            self._held += data[at:at + take]
            at += take
            if len(self._held) < self._need:
                return
            if (event := self._collected(data)) is not None:
                yield event

    def _collected(self, data: memoryview) -> Event | None:
        """Acts on a header or a body that is complete."""
        if self._part is _Part.PDU_HEADER:
            self._type, length = _PDU_HEADER.unpack(self._held)
            self._check(length)
            self.pdu_length = length
            if self._type == PduType.DATA:
                self._pdu_left = length
                self._expect(_Part.PDV_HEADER, _PDV_HEADER.size)
            else:  # the header stays with its body
                self._part, self._need = _Part.BODY, _PDU_HEADER.size + length
            return None
        if self._part is _Part.PDV_HEADER:
            return self._fragment(data)
        pdu = bytes(self._held)
        self._expect(_Part.PDU_HEADER, _PDU_HEADER.size)
        if self._type == PduType.ASSOCIATE_RQ:
            return AssociateRequest(pdu)
        if self._type in (PduType.ASSOCIATE_AC, PduType.ASSOCIATE_RJ):
            return AssociateAnswer(pdu)
        return Release() if self._type == PduType.RELEASE_RQ else Released() if self._type == PduType.RELEASE_RP else Abort()

    def _fragment(self, data: memoryview) -> Fragment | None:
        """A PDV begins: its length must fit into what is left of the PDU (PS3.8 9.3.5.1)."""
        length, self._context, self._flags = _PDV_HEADER.unpack(self._held)
        self._pdu_left -= 4 + length
        if length < 2 or self._pdu_left < 0 or 0 < self._pdu_left < _PDV_HEADER.size:
            raise ProtocolError(Reason.INVALID_PARAMETER, "PDV length does not fit its PDU")
        self._pdv_left = length - 2
        self._fragments += 1
        self._fragment_bytes += length
        if self._fragments > FREE_FRAGMENTS + self._fragment_bytes // LEAST_FRAGMENT:
            raise ProtocolError(Reason.NOT_SPECIFIED, "fragments are too small")
        if self._flags & 2:
            self._fragments = self._fragment_bytes = 0
        if self._pdu_left:
            self._expect(_Part.PDV_HEADER, _PDV_HEADER.size)
        else:
            self._expect(_Part.PDU_HEADER, _PDU_HEADER.size)
        if self._pdv_left:
            return None
        return Fragment(self._context, bool(self._flags & 1), bool(self._flags & 2), data[:0])

    def _expect(self, part: _Part, need: int) -> None:
        self._part, self._need = part, need
        self._held.clear()

    def _check(self, length: int) -> None:
        """A PDU of this type and length may come now."""
        kind = self._type
        if not PduType.ASSOCIATE_RQ <= kind <= PduType.ABORT:
            raise ProtocolError(Reason.UNRECOGNIZED_PDU, "unknown PDU type")
        first = not self.established and self.pdus == 1
        short = [PduType.RELEASE_RQ, PduType.RELEASE_RP] if self._requestor else [PduType.RELEASE_RQ]
        if kind == PduType.ABORT or (kind in short and self.established) or (kind == PduType.ASSOCIATE_RJ and self._requestor and first):
            fits = length == 4
        elif kind == (PduType.ASSOCIATE_AC if self._requestor else PduType.ASSOCIATE_RQ) and first:
            fits = _LEAST_REQUEST <= length <= MAX_ASSOCIATE
        elif kind == PduType.DATA and self.established:
            fits = _PDV_HEADER.size <= length <= self._most
        else:
            raise ProtocolError(Reason.UNEXPECTED_PDU, "PDU does not belong here")
        if not fits:
            raise ProtocolError(Reason.INVALID_PARAMETER, "PDU length is not allowed")
