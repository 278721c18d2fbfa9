"""One suite for both receive paths: what a receiver does for good senders and bad ones, byte by byte, whichever code reads the bytes."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from node.receive import limits
from storage import index, objects
from tests.support.ports import wait_for
from tests.support.raw_peer import (
    ABORT,
    ECHO_CONTEXT,
    RELEASE,
    RELEASED,
    STORE_CONTEXT,
    RawPeer,
    data_pdu,
    echo_command,
    message,
    pdv,
    request,
    store_command,
)
from tests.support.receiver import ReceiverUnderTest, configuration, encoded
from tests.support.small_objects import CT, image

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("path")]


@pytest.fixture
def site(tmp_path: Path, path: str):
    with ReceiverUnderTest(configuration(tmp_path)) as receiver:
        yield receiver


def instance(**more: object) -> tuple[bytes, str]:
    """A small data set and its SOP Instance UID."""
    ds = image(CT, **more)
    return encoded(ds, ExplicitVRLittleEndian), str(ds.SOPInstanceUID)


def data_sets(site: ReceiverUnderTest) -> set[bytes]:
    """Stored data sets, without what stands before them."""
    return {file[144 + int.from_bytes(file[140:144], "little"):] for file in site.stored().values()}


def serves(site: ReceiverUnderTest, source: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> bool:
    data, uid = instance()
    with RawPeer(site.port, tls, source) as peer:
        return peer.associate()[:1] == b"\x02" and peer.store(data, uid) == 0 and peer.release() == RELEASED


def closed(site: ReceiverUnderTest, how: str, instances: int = 0) -> None:
    """The one association so far has ended so."""
    rows = wait_for(lambda: site.rows("select how, instances from association where closed_at is not null"), 10, "closed")
    assert rows == [{"how": how, "instances": instances}]


def fast_only(path: str, why: str) -> None:
    """Skips where the stock path, being the library's, is laxer than the standard."""
    if path == "stock":
        pytest.skip(why)


def test_echo_between_stores(site: ReceiverUnderTest) -> None:
    sets = [instance() for _ in range(3)]
    with RawPeer(site.port) as peer:
        peer.associate()
        for data, uid in sets:
            assert (peer.store(data, uid), peer.echo()) == (0, 0)
        assert peer.release() == RELEASED
    assert data_sets(site) == {data for data, _ in sets}
    closed(site, "released", 3)


@pytest.mark.parametrize("size", [1, 7, 250, 16000])
def test_any_size_of_fragments_gives_the_same_file(site: ReceiverUnderTest, size: int) -> None:
    data, uid = instance(rows=24)
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(uid), data, size))
        assert peer.status() == 0
    assert data_sets(site) == {data}


def test_many_fragments_in_one_pdu_and_empty_ones(site: ReceiverUnderTest) -> None:
    data, uid = instance(rows=16)
    command = store_command(uid)
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(data_pdu(pdv(1, command[:9], True, False), pdv(1, b"", True, False), pdv(1, command[9:], True, True),
                           pdv(1, b"", False, False), pdv(1, data[:100], False, False), pdv(1, data[100:], False, False))
                  + data_pdu(pdv(1, b"", False, True)))
        assert peer.status() == 0
    assert data_sets(site) == {data}


def test_any_cut_of_the_stream_gives_the_same_file(site: ReceiverUnderTest) -> None:
    data, uid = instance(rows=8)
    whole = message(STORE_CONTEXT, store_command(uid), data, 300)
    with RawPeer(site.port) as peer:
        peer.associate()
        for at in range(1, len(whole), 5):
            peer.send(whole, [at])
            assert peer.status() == 0
        peer.send(whole, range(1, len(whole)))  # one byte in each write
        assert peer.status() == 0
    assert data_sets(site) == {data} and len(site.rows("select id from instance")) == 1


