"""What is fuzzed: parsers of bytes that a peer chooses. A target takes any bytes; whatever it raises is a defect of the product."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from node.receive.application_entity import TRANSFER_SYNTAXES
from node.receive.associate import accept, read_request
from node.receive.certificate import CertificateError, validities
from node.receive.command_set import read_command, response
from node.receive.header_scan import MAX_TEXT, Header, scan
from node.receive.limits import MAX_ASSOCIATE, MAX_COMMAND
from node.receive.quick_scan import HEAD, quick_scan
from node.receive.upper_layer import Abort, AssociateRequest, Fragment, ProtocolError, Release, UpperLayer

MAX_PDU = 16384
SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70", "1.2.3.4")


def pdu(data: bytes) -> None:
    """The upper layer: the first byte says how the stream is cut, the second whether an association is there already."""
    if len(data) < 2:
        return
    step, stream = data[0] * 7 + 1, memoryview(data)[2:]
    layer, given, last = UpperLayer(MAX_PDU), 0, {True: True, False: True}
    layer.established = bool(data[1] & 1)
    try:
        for at in range(0, len(stream), step):
            for event in layer.feed(stream[at:at + step]):
                if isinstance(event, Fragment):
                    given += len(event.data)
                    assert layer.established, "data before an association"
                    last[event.command] = event.last
                elif isinstance(event, AssociateRequest):
                    assert not layer.established and len(event.pdu) <= MAX_ASSOCIATE + 6
                    layer.established = True
                else:
                    assert isinstance(event, (Release, Abort))
            assert len(layer._held) <= MAX_ASSOCIATE + 6, "held without bound"
    except ProtocolError as error:
        assert 0 <= error.reason <= 6 and str(error)
    assert given <= len(stream), "bytes that nobody sent"


def command_set(data: bytes) -> None:
    """A command set, and the response to it."""
    try:
        found = read_command(data[:MAX_COMMAND])
    except ProtocolError:
        return
    assert "\\" not in found.sop_uid and "\\" not in found.sop_class_uid
    for comment in ("", "comment " * 20):
        answer = response(found, 0xA700, comment)
        assert len(answer) < 400 and len(answer) % 2 == 0 and struct.unpack_from("<L", answer, 8)[0] == len(answer) - 12
        again = read_command(answer)
        assert again.responded_to == (found.message_id or 0) and not again.has_data_set


def associate(data: bytes) -> None:
    """An A-ASSOCIATE-RQ without its header, and the answer to it."""
    try:
        request = read_request(struct.pack(">BxL", 1, len(data)) + data)
        answer, contexts = accept(request, MAX_PDU)
    except ProtocolError:
        return
    assert len(request.calling) <= 16 and len(request.called) <= 16 and request.max_pdu >= 0
    assert answer[:1] == b"\x02" and len(answer) < 2 * MAX_ASSOCIATE and len(contexts) <= 128
    assert all(number % 2 and 0 < number < 256 and syntax in TRANSFER_SYNTAXES for number, (_, syntax) in contexts.items())


def header_scan(data: bytes) -> None:
    """The header of a data set; the first byte chooses its transfer syntax."""
    if data:
        checked(scan(io.BytesIO(data[1:]), SYNTAXES[data[0] % len(SYNTAXES)]))


def quick(data: bytes) -> None:
    """The short way to the header says what the parser says, or nothing."""
    short = quick_scan(data[:HEAD], SYNTAXES[0])
    checked(short)
    if short is not None:
        assert short == scan(io.BytesIO(data), SYNTAXES[0])


def certificate(data: bytes) -> None:
    """The text of a PEM file."""
    try:
        assert all(len(v.subject) <= 64 for v in validities(data.decode("latin-1")))
    except CertificateError:
        pass


def checked(header: Header | None) -> None:
    """Values as `Header` promises them."""
    if header is None:
        return
    for name in ("modality", "manufacturer", "station", "protocol", "description", "series_date"):
        assert len(getattr(header, name)) <= MAX_TEXT and getattr(header, name).isprintable()
    for name in ("series_number", "instance_number", "number_of_frames"):
        assert getattr(header, name) is None or abs(getattr(header, name)) < 2**31
    assert header.position_mm is None or abs(header.position_mm) < 1e8


TARGETS: dict[str, Callable[[bytes], None]] = {
    "pdu": pdu, "command_set": command_set, "associate": associate, "header_scan": header_scan, "quick_scan": quick, "certificate": certificate}
