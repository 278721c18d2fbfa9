"""Preamble and File Meta Information of a received object (PS3.10 section 7.1), written by hand: no value can change another."""

from __future__ import annotations

import struct

IMPLEMENTATION_CLASS_UID = "2.25.188370284563907114830241763450925817365"
IMPLEMENTATION_VERSION_NAME = "MEDIQA_NODE"


def file_meta(sop_class_uid: str, sop_uid: str, transfer_syntax: str, source_ae: str) -> bytes:
    """Everything that stands before the data set; the transfer syntax is the negotiated one."""
    elements = [
        _element(0x0001, b"OB", b"\x00\x01"),
        _element(0x0002, b"UI", _uid(sop_class_uid)),
        _element(0x0003, b"UI", _uid(sop_uid)),
        _element(0x0010, b"UI", _uid(transfer_syntax)),
        _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
        _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
        _element(0x0016, b"AE", _padded(source_ae, b" ")),
    ]
    body = b"".join(elements)
    return bytes(128) + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(body))) + body


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """An element of group 0002 in Explicit VR Little Endian."""
    head = struct.pack("<HH2s", 0x0002, element, vr)
    return head + (struct.pack("<HL", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))) + value


def _uid(value: str) -> bytes:
    return _padded(value, b"\0")


def _padded(value: str, pad: bytes) -> bytes:
    data = value.encode("latin-1", "replace")
    return data + pad if len(data) % 2 else data
