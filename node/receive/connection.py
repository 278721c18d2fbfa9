"""Socket layer of the fast path: DICOM over one TCP connection, plain or TLS (PS3.8 9.1, PS3.15 annex B).

Replaces pynetdicom's `AssociationSocket`: that one reads 4096 bytes a call into a growing buffer with no deadline, and accepts TLS in the
thread that listens. Here every operation has a deadline on the monotonic clock, bytes land in the caller's one reused buffer, and what was
read is acknowledged before more is waited for: a sender that leaves Nagle's algorithm on (DCMTK as shipped) else waits 40 ms for every PDU.
The socket never blocks: what is there is read, and what fits is sent, in one call of the system.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable

from node.receive import limits
from node.receive.turns import TURN

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


def quick_ack(sock: socket.socket) -> None:
    """Acknowledges at once; the option is not sticky, so it is set again for every wait. Nothing where the system has no such option."""
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def prepare(sock: socket.socket) -> None:
    """Answers leave at once, few of them wait for a peer that does not read, and a peer whose host is gone is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.SEND_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class PeerDoesNotRead(OSError):
    """The peer takes nothing of what we send."""


def secured(sock: socket.socket, tls: ssl.SSLContext | None, seconds: float, taken: Callable[[socket.socket], None]) -> socket.socket:
    """`sock` after its TLS handshake, within `seconds` in all; as it is without `tls`. OSError where the handshake fails.

    `taken` hears of the object that owns the connection from then on, before the peer is waited for.
    """
    if tls is None:
        return sock
    sock.settimeout(seconds)  # the ssl module keeps one deadline over the whole handshake
    wrapped = tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    taken(wrapped)
    try:
        wrapped.do_handshake()
    except BaseException:
        wrapped.close()
        raise
    return wrapped


class Connection:
    """One accepted connection, used by one thread; only `hang_up` may be called by another. Takes the socket over at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()

    def secure(self, tls: ssl.SSLContext | None, seconds: float, taken: Callable[[socket.socket], None]) -> None:
        """Options of the socket, then the handshake where there is `tls`, see `secured`; OSError where either fails."""
        prepare(self._sock)
        self._sock = secured(self._sock, tls, seconds, taken)
        self._sock.setblocking(False)

    def receive(self, buffer: memoryview, seconds: float) -> int:
        """Reads what is there into `buffer`; bytes read, 0 at the end. TimeoutError when nothing came within `seconds`."""
        if seconds <= 0:
            raise TimeoutError("the peer takes too long")
        deadline = 0.0
        while True:
            try:
                return self._sock.recv_into(buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            deadline = deadline or time.monotonic() + seconds
            quick_ack(self._sock)
            self._wait(events, deadline)

    def send(self, data: bytes, seconds: float) -> None:
        """Sends all of `data`, in one call if it fits, or raises OSError; PeerDoesNotRead when the peer has not taken it after `seconds`."""
        left, deadline = memoryview(data), 0.0
        while left:
            try:
                left = left[self._sock.send(left):]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = select.POLLOUT
            except ssl.SSLWantReadError:
                events = select.POLLIN
            deadline = deadline or time.monotonic() + seconds
            try:
                self._wait(events, deadline)
            except TimeoutError:
                raise PeerDoesNotRead("the peer does not read") from None

    def _wait(self, events: int, deadline: float) -> None:
        """Returns when the socket may have become ready; TimeoutError at `deadline` (monotonic)."""
        left = deadline - time.monotonic()
        self._poll.register(self._sock, events)
        with TURN.aside():
            ready = left > 0 and self._poll.poll(1000 * left)
        if not ready:
            raise TimeoutError("the peer takes too long")

    def hang_up(self) -> None:
        """Lets the thread that reads see the end of the stream."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RD)  # SSLSocket.shutdown would take the session from the reading thread
        except OSError:
            pass  # it is closed already

    def linger(self) -> None:
        """After the last PDU the peer closes (state 13 of PS3.8 9.2). One that does not within CLOSE_SECONDS is told that no more comes.

        Closing at once would be no kindness: a reset overtakes what we sent, and some libraries take an early end for an abort.
        """
        begun, scrap = time.monotonic(), memoryview(bytearray(65536))
        left = limits.LINGER_BYTES
        try:
            for seconds in (limits.CLOSE_SECONDS, limits.LINGER_SECONDS):
                try:
                    while left > 0:
                        got = self.receive(scrap, begun + seconds - time.monotonic())
                        if not got:
                            return
                        left -= got
                except TimeoutError:
                    pass
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._sock.close()
