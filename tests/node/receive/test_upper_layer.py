"""The fast path's layers without sockets: any cut of the stream gives the same fragments, any lie about a length is found."""

from __future__ import annotations

import itertools
import struct
import time
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.receive import limits
from node.receive.admission import MAX_UID
from node.receive.associate import accept, read_request
from node.receive.command_set import read_command, response
from node.receive.patience import Patience
from node.receive.upper_layer import (
    Abort,
    AssociateAnswer,
    AssociateRequest,
    Fragment,
    ProtocolError,
    Reason,
    Release,
    Released,
    UpperLayer,
    abort,
    data_tf,
)
from tests.support.raw_peer import ABORT, RELEASE, command, data_pdu, echo_command, message, pdv, request, store_command

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def read(*pieces: bytes, max_pdu: int = 16384, established: bool = True) -> list[tuple]:
    """What the stream says, the fragments of one PDV joined again."""
    upper, events = UpperLayer(max_pdu), []
    upper.established = established
    for piece in pieces:
        for happened in upper.feed(memoryview(bytearray(piece))):
            if isinstance(happened, Fragment):
                events.append((happened.context_id, happened.command, happened.last, bytes(happened.data)))
            else:
                events.append((type(happened),))
                if isinstance(happened, AssociateRequest):
                    upper.established = True
    return events


def joined(events: list[tuple]) -> list[tuple]:
    """Neighbouring fragments of one kind as one: where a PDV was cut tells nothing."""
    out: list[tuple] = []
    for e in events:
        if out and len(e) == 4 and len(out[-1]) == 4 and out[-1][:2] == e[:2] and not out[-1][2]:
            out[-1] = (*e[:3], out[-1][3] + e[3])
        else:
            out.append(e)
    return out


STREAM = (request() + data_pdu(pdv(1, b"ab", True, False), pdv(1, b"", True, False), pdv(1, b"c", True, True), pdv(1, b"data", False, False))
          + data_pdu(pdv(1, b"", False, True)) + message(3, echo_command(), None) + RELEASE)


def test_what_a_stream_says() -> None:
    assert joined(read(STREAM, established=False)) == [
        (AssociateRequest,), (1, True, True, b"abc"), (1, False, True, b"data"), (3, True, True, echo_command()), (Release,)]


def test_any_cut_says_the_same() -> None:
    whole = joined(read(STREAM, established=False))
    for at in range(1, len(STREAM)):
        assert joined(read(STREAM[:at], STREAM[at:], established=False)) == whole
    assert joined(read(*(STREAM[k:k + 1] for k in range(len(STREAM))), established=False)) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_any_cuts_say_the_same(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(places) if a < b]
    assert joined(read(*pieces, established=False)) == joined(read(STREAM, established=False))


