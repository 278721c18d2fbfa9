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

from node.receive import limits

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


def quick_ack(sock: socket.socket) -> None:
    """Acknowledges at once; the option is not sticky, so it is set again for every wait. Nothing where the system has no such option."""
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def prepare(sock: socket.socket) -> None:
    """Answers leave at once, and a peer whose host is gone is noticed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def secured(sock: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
    """`sock` after its TLS handshake, within HANDSHAKE_SECONDS in all; as it is without `tls`. OSError where the handshake fails."""
    if tls is None:
        return sock
    sock.settimeout(limits.HANDSHAKE_SECONDS)  # the ssl module keeps one deadline over the whole handshake
    return tls.wrap_socket(sock, server_side=True)


class Connection:
    """One accepted connection, used by one thread; only `hang_up` may be called by another. Takes the socket over at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poll = select.poll()

    def secure(self, tls: ssl.SSLContext | None) -> None:
        """Options of the socket, then the handshake where there is `tls`; OSError where either fails."""
        prepare(self._sock)
        self._sock = secured(self._sock, tls)
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
        """Sends all of `data`, in one call if it fits, or raises OSError; TimeoutError when the peer has not taken it after `seconds`."""
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
            self._wait(events, deadline)

    def _wait(self, events: int, deadline: float) -> None:
        """Returns when the socket may have become ready; TimeoutError at `deadline` (monotonic)."""
        left = deadline - time.monotonic()
        self._poll.register(self._sock, events)
        if left <= 0 or not self._poll.poll(1000 * left):
            raise TimeoutError("the peer takes too long")

    def hang_up(self) -> None:
        """Lets the thread that reads see the end of the stream."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RD)  # SSLSocket.shutdown would take the session from the reading thread
        except OSError:
            pass  # it is closed already

    def linger(self, seconds: float) -> None:
        """After the last PDU the peer closes (state 13 of PS3.8 9.2). One that does not within CLOSE_SECONDS is told that no more comes.

        Closing at once would be no kindness: a reset overtakes what we sent, and some libraries take an early end for an abort.
        """
        begun = time.monotonic()
        try:
            if not self._ends(begun + min(seconds, limits.CLOSE_SECONDS)):
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
                self._ends(begun + seconds)
        except OSError:
            pass

    def _ends(self, deadline: float) -> bool:
        """Reads and drops; whether the peer closed before `deadline` (monotonic)."""
        scrap = memoryview(bytearray(4096))
        try:
            while self.receive(scrap, deadline - time.monotonic()):
                pass
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._sock.close()
