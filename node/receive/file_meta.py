"""Preamble and File Meta Information of a received object (PS3.10 section 7.1), written by hand: no value can change another.

Its last value (Private Information, 0002,0102) is the BLAKE3 digest of the data set, written when all of it has come: a file that a power cut left
half done, under whatever name, can be told from a whole one without its row.
"""

from __future__ import annotations

import struct
from functools import lru_cache

IMPLEMENTATION_CLASS_UID = "2.25.188370284563907114830241763450925817365"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE"
PROOF_CREATOR_UID = IMPLEMENTATION_CLASS_UID
"""Private Information Creator UID (0002,0100) of files whose private information is their digest."""
PROOF_BYTES = 32
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""Deflated Explicit VR Little Endian, JPIP Referenced Deflate, JPIP HTJ2K Referenced Deflate (PS3.5 A.5, A.9, A.11)."""


def file_meta(sop_class_uid: str, sop_uid: str, transfer_syntax: str, source_ae: str) -> bytes:
    """Everything that stands before the data set; the transfer syntax is the negotiated one. Its last PROOF_BYTES are zero."""
    before, after = _around(sop_class_uid, transfer_syntax, source_ae)
    body = before + _element(0x0003, b"UI", _uid(sop_uid)) + after
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(body))) + body


def proof_at(meta: bytes) -> int:
    """Where in a file that begins with `meta` its digest goes."""
    return len(meta) - PROOF_BYTES


@lru_cache(256)
def _around(sop_class_uid: str, transfer_syntax: str, source_ae: str) -> tuple[bytes, bytes]:
    """Elements before and after the SOP Instance UID: the same for a whole series."""
    return _element(0x0001, b"OB", b"\x00\x01") + _element(0x0002, b"UI", _uid(sop_class_uid)), b"".join((
        _element(0x0010, b"UI", _uid(transfer_syntax)),
        _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
        _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
        _element(0x0016, b"AE", _padded(source_ae, b" ")),
        _element(0x0100, b"UI", _uid(PROOF_CREATOR_UID)),
        _element(0x0102, b"OB", bytes(PROOF_BYTES))))


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian."""
    head = struct.pack("<HH2s", 0x0002, element, vr)
    return head + (struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))) + value


def _uid(value: str) -> bytes:
    return _padded(value, b"\0")


def _padded(value: str, pad: bytes) -> bytes:
    data = value.encode("latin-1", "replace")
    return data + pad if len(data) % 2 else data
