"""Command sets: requests and responses, read and made (PS3.7 6.3, 9.3.1 C-STORE, 9.3.5 C-ECHO, annex E).

Replaces pynetdicom's `dimse_messages.py`, which makes a pydicom data set of each command, on both ways. A command set is Implicit VR Little
Endian, a few hundred bytes of group 0000; nine of its elements matter here. Values are taken as they came; what is missing is None or "".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from node.receive.limits import MAX_UID
from node.receive.upper_layer import ProtocolError, Reason

_ELEMENT = struct.Struct("<HHL")
_CLASS, _FIELD, _MESSAGE, _RESPONDED, _PRIORITY, _DATA_SET, _STATUS, _COMMENT, _INSTANCE = (
    0x0002, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x0902, 0x1000)
_WITH_DATA_SET, _NO_DATA_SET = 0x0001, 0x0101
_MEDIUM = 0x0000
MAX_COMMENT = 64


class Field(IntEnum):
    """Command Field of what this node serves and asks for (PS3.7 table E.1-1)."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030


RESPONSE = 0x8000
"""Added to the Command Field of a request."""


@dataclass(frozen=True)
class CommandSet:
    """A request or a response; `sop_class_bytes` and `sop_bytes` are its UIDs with their padding. `comment` is the peer's text."""

    field: int | None
    message_id: int | None
    responded_to: int | None
    has_data_set: bool
    sop_class_bytes: bytes
    sop_bytes: bytes
    status: int | None = None
    comment: str = ""

    @property
    def sop_class_uid(self) -> str:
        return _uid(self.sop_class_bytes)

    @property
    def sop_uid(self) -> str:
        return _uid(self.sop_bytes)


def read_command(data: bytes) -> CommandSet:
    """ProtocolError where the elements do not fill `data`, are not of group 0000, or a number has a wrong length."""
    values, at = {}, 0
    while at < len(data):
        if len(data) - at < _ELEMENT.size:
            raise ProtocolError(Reason.NOT_SPECIFIED, "command set ends inside an element")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group or length > len(data) - at:
            raise ProtocolError(Reason.NOT_SPECIFIED, "command set holds no command elements")
        values[element] = data[at:at + length]
        at += length
    if not values.get(_DATA_SET):
        raise ProtocolError(Reason.NOT_SPECIFIED, "command set does not say whether a data set follows")
    return CommandSet(_number(values, _FIELD), _number(values, _MESSAGE), _number(values, _RESPONDED),
                      _number(values, _DATA_SET) != _NO_DATA_SET, values.get(_CLASS, b""), values.get(_INSTANCE, b""),
                      _number(values, _STATUS), bytes(values.get(_COMMENT, b"")[:MAX_COMMENT]).decode("latin-1").strip("\0 "))


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element, b"")
    if len(value) not in (0, 2):
        raise ProtocolError(Reason.NOT_SPECIFIED, "a number of the command set is not of two bytes")
    return int.from_bytes(value, "little") if value else None


def _uid(value: bytes) -> str:
    """The one UID without padding; "" where there are several."""
    return "" if b"\\" in value else value.decode("latin-1").strip("\0 ")


def response(request: CommandSet, status: int, comment: str = "") -> bytes:
    """The response to `request`. UIDs go back as they came, but for one that is longer than a peer may take (PS3.5 9.1)."""
    elements = []
    if 0 < len(request.sop_class_bytes) <= MAX_UID:
        elements.append((_CLASS, request.sop_class_bytes))
    elements += [(_FIELD, struct.pack("<H", (request.field or 0) | RESPONSE)), (_RESPONDED, struct.pack("<H", request.message_id or 0)),
                 (_DATA_SET, struct.pack("<H", _NO_DATA_SET)), (_STATUS, struct.pack("<H", status))]
    if comment:
        text = comment[:MAX_COMMENT].encode("ascii", "replace")
        elements.append((_COMMENT, text + b" " * (len(text) % 2)))
    if 0 < len(request.sop_bytes) <= MAX_UID:
        elements.append((_INSTANCE, request.sop_bytes))
    return _encoded(elements)


def request(field: Field, message_id: int, sop_class_uid: str, sop_uid: str = "") -> bytes:
    """A C-STORE request for `sop_uid`, its data set follows; or a C-ECHO request. UIDs of at most 64 characters."""
    elements = [(_CLASS, sop_class_uid.encode("latin-1", "replace")), (_FIELD, struct.pack("<H", field)), (_MESSAGE, struct.pack("<H", message_id))]
    if field == Field.C_STORE_RQ:
        elements += [(_PRIORITY, struct.pack("<H", _MEDIUM)), (_DATA_SET, struct.pack("<H", _WITH_DATA_SET)), (_INSTANCE, sop_uid.encode("latin-1", "replace"))]
    else:
        elements.append((_DATA_SET, struct.pack("<H", _NO_DATA_SET)))
    return _encoded(elements)


def _encoded(elements: list[tuple[int, bytes]]) -> bytes:
    """Elements in the order of their numbers, with the group length before them."""
    even = [(element, value + b"\0" * (len(value) % 2)) for element, value in elements]
    body = b"".join(_ELEMENT.pack(0, element, len(value)) + value for element, value in even)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body