def pdu(kind: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack(">BBL", kind, 0, length) + body


@pytest.mark.parametrize(("data", "established", "reason"), [
    (pdu(1, 2**32 - 1), False, Reason.INVALID_PARAMETER), (pdu(1, limits.MAX_ASSOCIATE + 1), False, Reason.INVALID_PARAMETER),
    (pdu(1, 67), False, Reason.INVALID_PARAMETER), (pdu(1, 100), True, Reason.UNEXPECTED_PDU), (pdu(2, 100), True, Reason.UNEXPECTED_PDU),
    (pdu(3, 4), True, Reason.UNEXPECTED_PDU), (pdu(6, 4), True, Reason.UNEXPECTED_PDU), (pdu(4, 20), False, Reason.UNEXPECTED_PDU),
    (pdu(5, 4), False, Reason.UNEXPECTED_PDU), (pdu(5, 5), True, Reason.INVALID_PARAMETER), (pdu(7, 3), True, Reason.INVALID_PARAMETER),
    (pdu(7, 2**31), False, Reason.INVALID_PARAMETER), (pdu(0, 4), True, Reason.UNRECOGNIZED_PDU), (b"GET / ", False, Reason.UNRECOGNIZED_PDU),
    (pdu(4, 16384 + limits.PDU_TOLERANCE + 1), True, Reason.INVALID_PARAMETER), (pdu(4, 5), True, Reason.INVALID_PARAMETER),
    (pdu(4, 0), True, Reason.INVALID_PARAMETER), (pdu(4, 20, struct.pack(">LBB", 17, 1, 3)), True, Reason.INVALID_PARAMETER),
    (pdu(4, 20, struct.pack(">LBB", 15, 1, 3)), True, Reason.INVALID_PARAMETER), (pdu(4, 20, struct.pack(">LBB", 1, 1, 3)), True, Reason.INVALID_PARAMETER),
    (pdu(4, 20, struct.pack(">LBB", 2**32 - 1, 1, 3)), True, Reason.INVALID_PARAMETER)])
def test_lengths_that_lie(data: bytes, established: bool, reason: Reason) -> None:
    with pytest.raises(ProtocolError) as error:
        read(data, established=established)
    assert error.value.reason == reason


@pytest.mark.parametrize(("data", "established", "reason"), [
    (pdu(1, 100), False, Reason.UNEXPECTED_PDU), (pdu(2, 2**32 - 1), False, Reason.INVALID_PARAMETER), (pdu(2, 67), False, Reason.INVALID_PARAMETER),
    (pdu(2, 100), True, Reason.UNEXPECTED_PDU), (pdu(3, 4), True, Reason.UNEXPECTED_PDU), (pdu(3, 5), False, Reason.INVALID_PARAMETER),
    (pdu(4, 20), False, Reason.UNEXPECTED_PDU), (pdu(6, 4), False, Reason.UNEXPECTED_PDU), (pdu(6, 2**31), True, Reason.INVALID_PARAMETER),
    (pdu(4, 16384 + limits.PDU_TOLERANCE + 1), True, Reason.INVALID_PARAMETER), (pdu(9, 4), True, Reason.UNRECOGNIZED_PDU)])
def test_lengths_that_lie_to_a_requestor(data: bytes, established: bool, reason: Reason) -> None:
    upper = UpperLayer(16384, requestor=True)
    upper.established = established
    with pytest.raises(ProtocolError) as error:
        list(upper.feed(memoryview(data)))
    assert error.value.reason == reason


def test_what_a_requestor_is_told() -> None:
    accepted, rejected = pdu(2, 68, bytes(68)), pdu(3, 4, b"\0\1\1\3")
    for answer in (accepted, rejected):
        upper = UpperLayer(16384, requestor=True)
        assert list(upper.feed(memoryview(answer))) == [AssociateAnswer(answer)]
    upper = UpperLayer(16384, requestor=True)
    upper.established = True
    stream = message(3, echo_command()) + RELEASE + pdu(6, 4, bytes(4)) + ABORT
    assert [type(e) for k in range(len(stream)) for e in upper.feed(memoryview(stream)[k:k + 1]) if not isinstance(e, Fragment)] == [
        Release, Released, Abort]


def test_a_second_request_is_unexpected() -> None:
    with pytest.raises(ProtocolError) as error:
        read(request(), request(), established=False)
    assert error.value.reason == Reason.UNEXPECTED_PDU


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, established: bool) -> None:
    try:
        events = read(data, established=established)
    except ProtocolError:
        return
    assert sum(len(e[3]) for e in events if len(e) == 4) <= len(data)


def test_an_abort_is_told_in_every_state() -> None:
    assert read(ABORT) == read(ABORT, established=False) == [(Abort,)]
    assert abort(Reason.INVALID_PARAMETER) == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"


@pytest.mark.parametrize("peer_max", [0, 7, 8, 20, 21, 16384])
def test_answers_fit_the_peer(peer_max: int) -> None:
    text = bytes(range(51))
    sent = data_tf(5, text, peer_max)
    assert joined(read(sent)) == [(5, True, True, text)]
    while sent:
        length = int.from_bytes(sent[2:6], "big")
        assert not peer_max or length <= max(peer_max, 8)
        sent = sent[6 + length:]


def test_command_sets() -> None:
    found = read_command(store_command("1.2.3", 7))
    assert (found.field, found.message_id, found.responded_to, found.has_data_set, found.sop_uid) == (1, 7, None, True, "1.2.3")
    assert read_command(echo_command(9)).has_data_set is False
    assert read_command(command({0x0800: b"\x01\x01", 0x1000: b"1.2\\3 "})).sop_uid == ""
    for bad in (b"", b"\0", store_command("1.2")[:-1], b"\x08" + store_command("1.2")[1:], command({0x0800: b"\1"}), command({0x0100: b"\1\0"}),
                command({0x0800: b"\0\0", 0x0110: b"\1\0\0\0"})):
        with pytest.raises(ProtocolError):
            read_command(bad)


def test_responses_repeat_the_uids_and_bound_the_rest() -> None:
    from pynetdicom.dsutils import decode

    answer = response(read_command(store_command("1.2.3", 7)), 0xA700, "x" * 100)
    ds = decode(BytesIO(answer), True, True)
    assert (ds.CommandField, ds.MessageIDBeingRespondedTo, ds.Status, ds.CommandDataSetType) == (0x8001, 7, 0xA700, 0x0101)
    assert (ds.AffectedSOPInstanceUID, len(ds.ErrorComment), ds.CommandGroupLength) == ("1.2.3", 64, len(answer) - 12)
    assert "AffectedSOPInstanceUID" not in decode(BytesIO(response(read_command(store_command("1" * (MAX_UID + 2))), 0)), True, True)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120))
