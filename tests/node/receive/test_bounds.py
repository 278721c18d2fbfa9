"""What a peer may cost, for both receive paths: time, memory, places; slow, silent and many ones, over TLS too, and a clock that is stepped."""

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
from pydicom.uid import ExplicitVRLittleEndian

from node.receive import limits
from tests.support.conformance import closed, data_sets, fast_only, instance, serves
from tests.support.ports import wait_for
from tests.support.raw_peer import RELEASED, STORE_CONTEXT, RawPeer, data_pdu, message, pdv, request, store_command
from tests.support.receiver import ReceiverUnderTest, configuration, encoded
from tests.support.small_objects import CT, image

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("path")]


@pytest.fixture
def site(tmp_path: Path, path: str):
    with ReceiverUnderTest(configuration(tmp_path)) as receiver:
        yield receiver


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
