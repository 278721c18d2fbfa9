"""Hostile connections: silent ones, half PDUs, lengths that lie; a genuine sender beside them is served. Clock steps."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from node.receive import limits
from node.receive.stock import MonotonicTimer
from tests.support.ports import wait_for
from tests.support.receiver import ReceiverUnderTest, association, configuration
from tests.support.small_objects import CT, image

EXPLICIT = [(CT, "1.2.840.10008.1.2.1")]


@pytest.fixture
def site(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.5)
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_associations": 2, "acse_timeout": 1.0})) as receiver:
        yield receiver


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def serves(site: ReceiverUnderTest) -> bool:
    with association(site.port, EXPLICIT) as assoc:
        return assoc.is_established and assoc.send_c_store(image(CT)).Status == 0


def read_to_end(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(4096):
        data += piece
    return data


def test_silent_connections_lock_nobody_out_and_end(site: ReceiverUnderTest) -> None:
    silent = [connect(site.port) for _ in range(8)]
    assert serves(site)
    for sock in silent:
        assert read_to_end(sock) in (b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
    wait_for(lambda: not site.receiver._connections, 10, "all are gone")


def test_half_a_header_ends_after_its_deadline(site: ReceiverUnderTest) -> None:
    sock = connect(site.port)
    sock.sendall(b"\x01\x00\x00")
    assert serves(site)
    read_to_end(sock)
    wait_for(lambda: not site.receiver._connections, 10, "it is gone")


def test_a_pdu_that_claims_four_gigabytes_is_aborted_at_once(site: ReceiverUnderTest) -> None:
    sock = connect(site.port)
    sock.sendall(struct.pack(">BBL", 1, 0, 0xFFFFFFFF))
    assert read_to_end(sock) == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
    assert serves(site)


def test_a_fragment_longer_than_announced_is_aborted(site: ReceiverUnderTest) -> None:
    with association(site.port, EXPLICIT) as assoc:
        assoc.dul.socket.socket.sendall(struct.pack(">BBL", 4, 0, 100_000_000))
        wait_for(lambda: assoc.is_aborted, 10, "aborted")
    wait_for(lambda: site.rows("select how from association where closed_at is not null") == [{"how": "aborted"}], 10, "closed")
    assert serves(site)


@pytest.mark.parametrize("noise", [
    b"GET / HTTP/1.1\r\n\r\n", b"\x04\x00\x00\x00\x00\x04abcd", b"\x01\x00\x00\x00\x00\x05hello", b"\x05" + bytes(9),
    b"\x01\x00\x00\x00\x00\x44\x00\x01\x00\x00" + b"\xff" * 64])
def test_noise_is_survived(site: ReceiverUnderTest, noise: bytes, caplog: pytest.LogCaptureFixture) -> None:
    sock = connect(site.port)
    sock.sendall(noise)
    sock.shutdown(socket.SHUT_WR)
    read_to_end(sock)
    assert serves(site)
    assert not [r for r in caplog.records if r.name == "node.receive" and r.exc_info]


def test_connect_and_close_leaks_no_threads(site: ReceiverUnderTest) -> None:
    before = threading.active_count()
    for _ in range(150):
        connect(site.port).close()
    wait_for(lambda: threading.active_count() <= before + 2 and not site.receiver._connections, 15, "threads end")
    assert serves(site)


def test_more_connections_than_anyone_needs_are_closed(site: ReceiverUnderTest) -> None:
    crowd = [connect(site.port) for _ in range(60)]
    wait_for(lambda: len(site.receiver._connections) >= 30, 5, "they came")
    assert len(site.receiver._connections) <= 2 + limits.SPARE_CONNECTIONS + 1
    for sock in crowd:
        sock.close()
    wait_for(lambda: serves(site), 10, "and served again")


def test_a_step_of_the_wall_clock_ends_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = MonotonicTimer(5)
    assert timer.remaining == 5 and not timer.expired
    timer.start()
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert not timer.expired and 4 < timer.remaining <= 5
    moment = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: moment + 6)
    assert timer.expired
    timer.restart()
    assert not timer.expired
    timer.stop()
    assert MonotonicTimer(None).remaining == 1 and not MonotonicTimer(None).expired
