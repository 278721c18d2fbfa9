"""A file of PS3.10 on its way out: what its meta information says, where its data set begins; the data set itself is not parsed.

Reading is bounded: META bytes hold the meta information of any sender, MAX_META that of one with large private information. No DICOM
library is loaded: `mediqa send` is done before one would have been imported.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from node.receive.file_meta import DEFLATED

META, MAX_META = 8192, 2**20
"""Bytes that are looked at, and the most that is looked at where these do not hold the meta information."""
PREAMBLE = 132
"""Bytes before the meta information, the prefix DICM included."""
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
"""VRs with a length of four bytes (PS3.5 table 7.1-1)."""
_VR = re.compile(rb"[A-Z]{2}")
_UID = re.compile(rb"[0-9.]{1,64}\0?")
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018


class NotPart10(Exception):
    """The file has no preamble, or its meta information cannot be read."""


class _Short(Exception):
    """More bytes are needed."""


@dataclass(frozen=True)
class Stored:
    """An open file. UIDs as they stand there without padding, "" where they do not; the data set lies from `offset` to `end`.

    named: (SOP class UID, SOP Instance UID) as the data set itself has them, None where a quick look does not tell.
    """

    handle: int
    sop_class_uid: str
    sop_uid: str
    transfer_syntax: str
    offset: int
    end: int
    named: tuple[str, str] | None

    @property
    def length(self) -> int:
        """Bytes of the data set."""
        return self.end - self.offset

    def __enter__(self) -> Stored:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.handle)


def open_stored(path: Path) -> Stored:
    """Opens a file; its context closes it. NotPart10, or OSError."""
    return read_stored(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def read_stored(handle: int) -> Stored:
    """What an open file holds; takes the handle over, also where it raises."""
    try:
        end = os.fstat(handle).st_size
        head = os.pread(handle, META, 0)
        if head[PREAMBLE - 4:PREAMBLE] != b"DICM":
            raise NotPart10("no DICM behind a preamble")
        try:
            values, offset = _meta(head)
        except _Short:
            head = os.pread(handle, MAX_META, 0)
            try:
                values, offset = _meta(head, len(head) == end)
            except _Short:
                raise NotPart10("meta information has no end") from None
        texts = [values.get(element, b"").strip(b"\0 ").decode("ascii", "replace") for element in (0x0002, 0x0003, 0x0010)]
        return Stored(handle, *texts, offset, end, uids_of(head[offset:], texts[2]))
    except BaseException:
        os.close(handle)
        raise


def _meta(head: bytes, whole: bool = False) -> tuple[dict[int, bytes], int]:
    """Values of group 0002 by element, always Explicit VR Little Endian (PS3.10 7.1), and where it ends. `whole`: no more bytes follow.

    It ends where its length (0002,0000) says, if an element ends there, else where another group begins.
    """
    values: dict[int, bytes] = {}
    at = end = PREAMBLE
    for tag, start, length in _elements(head, PREAMBLE, "<", True, group=0x0002):
        if start + length > len(head):
            raise _Short
        values[tag & 0xFFFF] = head[start:start + length]
        at = start + length
        if tag == 0x00020000 and length == 4:
            end = at + int.from_bytes(values[0], "little")
        elif at == end:
            return _checked(values), at
    if len(head) - at >= 8 or (whole and at == len(head)):
        return _checked(values), at
    raise _Short


def _checked(values: dict[int, bytes]) -> dict[int, bytes]:
    if not values.get(0x0010):
        raise NotPart10("meta information names no transfer syntax")
    return values


def uids_of(head: bytes, transfer_syntax: str) -> tuple[str, str] | None:
    """SOP Class UID and SOP Instance UID of the data set that begins with `head`; None where they are not plain to see."""
    if transfer_syntax in DEFLATED:
        return None
    found: dict[int, bytes] = {}
    before = 0
    try:
        for tag, start, length in _elements(head, 0, ">" if transfer_syntax == BIG_ENDIAN else "<", transfer_syntax != IMPLICIT):
            if tag <= before:
                return None
            if tag > _SOP_INSTANCE:
                break
            before = tag
            if tag in (_SOP_CLASS, _SOP_INSTANCE):
                found[tag] = head[start:start + length]
    except NotPart10:
        return None
    if len(found) < 2 or not all(_UID.fullmatch(value) for value in found.values()):
        return None
    return found[_SOP_CLASS].rstrip(b"\0").decode("ascii"), found[_SOP_INSTANCE].rstrip(b"\0").decode("ascii")


def _elements(head: bytes, at: int, order: str, explicit: bool, group: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(tag, start of the value, its length) of elements from `at` on, of `group` alone if so wanted, as far as whole headers go.

    NotPart10 for what is no element.
    """
    tag_of, short, long = struct.Struct(order + "HH"), struct.Struct(order + "H"), struct.Struct(order + "L")
    while len(head) - at >= 8:
        of, element = tag_of.unpack_from(head, at)
        if group is not None and of != group:
            return
        if explicit:
            vr = head[at + 4:at + 6]
            if not _VR.fullmatch(vr):
                raise NotPart10("no VR where one must stand")
            if vr not in _LONG:
                (length,), start = short.unpack_from(head, at + 6), at + 8
            elif len(head) - at >= 12:
                (length,), start = long.unpack_from(head, at + 8), at + 12
            else:
                return
        else:
            (length,), start = long.unpack_from(head, at + 4), at + 8
        if length == 0xFFFFFFFF:
            raise NotPart10("an element of undefined length")
        yield of << 16 | element, start, length
        at = start + length