def test_the_next_command_may_come_before_our_answer(site: ReceiverUnderTest) -> None:
    sets = [instance() for _ in range(4)]
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(b"".join(message(STORE_CONTEXT, store_command(uid, k + 1), data) for k, (data, uid) in enumerate(sets)))
        assert [peer.status() for _ in sets] == [0] * 4
        assert peer.release() == RELEASED and peer.pdu() == b""
    closed(site, "released", 4)


def test_a_release_behind_an_object_waits_for_its_answer(site: ReceiverUnderTest, path: str) -> None:
    fast_only(path, "the library answers the release first")
    data, uid = instance()
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(uid), data) + RELEASE)
        assert (peer.status(), peer.pdu(), peer.pdu()) == (0, RELEASED, b"")
    closed(site, "released", 1)


@pytest.mark.parametrize("ending", [ABORT, b""], ids=["abort", "close"])
def test_an_end_inside_an_object_leaves_nothing(site: ReceiverUnderTest, ending: bytes) -> None:
    data, uid = instance(rows=128)
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(uid), data)[:-1000])
        wait_for(site.parts, 5, "the object arrives")
        if ending:
            peer.send(ending)
    wait_for(lambda: not site.parts(), 10, "the half object is gone")
    closed(site, "aborted")
    assert site.stored() == {} and serves(site)


def test_an_abort_after_the_last_fragment_keeps_the_object(site: ReceiverUnderTest) -> None:
    data, uid = instance()
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(uid), data) + ABORT)
    closed(site, "aborted", 1)
    assert data_sets(site) == {data} and site.parts() == []


def test_releases_that_cross(site: ReceiverUnderTest, path: str) -> None:
    fast_only(path, "the library aborts at the second release")
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(RELEASE + RELEASE)  # we never ask for release, so the second one meets an association that is over
        assert peer.pdu() == RELEASED
        assert peer.pdu() in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x02")
    closed(site, "released")
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(RELEASED)  # an answer to a request that was never made
        assert peer.pdu()[:1] == b"\x07"
    assert serves(site)


@pytest.mark.parametrize("wrong", [
    data_pdu(pdv(1, b"xx", False, True)), data_pdu(pdv(9, echo_command(), True, True)), data_pdu(pdv(1, b"\xff" * 60, True, True)),
    data_pdu(pdv(1, echo_command()[:20], True, True)),
    b"".join(data_pdu(pdv(1, bytes(16000), True, False)) for _ in range(6)), struct.pack(">BBL", 4, 0, 100_000_000), b"\x09" + bytes(9)],
    ids=["data first", "context unknown", "noise as command", "half a command", "endless command", "PDU too long", "PDU unknown"])
def test_what_breaks_the_protocol_is_aborted(site: ReceiverUnderTest, wrong: bytes) -> None:
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(wrong)
        assert peer.pdu()[:1] in (b"\x07", b"")
    closed(site, "aborted")
    assert site.stored() == {} and site.parts() == [] and serves(site)


@pytest.mark.parametrize("then", [message(STORE_CONTEXT, store_command("1.2")), data_pdu(pdv(ECHO_CONTEXT, b"xx", False, True)), RELEASE],
                         ids=["a command", "data of another context", "a release"])
def test_nothing_may_come_between_a_command_and_its_data_set(site: ReceiverUnderTest, path: str, then: bytes) -> None:
    fast_only(path, "the library takes it for part of the message")
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command("1.2")) + then)
        assert peer.pdu()[:1] == b"\x07"
    closed(site, "aborted")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 600), change=st.binary(min_size=1, max_size=8), cut=st.integers(0, 900))
def test_fuzz_of_what_an_association_carries(site: ReceiverUnderTest, place: int, change: bytes, cut: int) -> None:
    data, uid = instance(rows=4)
    stream = bytearray(message(STORE_CONTEXT, store_command(uid), data, 100) + message(ECHO_CONTEXT, echo_command()) + RELEASE)
    stream[place:place + len(change)] = change
    with RawPeer(site.port) as peer:
        peer.associate()
        try:
            peer.send(bytes(stream), [cut])
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # aborted on the way
        while peer.pdu():
            pass
    wait_for(lambda: not site.receiver._connections, 20, "the connection is over")
    assert site.parts() == []
    assert serves(site)


