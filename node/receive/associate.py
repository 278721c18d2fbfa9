"""Association establishment of the fast path (PS3.8 9.3.2 to 9.3.4): PDUs by pynetdicom's coders, the answer by our own rules.

It happens once per association, so here the library's code is as good as any; what it lacks, bounds on the request, stand here and in the upper layer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)

from node.receive import limits
from node.receive.application_entity import APPLICATION_CONTEXT, Rejection, negotiate
from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.receive.upper_layer import ProtocolError, Reason

_ITEM = struct.Struct(">BxH")
_FIXED = 74
"""Bytes of an A-ASSOCIATE-RQ before its variable items."""
_INSIDE = {0x20: (4, limits.MAX_SYNTAXES), 0x50: (0, limits.MAX_USER_ITEMS)}
"""Presentation context and user information: where their own items begin, and how many there may be."""
VERSION = Rejection(1, 2, 2, "protocol version not supported")


@dataclass(frozen=True)
class Request:
    """What the peer proposes; titles without spaces at their ends, `max_pdu` in bytes, 0 = any length."""

    calling: str
    called: str
    context_name: str
    version: int
    max_pdu: int
    primitive: Any


def items(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each variable item (PS3.8 9.3.2), as far as their lengths hold."""
    at, view = 0, memoryview(data)
    while at + _ITEM.size <= len(view):
        kind, length = _ITEM.unpack_from(view, at)
        at += _ITEM.size
        if at + length > len(view):
            return
        yield kind, view[at:at + length]
        at += length


def check_counts(pdu: bytes) -> None:
    """ProtocolError where a request has more items than any needs: the parser would take seconds and hundreds of MB for a MiB of small ones."""
    for count, (kind, value) in enumerate(items(memoryview(pdu)[_FIXED:]), 1):
        inside, most = _INSIDE.get(kind, (len(value), 0))
        if count > limits.MAX_ITEMS or sum(1 for _ in islice(items(value[inside:]), most + 1)) > most:
            raise ProtocolError(Reason.INVALID_PARAMETER, "association request has too many items")


def read_request(pdu: bytes) -> Request:
    """ProtocolError for bytes that are no A-ASSOCIATE-RQ."""
    check_counts(pdu)
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        primitive = request.to_primitive()
        return Request(primitive.calling_ae_title.strip(), primitive.called_ae_title.strip(), str(primitive.application_context_name),
                       request.protocol_version, primitive.maximum_length_received or 0, primitive)
    except Exception:  # whatever hostile bytes raise inside the parser
        raise ProtocolError(Reason.INVALID_PARAMETER, "association request cannot be read") from None


def accept(request: Request, max_pdu: int) -> tuple[bytes, dict[int, tuple[str, str]]]:
    """The A-ASSOCIATE-AC, and (abstract syntax, transfer syntax) of each accepted context by its ID.

    It answers no asynchronous operations window, which leaves it at one each way (PS3.7 D.3.3.3).
    """
    answers = negotiate(request.primitive.presentation_context_definition_list)
    answer, length = A_ASSOCIATE(), MaximumLengthNotification()
    implementation, version = ImplementationClassUIDNotification(), ImplementationVersionNameNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = request.primitive.calling_ae_title, request.primitive.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = answers
    answer.user_information = [length, implementation, version]
    contexts = {c.context_id: (str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in answers if c.result == 0}
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return pdu.encode(), contexts


def reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ."""
    return bytes((3, 0, 0, 0, 0, 4, 0, rejection.result, rejection.source, rejection.reason))
