"""The association that we request, against peers made of bytes: what leaves is exact, what comes is bounded, an answer is never invented."""

from __future__ import annotations

import os
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from node.deliver import association as module
from node.deliver.answers import Answer, Kind
from node.deliver.association import VERIFICATION, Association, NoAssociation
from node.deliver.fragments import BUFFER, Fragments
from node.deliver.part10 import EXPLICIT, open_stored
from node.deliver.peer import Peer
from node.receive import limits
from node.receive.file_meta import file_meta
from tests.support.ports import free_port
from tests.support.raw_acceptor import Accepted, Message, RawAcceptor
from tests.support.raw_peer import ABORT, RELEASE, RELEASED, data_pdu, pdv
from tests.support.small_objects import CT, image, write

UID = "1.2.826.1.7"
PROPOSALS = [(CT, (EXPLICIT,))]


def peer(port: int, timeout: float = 5) -> Peer:
    return Peer("PACS", "127.0.0.1", port, "MEDIQA", timeout)


def blob(path: Path, size: int, syntax: str = EXPLICIT) -> tuple[Path, bytes]:
    """A file whose data set is `size` bytes of no meaning; path and data set."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    path.write_bytes(file_meta(CT, UID, syntax, "X") + data)
    return path, data


def store(association: Association, path: Path, sop_uid: str = UID) -> Answer:
    with open_stored(path) as stored:
        return association.store(CT, sop_uid, stored)


def once(script: Callable[[Accepted, Message], None], path: Path, timeout: float = 5, max_pdu: int = 16384) -> tuple[Answer, bool, list[Message]]:
    """One object to a peer that accepts, reads it and then does `script`: answer, whether the association still stands, what came."""
    kept: list[Message] = []

    def serve(accepted: Accepted) -> None:
        accepted.accept(max_pdu)
        kept.append(accepted.message())
        script(accepted, kept[0])
        while accepted.message() is not None:
            pass

    with RawAcceptor(serve) as acceptor, Association(peer(acceptor.port, timeout), PROPOSALS) as association:
        answer = store(association, path)
        return answer, not association.lost(), kept


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return blob(tmp_path / "small.dcm", 5000)[0]


@pytest.mark.parametrize("max_pdu", [0, 7, 16, 1023, 16384, 131072, 10**9])
def test_fragments_of_any_size_give_the_same_bytes(tmp_path: Path, max_pdu: int) -> None:
    fragments = Fragments(max_pdu)
    whole = fragments._size * len(fragments._gaps)
    assert len(fragments._buffer) <= BUFFER + 16
    for size in sorted({1, 2, 3, fragments._size, fragments._size + 1, whole - 1, whole, whole + 1, 2 * whole, 2 * whole + fragments._size + 3}):
        path, data = blob(tmp_path / "a.dcm", size)
        with open_stored(path) as stored:
            sent = b"".join(bytes(view) for view in fragments.of(stored.handle, stored.offset, stored.length, size % 128 * 2 + 1))
        found, at = [], 0
        while at < len(sent):
            kind, length, inner, context, flags = struct.unpack_from(">BxLLBB", sent, at)
            assert (kind, inner, context) == (4, length - 4, size % 128 * 2 + 1) and (not max_pdu or length <= max(max_pdu, 8))
            found.append(sent[at + 12:at + 6 + length])
            at += 6 + length
            assert flags == (2 if at == len(sent) else 0) and (len(found[-1]) % 2 == 0 or at == len(sent))
        assert b"".join(found) == data


def test_only_a_deflated_stream_is_padded(tmp_path: Path) -> None:
    for syntax, more in ((EXPLICIT, b""), ("1.2.840.10008.1.2.1.99", b"\0")):
        path, data = blob(tmp_path / "a.dcm", 16377, syntax)
        with open_stored(path) as stored:
            views = list(map(bytes, Fragments(16384).of(stored.handle, stored.offset, stored.length, 1, syntax != EXPLICIT)))
        assert views == [b"".join(views)] and views[0].endswith((data + more)[-5:]) and len(views[0]) == 16377 + len(more) + 12


@pytest.mark.parametrize("max_pdu", [0, 16, 200, 4096, 16384, 131072])
def test_what_arrives_is_what_lies_on_disk(tmp_path: Path, max_pdu: int) -> None:
    path, data = blob(tmp_path / "a.dcm", 40_001 if max_pdu == 16 else 700_001)
    answer, stands, [came] = once(lambda accepted, message: accepted.send(message.response()), path, max_pdu=max_pdu)
    assert (answer, stands) == (Answer(Kind.STATUS, 0), True)
    assert came.data == data and came.sop_uid == UID and (came.elements[0x0100], came.elements[0x0700]) == (b"\x01\x00", b"\x00\x00")
    assert not max_pdu or max(came.pdus) <= max_pdu


def test_memory_does_not_grow_with_the_object(tmp_path: Path) -> None:
    path, _ = blob(tmp_path / "a.dcm", 1000)
    os.truncate(path, 32 * 2**20)

    def drain(accepted: Accepted) -> None:
        accepted.accept()
        while accepted.sock.recv(2**20):
            pass

    with RawAcceptor(drain) as acceptor:
        tracemalloc.start()
        try:
            with Association(peer(acceptor.port, 0.5), PROPOSALS) as association:
                assert store(association, path).kind is Kind.NO_RESPONSE  # it drains and says nothing
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()


def test_a_late_answer_is_an_answer(small: Path) -> None:
    answer, stands, _ = once(lambda accepted, message: (time.sleep(1.5), accepted.send(message.response(0xB000)))[0], small, timeout=4)
    assert (answer, stands) == (Answer(Kind.STATUS, 0xB000), True)


def test_no_answer_ends_in_time_and_with_an_abort(small: Path) -> None:
    said: list[bytes] = []
    began = time.monotonic()
    answer, stands, _ = once(lambda accepted, message: said.append(accepted.pdu()), small, timeout=1)
    assert (answer.kind, answer.comment, stands) == (Kind.NO_RESPONSE, module.NO_PROGRESS, False)
    assert said[0][:1] == b"\x07" and time.monotonic() - began < 5


@pytest.mark.parametrize("last", [b"", ABORT, RELEASE])
def test_an_association_that_ends_behind_the_data_set_is_unknown(small: Path, last: bytes) -> None:
    def ends(accepted: Accepted, _message: Message) -> None:
        accepted.send(last)
        if last == RELEASE:
            assert accepted.pdu() == RELEASED
        accepted.sock.shutdown(socket.SHUT_RDWR)

    answer, stands, _ = once(ends, small)
    assert (answer.kind, answer.comment, stands) == (Kind.NO_RESPONSE, module.ENDED, False)


@pytest.mark.parametrize("last", [ABORT, RELEASE, b""])
def test_an_answer_counts_though_the_association_ends_with_it(small: Path, last: bytes) -> None:
    def answers(accepted: Accepted, message: Message) -> None:
        accepted.send(message.response() + last)
        if last != RELEASE:
            accepted.sock.shutdown(socket.SHUT_RDWR)

    answer, stands, _ = once(answers, small)
    assert answer == Answer(Kind.STATUS, 0)
    assert not stands or last == b""  # the end of the stream may come a moment later


LIES = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n", "a length of 4 GB": b"\x04\x00\xff\xff\xff\xff", "another request": b"\x01\x00\x00\x00\x00\x44" + bytes(68),
    "a PDV too long": b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x63\x01\x03", "no command set": data_pdu(pdv(1, b"\x01\x02\x03", True, True)),
    "a data set": data_pdu(pdv(1, b"1234", False, True)), "another context": data_pdu(pdv(3, b"1234", True, True)),
    "a release that nobody asked for": RELEASED, "an association answer": b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x03"}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_no_answer(small: Path, lie: str) -> None:
    said: list[bytes] = []
    answer, stands, _ = once(lambda accepted, message: (accepted.send(LIES[lie]), said.append(accepted.pdu()))[0], small)
    assert answer.kind is Kind.NO_RESPONSE and answer.comment.startswith("protocol error: ") and not stands
    assert said[0][:1] == b"\x07"


@pytest.mark.parametrize("wrong", [{"message_id": 7}, {"sop_uid": "1.2.3.4.5"}])
def test_an_answer_to_another_request_is_none(small: Path, wrong: dict) -> None:
    answer, stands, _ = once(lambda accepted, message: accepted.send(message.response(**wrong)), small)
    assert answer.kind is Kind.NO_RESPONSE and "no request of ours" in answer.comment and not stands


def test_a_dripping_answer_has_its_time(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 1.0)

    def drips(accepted: Accepted, message: Message) -> None:
        for byte in message.response():
            accepted.send(bytes((byte,)))
            time.sleep(0.1)

    began = time.monotonic()
    answer, _, _ = once(drips, small, timeout=30)
    assert answer.kind is Kind.NO_RESPONSE and answer.comment == module.NO_PROGRESS and time.monotonic() - began < 10


@pytest.mark.parametrize(("fragment", "told"), [(b"", "too small"), (bytes(1000), "without end")])
def test_an_answer_without_end_has_its_size(small: Path, fragment: bytes, told: str) -> None:
    def floods(accepted: Accepted, _message: Message) -> None:
        while True:
            accepted.send(data_pdu(*[pdv(1, fragment, True, False)] * 10))

    answer, _, _ = once(floods, small)
    assert answer.kind is Kind.NO_RESPONSE and told in answer.comment


def test_a_peer_that_stops_reading_has_its_time(tmp_path: Path) -> None:
    path, _ = blob(tmp_path / "a.dcm", 1000)
    os.truncate(path, 16 * 2**20)

    def stalls(accepted: Accepted) -> None:
        accepted.accept()
        time.sleep(4)

    with RawAcceptor(stalls, receive_buffer=65536) as acceptor, Association(peer(acceptor.port, 1), PROPOSALS) as association:
        began = time.monotonic()
        assert store(association, path) == Answer(Kind.NO_RESPONSE, comment=module.NO_PROGRESS)
        assert time.monotonic() - began < 4 and not association.open


def test_an_answer_or_an_abort_while_we_still_send_is_heard(tmp_path: Path) -> None:
    path, _ = blob(tmp_path / "a.dcm", 1000)
    os.truncate(path, 16 * 2**20)

    def answers_early(accepted: Accepted) -> None:
        accepted.accept()
        first = accepted.pdu()
        (element,) = struct.unpack_from("<H", first, first.index(b"\x00\x00\x10\x01\x02\x00\x00\x00") + 8)
        values = {0x0002: CT.encode() + b"\0", 0x0100: b"\x01\x00", 0x0110: struct.pack("<H", element), 0x1000: UID.encode() + b"\0"}
        accepted.send(Message(1, values).response(0xA700))
        while accepted.pdu()[11:12] != b"\x02":
            pass
        assert accepted.message() is None

    def aborts_early(accepted: Accepted) -> None:
        accepted.accept()
        accepted.pdu()
        accepted.send(ABORT)
        time.sleep(2)

    with RawAcceptor(answers_early, aborts_early, receive_buffer=65536) as acceptor:
        with Association(peer(acceptor.port), PROPOSALS) as association:
            assert store(association, path) == Answer(Kind.STATUS, 0xA700) and not association.lost()
        began = time.monotonic()
        with Association(peer(acceptor.port, 20), PROPOSALS) as association:
            assert store(association, path).kind is Kind.NO_RESPONSE
        assert time.monotonic() - began < 2


def test_many_on_one_association_then_a_release(tmp_path: Path) -> None:
    path, data = blob(tmp_path / "a.dcm", 3000)
    kept: list[Message] = []
    ended: list[bytes] = []

    def serve(accepted: Accepted) -> None:
        accepted.accept()
        while (message := accepted.message()) is not None:
            kept.append(message)
            accepted.send(message.response(comment=b"words of the peer "))
        ended.append(accepted.pdu())

    with RawAcceptor(serve) as acceptor:
        with Association(peer(acceptor.port), PROPOSALS) as association:
            for _ in range(20):
                assert store(association, path) == Answer(Kind.STATUS, 0) and association.comment == "words of the peer"
        assert not association.open
    assert [m.data for m in kept] == [data] * 20 and ended == [b""]
    assert [m.elements[0x0110] for m in kept] == [struct.pack("<H", k + 1) for k in range(20)]


def test_the_end_between_two_objects_is_noticed_before_the_second(small: Path) -> None:
    for last in (ABORT, RELEASE, b""):
        def serve(accepted: Accepted, last: bytes = last) -> None:
            accepted.accept()
            accepted.send(accepted.message().response())
            time.sleep(0.2)
            accepted.send(last)
            if last == RELEASE:
                assert accepted.pdu() == RELEASED

        with RawAcceptor(serve) as acceptor, Association(peer(acceptor.port), PROPOSALS) as association:
            assert store(association, small).status == 0 and not association.lost()
            time.sleep(0.5)
            assert association.lost() and not association.open


def test_a_release_that_both_ask_for(small: Path) -> None:
    ended: list[bytes] = []

    def serve(accepted: Accepted) -> None:
        accepted.accept()
        accepted.send(accepted.message().response())
        assert accepted.pdu() == RELEASE
        accepted.send(RELEASE)
        ended.append(accepted.pdu())
        accepted.send(RELEASED)
        ended.append(accepted.pdu())

    with RawAcceptor(serve) as acceptor, Association(peer(acceptor.port), PROPOSALS) as association:
        assert store(association, small).status == 0
    assert ended == [RELEASED, b""]


def test_a_release_that_is_not_answered_has_its_time(small: Path) -> None:
    def serve(accepted: Accepted) -> None:
        accepted.accept()
        accepted.send(accepted.message().response())
        time.sleep(3)

    with RawAcceptor(serve) as acceptor:
        with Association(peer(acceptor.port, 1), PROPOSALS) as association:
            assert store(association, small).status == 0
            began = time.monotonic()
        assert time.monotonic() - began < 2


def test_contexts_that_are_refused() -> None:
    def serve(accepted: Accepted) -> None:
        accepted.accept(refused=["1.2.3"])
        assert [p[1] for p in accepted.proposed] == [CT, "1.2.3", VERIFICATION]
        message = accepted.message()
        accepted.send(message.response())
        assert accepted.message() is None

    with RawAcceptor(serve) as acceptor, \
            Association(peer(acceptor.port), [*PROPOSALS, ("1.2.3", (EXPLICIT,)), (VERIFICATION, (EXPLICIT,))]) as association:
        assert association.accepted == {(CT, EXPLICIT): 1, (VERIFICATION, EXPLICIT): 5}
        assert association.echo() == Answer(Kind.STATUS, 0)


def no_association(script: Callable[[Accepted], None], timeout: float = 5) -> NoAssociation:
    with RawAcceptor(script) as acceptor, pytest.raises(NoAssociation) as told:
        Association(peer(acceptor.port, timeout), PROPOSALS)
    return told.value


@pytest.mark.parametrize(("result", "kind"), [(1, Kind.REJECTED_PERMANENT), (2, Kind.REJECTED_TRANSIENT)])
def test_rejections(result: int, kind: Kind) -> None:
    told = no_association(lambda accepted: (accepted.pdu(), accepted.send(bytes((3, 0, 0, 0, 0, 4, 0, result, 3, 2))))[0])
    assert told.answer.kind is kind and (told.rejected.source, told.rejected.reason) == (3, 2)


@pytest.mark.parametrize("answer", [
    b"", ABORT, RELEASED, b"\x02\x00\xff\xff\xff\xff", b"\x02\x00\x00\x00\x00\x04abcd", b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03", b"HTTP/1.1 400",
    b"\x03\x00\x00\x00\x00\x08" + bytes(8), b"\x02\x00\x00\x00\x00\x48" + bytes(68) + b"\x21\x00\xff\xff"])
def test_no_answer_to_the_request_is_unreachable(answer: bytes) -> None:
    assert no_association(lambda accepted: (accepted.pdu(), accepted.send(answer))[0]).answer.kind is Kind.UNREACHABLE


def test_an_accepted_context_that_was_not_proposed_is_a_lie() -> None:
    context = b"\x21\x00\x00\x1b"
    for change in (lambda pdu: pdu.replace(EXPLICIT.encode(), b"1.2.840.10008.1.2.2"), lambda pdu: pdu.replace(context + b"\x01", context + b"\x05")):
        def serve(accepted: Accepted, change: Callable[[bytes], bytes] = change) -> None:
            changed = change(answer := accepted.answer())
            assert changed != answer
            accepted.send(changed)
            assert accepted.pdu()[:1] == b"\x07"

        assert "not proposed" in no_association(serve).answer.comment


def test_a_dripping_association_answer_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 1.0)

    def drips(accepted: Accepted) -> None:
        for byte in accepted.answer():
            accepted.send(bytes((byte,)))
            time.sleep(0.1)

    began = time.monotonic()
    assert no_association(drips, 30).answer.kind is Kind.UNREACHABLE and time.monotonic() - began < 10


def test_nobody_and_names_that_cannot_be_said() -> None:
    for where in (peer(free_port(), 1), Peer("X" * 17, "127.0.0.1", 1, "A", 1), Peer("Ä", "127.0.0.1", 1, "A", 1)):
        with pytest.raises(NoAssociation) as told:
            Association(where, PROPOSALS)
        assert told.value.answer.kind is Kind.UNREACHABLE


def test_a_file_that_shrinks_meanwhile_is_unknown_and_one_without_data_set_stays_here(tmp_path: Path) -> None:
    path, _ = blob(tmp_path / "a.dcm", 1000)
    os.truncate(path, 8 * 2**20)
    empty = blob(tmp_path / "b.dcm", 0)[0]

    def serve(accepted: Accepted) -> None:
        accepted.accept()
        accepted.pdu()
        time.sleep(0.3)
        while accepted.pdu()[:1] == b"\x04":
            pass

    with RawAcceptor(serve, receive_buffer=65536) as acceptor, Association(peer(acceptor.port), PROPOSALS) as association:
        assert store(association, empty).kind is Kind.FAILED_HERE and not association.lost()
        with open_stored(path) as stored:
            os.truncate(path, 2**20)
            assert association.store(CT, UID, stored).comment == "our file ended before its data set"
        assert not association.open


def test_a_real_object_is_what_the_library_reads_back(tmp_path: Path) -> None:
    import pydicom

    ds = image(CT, rows=300)
    path = write(ds, tmp_path / "a.dcm")
    with open_stored(path) as stored:
        assert stored.named == (CT, str(ds.SOPInstanceUID)) == (stored.sop_class_uid, stored.sop_uid)
    with RawAcceptor(lambda accepted: None) as _:
        pass
    kept: list[Message] = []

    def serve(accepted: Accepted) -> None:
        accepted.accept()
        kept.append(accepted.message())
        accepted.send(kept[0].response())
        accepted.message()

    with RawAcceptor(serve) as acceptor, Association(peer(acceptor.port), PROPOSALS) as association:
        assert store(association, path, str(ds.SOPInstanceUID)).status == 0
    (tmp_path / "b.dcm").write_bytes(file_meta(CT, str(ds.SOPInstanceUID), EXPLICIT, "X") + kept[0].data)
    assert pydicom.dcmread(tmp_path / "b.dcm") == pydicom.dcmread(path)


def test_after_an_error_in_the_middle_of_an_object_nothing_more_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off must not be completed by the bytes of a release."""
    path, _ = blob(tmp_path / "a.dcm", 1000)
    os.truncate(path, 2**20)
    came: list[bytes] = []

    def serve(accepted: Accepted) -> None:
        accepted.accept()
        try:
            while piece := accepted.sock.recv(65536):
                came.append(piece)
        except ConnectionResetError:
            came.append(b"reset")

    with RawAcceptor(serve) as acceptor, pytest.raises(KeyboardInterrupt), Association(peer(acceptor.port), PROPOSALS) as association:
        real, reads = association._fragments._read, iter((True, False))

        def second_fails(*args: object) -> None:
            if not next(reads):
                raise KeyboardInterrupt
            real(*args)

        monkeypatch.setattr(association._fragments, "_read", second_fails)
        store(association, path)
    assert sum(map(len, came)) > 1000 and RELEASE not in b"".join(came) and ABORT not in b"".join(came)