def test_ten_associations_one_of_them_stalled(site: ReceiverUnderTest) -> None:
    stalled = RawPeer(site.port)
    stalled.associate()
    data, uid = instance(rows=64)
    stalled.send(message(STORE_CONTEXT, store_command(uid), data)[:-500])
    series, study, answers = generate_uid(), generate_uid(), []

    def sender(k: int) -> None:
        with RawPeer(site.port) as peer:
            peer.associate()
            answers.extend(peer.store(*instance(study=study, series=series, number=10 * k + i)) for i in range(8))
            peer.release()

    threads = [threading.Thread(target=sender, args=(k,)) for k in range(9)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [0] * 72 and time.monotonic() - began < 30
    stalled.send(message(STORE_CONTEXT, store_command(uid), data)[-500:])
    assert stalled.status() == 0 and stalled.release() == RELEASED
    stalled.sock.close()
    assert len(site.stored()) == len(site.rows("select id from instance")) == 73
    assert [r["changes"] for r in site.rows("select changes from series where series_uid = :s", s=series)] == [72]
    wait_for(lambda: not site.rows("select id from association where closed_at is null"), 10, "closed")
    assert site.audit.verify().ok


def test_success_comes_after_file_name_and_row(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noted(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: object) -> object:
            done = real(*args)
            steps.append(name)
            return done
        monkeypatch.setattr(owner, name, call)

    first, data = instance(), instance()
    with RawPeer(site.port) as peer:
        peer.associate()
        assert peer.store(*first) == 0  # its folders are made
        for owner, name in ((os, "fdatasync"), (os, "rename"), (objects, "sync_directory"), (index, "admit")):
            noted(owner, name)
        assert peer.store(*data) == 0
        assert len(site.rows("select id from instance")) == 2  # committed: another connection sees it
    monkeypatch.undo()
    names = ["fdatasync", "rename", "sync_directory", "admit"]
    steps = [step for k, step in enumerate(steps) if step != "sync_directory" or k > steps.index("rename")]  # new folders before it
    assert steps == names


def test_one_bad_instance_costs_only_its_own_sender(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, real, together = instance(), index.admit, threading.Barrier(2, timeout=10)

    def admit(conn: object, new: index.ReceivedInstance) -> object:
        if new.sop_uid == bad[1]:
            raise ValueError("scratch")
        return real(conn, new)

    monkeypatch.setattr(index, "admit", admit)
    answers = {}

    def sender(data: bytes, uid: str) -> None:
        with RawPeer(site.port) as peer:
            peer.associate()
            together.wait()
            answers[uid] = [peer.store(data, uid) for _ in range(5)]

    good = instance()
    threads = [threading.Thread(target=sender, args=pair) for pair in (bad, good)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {bad[1]: [0x0110] * 5, good[1]: [0] * 5}


def test_a_step_of_the_wall_clock_ends_nothing(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    data, uid = instance()
    stream = message(STORE_CONTEXT, store_command(uid), data)
    with RawPeer(site.port) as peer:
        peer.associate()
        peer.send(stream[:500])
        real = time.time
        for step in (86400.0, -86400.0):
            monkeypatch.setattr(time, "time", lambda step=step: real() + step)
            time.sleep(0.3)
        peer.send(stream[500:])
        assert peer.status() == 0 and peer.release() == RELEASED
    closed(site, "released", 1)


@pytest.fixture
def hasty(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch):
    """A receiver of little patience and two associations."""
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.5)
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_associations": 2, "acse_timeout": 1.0, "dimse_timeout": 1.0,
                                                            "network_timeout": 2.0})) as receiver:
        yield receiver


def drip(peer: RawPeer, data: bytes, every: float = 0.1) -> float:
    """Sends byte by byte until the peer has enough of it; seconds that it took."""
    began = time.monotonic()
    try:
        for k in range(len(data)):
            peer.send(data[k:k + 1])
            time.sleep(every)
    except OSError:
        pass
    return time.monotonic() - began


@pytest.mark.parametrize("start", [0, 400], ids=["request", "object"])
def test_drips_end_in_bounded_time(hasty: ReceiverUnderTest, start: int) -> None:
    data, uid = instance(rows=64)
    with RawPeer(hasty.port) as peer:
        if start:
            peer.associate()
            stream = message(STORE_CONTEXT, store_command(uid), data)
            peer.send(stream[:start])
            assert drip(peer, stream[start:start + 300]) < 25  # the PDU of 8 kB has 0.5 s and 8 s
        else:
            assert drip(peer, request() + bytes(300)) < 10
    wait_for(lambda: not hasty.receiver._connections and hasty.parts() == [], 10, "it is gone")
    assert serves(hasty)


def test_small_pdus_that_drip_make_no_object(hasty: ReceiverUnderTest, path: str) -> None:
    fast_only(path, "the library's time-outs look at single PDUs")
    _, uid = instance()
    with RawPeer(hasty.port) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(uid)))
        began = time.monotonic()
        try:
            while time.monotonic() - began < 10:
                peer.send(data_pdu(pdv(1, b"x", False, False)))
                time.sleep(0.05)
        except OSError:
            pass
        assert 0.9 < time.monotonic() - began < 5
    wait_for(lambda: hasty.parts() == [], 5, "nothing is left")


