"""The header of the usual data set without a parser: Explicit VR Little Endian, clean values, from the first bytes (pure).

A walk over element headers costs a fraction of what `header_scan.scan` costs, on the way to every SUCCESS. Whatever is not plain (another
encoding, an item of undefined length, a text beyond ASCII, a value out of form, Contributing Equipment, a header longer than the bytes at
hand) gives None, and `scan` reads it; where both give a header it is the same one, which a test with changed bytes holds.
"""

from __future__ import annotations

import re
import struct
from typing import Any

from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from node.receive.file_meta import DEFLATED
from node.receive.header_scan import LAST, MAX_INT, TAGS, Header, along_normal, plain_text

HEAD = 16384
"""Bytes from the beginning of a data set that are looked at."""
_OTHER = DEFLATED | {str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian)}
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""VRs with a length of four bytes (PS3.5 table 7.1-1)."""
_SHORT = frozenset((b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM",
                    b"UI", b"UL", b"US"))
_VR = {"sop_class_uid": b"UI", "sop_uid": b"UI", "study_uid": b"UI", "series_uid": b"UI", "series_date": b"DA", "modality": b"CS",
       "manufacturer": b"LO", "station": b"SH", "description": b"LO", "manufacturer_model": b"LO", "body_part": b"CS", "device_serial": b"LO",
       "protocol": b"LO", "series_number": b"IS", "acquisition_number": b"IS", "instance_number": b"IS", "position": b"DS", "orientation": b"DS",
       "images_in_acquisition": b"IS", "series_instances": b"IS", "number_of_frames": b"IS", "contributing_equipment": b"SQ"}
_NAMES = {tag: name for name, tag in TAGS.items()}
_ELEMENT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<L")
_UNDEFINED = 0xFFFFFFFF
_CHARACTER_SET = 0x00080005
_UID = re.compile(rb"[0-9.]{0,64}\0?")
_INTEGER = re.compile(rb" ?[+-]?\d{1,10} ?")
_NUMBER = re.compile(rb" ?[+-]?\d{1,12}(\.\d{1,12})? ?")
_TEXT = re.compile(rb"[ -~]*")


def quick_scan(data: bytes | bytearray, transfer_syntax: str) -> Header | None:
    """Header of the data set that begins with `data`, None where `header_scan.scan` must look."""
    if transfer_syntax in _OTHER:
        return None
    found: dict[str, Any] = {}
    at, before, end = 0, 0, len(data) - 12
    while at <= end:
        group, element, vr, length = _ELEMENT.unpack_from(data, at)
        tag = group << 16 | element
        if tag <= before:
            return None
        if tag > LAST:
            return _header(found) if vr in _LONG or vr in _SHORT else None
        before = tag
        at += 8
        if vr in _LONG:
            length = _LENGTH.unpack_from(data, at)[0]
            at += 4
            if length == _UNDEFINED:
                return None
        elif vr not in _SHORT:
            return None
        if tag == _CHARACTER_SET and (vr != b"CS" or not _TEXT.fullmatch(data, at, at + length)):
            return None
        if (name := _NAMES.get(tag)) is not None:
            value = bytes(data[at:at + length])
            if vr != _VR[name] or vr == b"SQ" or len(value) < length or not _clean(vr, value):
                return None
            found[name] = value
        at += length
    return None


def _clean(vr: bytes, value: bytes) -> bool:
    if not value:
        return True
    if vr == b"UI":
        return _UID.fullmatch(value) is not None
    if vr == b"IS":
        return _INTEGER.fullmatch(value) is not None and abs(int(value)) <= MAX_INT
    if vr == b"DS":
        return all(_NUMBER.fullmatch(part) for part in value.split(b"\\"))
    return _TEXT.fullmatch(value) is not None


def _header(found: dict[str, bytes]) -> Header:
    values: dict[str, Any] = {}
    position = orientation = None
    for name, value in found.items():
        vr = _VR[name]
        if not value:
            continue
        if vr == b"UI":
            values[name] = value.rstrip(b"\0").decode("ascii")
        elif vr == b"IS":
            values[name] = int(value)
        elif vr == b"DS":
            numbers = [float(part) for part in value.split(b"\\")]
            if name == "position":
                position = numbers
            else:
                orientation = numbers
        else:
            values[name] = plain_text(value.decode("ascii").split("\\")[0])
    return Header(**values, position_mm=along_normal(position, orientation))
