"""One suite for both receive paths: what a receiver does with the bytes of an association, whichever code reads them."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from storage import index, objects
from tests.support.conformance import closed, data_sets, fast_only, instance, serves
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
    store_command,
)
from tests.support.receiver import ReceiverUnderTest, configuration

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("path")]


@pytest.fixture
def site(tmp_path: Path, path: str):
    with ReceiverUnderTest(configuration(tmp_path)) as receiver:
        yield receiver


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


@pytest.mark.parametrize("follow", [True, False], ids=["ext4", "other"])
def test_success_comes_after_file_name_and_row(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
    """The sync of a file makes its name durable on ext4; elsewhere its directory is synced after it."""
    monkeypatch.setattr(site.store, "names_follow", follow)
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
        for owner, name in ((os, "fsync"), (os, "fdatasync"), (os, "rename"), (objects, "sync_directory"), (index, "admit")):
            noted(owner, name)
        assert peer.store(*data) == 0
        assert len(site.rows("select id from instance")) == 2  # committed: another connection sees it
    monkeypatch.undo()
    names = ["rename", "fsync", "admit"] if follow else ["fdatasync", "rename", "fsync", "sync_directory", "admit"]
    begins = [k for k, step in enumerate(steps) if step == "sync_directory" and k < steps.index("rename")]  # new folders before it
    assert steps[begins[-1] + 1 if begins else 0:] == names


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