def test_an_object_after_a_long_pause_has_its_time(hasty: ReceiverUnderTest) -> None:
    data, uid = instance(rows=400)
    with RawPeer(hasty.port) as peer:
        peer.associate()
        time.sleep(1.4)  # longer than a message may take, shorter than an association may be idle
        stream = message(STORE_CONTEXT, store_command(uid), data)
        peer.send(stream, [len(stream) // 3, len(stream) // 2], pause=0.2)
        assert peer.status() == 0


def test_silent_ones_cost_only_their_own_address(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_associations": 2})) as site:
        silent = [RawPeer(site.port, source="127.0.0.9") for _ in range(limits.SPARE_CONNECTIONS)]
        wait_for(lambda: len(site.receiver._connections) == limits.SPARE_CONNECTIONS, 5, "they wait")
        with RawPeer(site.port, source="127.0.0.9") as late:
            assert late.pdu() == b""  # closed: this address has its share
        assert serves(site)
        for peer in silent:
            peer.sock.close()


def test_one_address_does_not_take_every_place(tmp_path: Path, path: str) -> None:
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_associations": 3, "max_per_address": 2})) as site:
        peers = [RawPeer(site.port, source="127.0.0.9") for _ in range(3)]
        assert [p.associate()[:1] for p in peers] == [b"\x02", b"\x02", b"\x03"]
        assert serves(site)
        for peer in peers:
            peer.sock.close()


def test_a_stop_waits_for_the_object_and_aborts_between_two(site: ReceiverUnderTest) -> None:
    data, uid = instance()
    with RawPeer(site.port) as peer:
        peer.associate()
        assert peer.store(data, uid) == 0
        site.receiver.stop(drain=0.1)
        assert peer.pdu()[:1] == b"\x07"
    closed(site, "aborted", 1)


def client(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    context.check_hostname = False
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_tls_beside_a_mute_peer_and_one_without_certificate(tmp_path: Path, path: str, certificate: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 1.0)
    files = {"certificate": str(certificate / "cert.pem"), "key": str(certificate / "key.pem"), "trust": str(certificate / "cert.pem")}
    with ReceiverUnderTest(configuration(tmp_path, receive={"tls": files})) as site:
        mute = [RawPeer(site.port) for _ in range(3)]
        began = time.monotonic()
        data, uid = instance(rows=400)
        with RawPeer(site.port, client(certificate)) as peer:
            assert peer.associate()[:1] == b"\x02"
            assert peer.store(data, uid) == 0 and peer.echo() == 0 and peer.release() == RELEASED
        assert time.monotonic() - began < 5
        assert data_sets(site) == {data}
        anonymous = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        anonymous.check_hostname = False
        with pytest.raises((OSError, AssertionError)), RawPeer(site.port, anonymous) as peer:
            assert peer.associate()[:1] == b"\x02"
        with RawPeer(site.port) as plain:
            plain.send(request())
            assert plain.pdu()[:1] != b"\x02"
        for peer in mute:
            peer.sock.settimeout(10)
            assert peer.pdu() == b""
        wait_for(lambda: not site.receiver._connections, 10, "all are gone")


def resident() -> int:
    """Bytes of this process in memory."""
    return psutil.Process(os.getpid()).memory_info().rss


def large(site: ReceiverUnderTest, size: int, tls: ssl.SSLContext | None = None) -> int:
    """Sends a multi-frame object of `size` bytes; by how much memory grew while it came."""
    ds = image(CT, rows=8)
    ds.NumberOfFrames = max(1, size // (8 * 8 * 2))
    head = encoded(ds, ExplicitVRLittleEndian)[:-(8 * 8 * 2)][:-4] + struct.pack("<L", size)
    frame, most, before = bytes(120_000), 0, resident()
    with RawPeer(site.port, tls) as peer:
        peer.associate()
        peer.send(message(STORE_CONTEXT, store_command(str(ds.SOPInstanceUID))) + data_pdu(pdv(1, head, False, False)))
        left = size
        while left:
            piece = frame[:min(left, len(frame))]
            left -= len(piece)
            peer.send(data_pdu(pdv(1, piece, False, not left)))
            most = max(most, resident() - before)
        assert peer.status() == 0
    [row] = site.rows("select bytes from instance where sop_uid = :u", u=str(ds.SOPInstanceUID))
    assert row["bytes"] == len(head) + size
    return most


def test_memory_stays_flat(tmp_path: Path, path: str, certificate: Path) -> None:
    size = 96 * 2**20
    files = {"certificate": str(certificate / "cert.pem"), "key": str(certificate / "key.pem")}
    with ReceiverUnderTest(configuration(tmp_path / "plain", storage={"durability": "os", "reserve": "1 MiB"})) as site:
        assert large(site, size) < 24 * 2**20
    with ReceiverUnderTest(configuration(tmp_path / "tls", receive={"tls": files}, storage={"durability": "os", "reserve": "1 MiB"})) as site:
        assert large(site, size, client(certificate)) < 24 * 2**20


@pytest.mark.slow
def test_memory_stays_flat_for_two_gigabytes(tmp_path: Path, path: str) -> None:
    with ReceiverUnderTest(configuration(tmp_path, storage={"durability": "default", "reserve": "1 MiB"})) as site:
        assert large(site, 2 * 2**30) < 24 * 2**20


def crowd(site: ReceiverUnderTest, count: int) -> None:
    """`count` connections that say nothing; threads, connections and memory are as before."""
    assert serves(site)
    threads, memory = threading.active_count(), resident()
    for _ in range(count):
        socket.create_connection(("127.0.0.1", site.port), timeout=10).close()
    wait_for(lambda: not site.receiver._connections and threading.active_count() <= threads + 2, 60, "threads end")
    assert resident() - memory < 32 * 2**20
    assert serves(site)


def test_connect_and_close(site: ReceiverUnderTest) -> None:
    crowd(site, 300)


@pytest.mark.slow
def test_ten_thousand_connect_and_close(site: ReceiverUnderTest) -> None:
    crowd(site, 10_000)
