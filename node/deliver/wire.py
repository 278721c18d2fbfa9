"""Socket layer of sending: one TCP connection that we open, plain or TLS (PS3.8 9.1, PS3.15 B.12). It never blocks; who waits says for what and how long.

Nothing small ever waits for an acknowledgement: Nagle's algorithm is off on our side, a PDU's header and body leave in one call, and what
comes is acknowledged at once, because a peer that leaves the algorithm on (DCMTK as shipped) else waits 40 ms inside each answer.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Sequence

from node.receive.connection import prepare, quick_ack

_LINGER_NOT = struct.pack("ii", 1, 0)
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire:
    """A connection to (host, port), used by one thread. OSError when nobody accepts it, or its TLS, within `seconds` each."""

    def __init__(self, host: str, port: int, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        self._sock = socket.create_connection((host, port), timeout=seconds)
        prepare(self._sock)
        if tls is not None:
            self._sock = _secured(self._sock, tls, host)
        self._sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Bytes that were taken, 0 when none is just now; OSError when the connection is over."""
        try:
            if isinstance(self._sock, ssl.SSLSocket):  # it takes one piece a call, and the same one again after it took none
                return self._sock.send(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            return self._sock.sendmsg(pieces)
        except _NOT_NOW:
            return 0

    def read(self, buffer: memoryview) -> int | None:
        """Bytes that came, 0 at the end of the stream, None when nothing is there; OSError when the connection is over."""
        try:
            return self._sock.recv_into(buffer)
        except _NOT_NOW:
            return None

    def acknowledge(self) -> None:
        """The peer is told at once of what was read, for there is more to come."""
        quick_ack(self._sock)

    def wait(self, seconds: float, to_write: bool) -> tuple[bool, bool]:
        """Until something can be read or, if so wanted, written, at most `seconds`: which of both."""
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return True, False  # it has come, and lies behind the socket
        self._poll.modify(self._sock, select.POLLIN | (select.POLLOUT if to_write else 0))
        found = self._poll.poll(max(0.0, seconds) * 1000)
        flags = found[0][1] if found else 0
        return bool(flags & ~select.POLLOUT), bool(flags & select.POLLOUT)

    def unsent(self) -> int:
        """Bytes that the kernel holds for the peer: on a slow link these shrink long after the last write."""
        try:
            return int.from_bytes(fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
        except OSError:
            return -1

    def close(self, at_once: bool = False) -> None:
        """Closes; `at_once`: what the peer has not taken is thrown away."""
        if at_once:
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            except OSError:
                pass  # it is closed already
        elif isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.unwrap()  # says that no more comes; the peer's own word is not waited for
            except (OSError, ValueError):
                pass
        self._sock.close()


def _secured(sock: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """After the handshake, within the time-out of `sock`; it is closed where that fails."""
    try:
        return tls.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise
