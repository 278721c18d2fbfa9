"""A-ASSOCIATE of a requestor: the request made, the answer read (PS3.8 9.3.2 to 9.3.4, annex D.1; PS3.7 annex D.3.3).

Our own coders, small because we propose little: classes with one or two transfer syntaxes, no roles, no asynchronous operations. The library's would
take longer to import than `mediqa send` takes for a series. A test holds both against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.receive.upper_layer import PduType, ProtocolError, Reason

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MOST_CONTEXTS = 128
"""Odd numbers of one byte (PS3.8 9.3.2.2)."""
_FIXED = struct.Struct(">BxLHxx16s16s32x")
"""PDU type, length, protocol version, called and calling AE title."""
_ITEM = struct.Struct(">BxH")
_APPLICATION, _CONTEXT_RQ, _CONTEXT_AC, _ABSTRACT, _TRANSFER, _USER = 0x10, 0x20, 0x21, 0x30, 0x40, 0x50
_MAX_LENGTH, _CLASS_UID, _VERSION_NAME = 0x51, 0x52, 0x55

Proposal = tuple[str, tuple[str, ...]]
"""A presentation context: abstract syntax, transfer syntaxes in the wanted order."""


@dataclass(frozen=True)
class Accepted:
    """contexts: ID by (abstract syntax, transfer syntax). `peer_max`: its Maximum Length in bytes, 0 = any."""

    contexts: dict[tuple[str, str], int]
    peer_max: int


@dataclass(frozen=True)
class Rejected:
    """Result, source and reason of PS3.8 table 9-21."""

    result: int
    source: int
    reason: int


def request(called: str, calling: str, proposals: Sequence[Proposal], max_pdu: int) -> bytes:
    """The A-ASSOCIATE-RQ; context IDs are 1, 3, 5 ... in the order of `proposals`, at most MOST_CONTEXTS. ValueError for what cannot be said."""
    if not 0 < len(proposals) <= MOST_CONTEXTS:
        raise ValueError(f"{len(proposals)} presentation contexts")
    items = [_item(_APPLICATION, APPLICATION_CONTEXT.encode("ascii"))]
    for k, (abstract, syntaxes) in enumerate(proposals):
        inner = _item(_ABSTRACT, abstract.encode("ascii")) + b"".join(_item(_TRANSFER, uid.encode("ascii")) for uid in syntaxes)
        items.append(_item(_CONTEXT_RQ, bytes((2 * k + 1, 0, 0, 0)) + inner))
    items.append(_item(_USER, _item(_MAX_LENGTH, struct.pack(">L", max_pdu)) + _item(_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii"))
                       + _item(_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii"))))
    body = b"".join(items)
    return _FIXED.pack(PduType.ASSOCIATE_RQ, _FIXED.size - 6 + len(body), 1, _title(called), _title(calling)) + body


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _title(text: str) -> bytes:
    title = text.encode("ascii").ljust(16)
    if len(title) > 16:
        raise ValueError("an AE title of more than 16 characters")
    return title


def read_answer(pdu: bytes, proposals: Sequence[Proposal]) -> Accepted | Rejected:
    """What an A-ASSOCIATE-AC or -RJ says to `request`. ProtocolError for bytes that are neither, or accept what was not proposed."""
    if pdu[0] == PduType.ASSOCIATE_RJ:
        return Rejected(*pdu[7:10])
    contexts, peer_max = {}, 0
    for kind, value in _items(pdu[_FIXED.size:]):
        if kind == _CONTEXT_AC and len(value) >= 4 and value[2] == 0:
            syntaxes = [text.rstrip(b"\0").decode("ascii", "replace") for inner, text in _items(value[4:]) if inner == _TRANSFER]
            place, even = divmod(value[0] - 1, 2)
            if even or not 0 <= place < len(proposals) or len(syntaxes) != 1 or syntaxes[0] not in proposals[place][1]:
                raise ProtocolError(Reason.INVALID_PARAMETER, "a presentation context was accepted that was not proposed")
            contexts[proposals[place][0], syntaxes[0]] = value[0]
        elif kind == _USER:
            peer_max = next((int.from_bytes(said, "big") for inner, said in _items(value) if inner == _MAX_LENGTH and len(said) == 4), 0)
    return Accepted(contexts, peer_max)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of items that fill `data`; ProtocolError where they do not."""
    at = 0
    while at < len(data):
        if len(data) - at < _ITEM.size:
            raise ProtocolError(Reason.INVALID_PARAMETER, "association answer ends inside an item")
        kind, length = _ITEM.unpack_from(data, at)
        at += _ITEM.size
        if length > len(data) - at:
            raise ProtocolError(Reason.INVALID_PARAMETER, "an item is longer than the association answer")
        yield kind, data[at:at + length]
        at += length