def test_any_command_is_read_or_refused(data: bytes) -> None:
    for raw in (data, store_command("1.2")[:20] + data):
        try:
            response(read_command(raw), 0)
        except ProtocolError:
            pass


def test_requests() -> None:
    found = read_request(request("  SENDER", "MEDIQA", 4096))
    assert (found.calling, found.called, found.max_pdu, found.version & 1) == ("SENDER", "MEDIQA", 4096, 1)
    answer, contexts = accept(found, 131072)
    assert answer[:1] == b"\x02" and set(contexts) == {1, 3}


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(request()) - 1), st.integers(0, 255))
def test_any_changed_request_is_read_or_refused(place: int, value: int) -> None:
    data = bytearray(request())
    data[place] = value
    try:
        found = read_request(bytes(data))
    except ProtocolError:
        return
    accept(found, 131072)


def test_patience_asks_for_progress() -> None:
    patience = Patience(request=30, idle=120, message=60)

    def comes(waited: float, size: int, pdus: int) -> None:
        patience.received(waited, size)
        patience.reached(pdus)

    assert patience.seconds_left(False, 0) == 30
    comes(5, 3, 1)  # half a header: a PDU has its own time from its first byte
    assert patience.seconds_left(True, 0) == min(25, limits.HANDSHAKE_SECONDS)
    comes(8, 1, 1)  # another byte of it wins nothing
    assert patience.seconds_left(True, 0) == pytest.approx(2)
    patience.associated()
    comes(0, 10, 2)
    assert patience.seconds_left(False, 0) == 120  # idle counts from the last byte
    comes(100, 10, 3)
    assert patience.seconds_left(False, 0) == 120
    assert patience.seconds_left(True, 10240) == pytest.approx(limits.HANDSHAKE_SECONDS + 10)
    assert patience.seconds_left(True, 102400) == 60  # before its first fragment a message has no more time than after it
    patience.message_began()  # after 100 idle seconds it has all its time
    assert patience.seconds_left(False, 0) == 60
    comes(50, 10240, 4)  # a data set wins a second with each kilobyte
    assert patience.seconds_left(False, 0) == pytest.approx(20)
    comes(19, 1, 5)
    assert patience.seconds_left(False, 0) == pytest.approx(1, abs=0.01)
    patience.message_ended()
    assert patience.seconds_left(False, 0) == 120


def layer() -> UpperLayer:
    made = UpperLayer(131072)
    made.established = True
    return made


def test_fragments_that_only_keep_us_busy_are_an_error() -> None:
    def feed(made: UpperLayer, size: int, count: int, last: bool = False) -> None:
        for _ in range(count):
            for _ in made.feed(memoryview(data_pdu(pdv(1, bytes(size), False, last)))):
                pass

    honest = layer()
    feed(honest, 400, 20_000)  # small fragments of an honest sender
    feed(honest, 1, limits.FREE_FRAGMENTS)
    feed(honest, 400, 1, last=True)
    feed(honest, 1, 100, last=True)
    hostile = layer()
    feed(hostile, 0, limits.FREE_FRAGMENTS)
    with pytest.raises(ProtocolError, match="too small"):
        feed(hostile, 0, 100)
    again = layer()
    for _ in range(3):  # each command and each data set has its own account
        feed(again, 0, limits.FREE_FRAGMENTS - 1)
        feed(again, 0, 1, last=True)


def test_a_request_of_countless_items_is_not_parsed() -> None:
    def asked(*items: bytes) -> bytes:
        body = request()[6:74] + b"".join(items)
        return struct.pack(">BBL", 1, 0, len(body)) + body

    syntax = struct.pack(">BBH", 0x40, 0, 17) + b"1.2.840.10008.1.2"
    context = struct.pack(">BBHBBBB", 0x20, 0, 4 + 21 * 300, 1, 0, 0, 0) + syntax * 300
    user = struct.pack(">BBH", 0x50, 0, 65532) + struct.pack(">BBH", 0x56, 0, 0) * 16383
    for many in (asked(*[struct.pack(">BBH", 0x10, 0, 0)] * 10_000), asked(context), asked(user)):
        began = time.process_time()
        with pytest.raises(ProtocolError, match="too many items"):
            read_request(many)
        assert time.process_time() - began < 0.05
    assert read_request(request()).calling == "SENDER"
