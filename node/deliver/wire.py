"""Socket layer of sending: one TCP connection that we open (PS3.8 9.1). It never blocks; who waits says for what and how long.

Nothing small ever waits for an acknowledgement: Nagle's algorithm is off on our side, a PDU's header and body leave in one call, and what
comes is acknowledged at once, because a peer that leaves the algorithm on (DCMTK as shipped) else waits 40 ms inside each answer.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Sequence

from node.receive.connection import prepare, quick_ack

_LINGER_NOT = struct.pack("ii", 1, 0)


class Wire:
    """A connection to (host, port), used by one thread. OSError when nobody accepts it within `seconds`."""

    def __init__(self, host: str, port: int, seconds: float) -> None:
        self._sock = socket.create_connection((host, port), timeout=seconds)
        prepare(self._sock)
        self._sock.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)

    def write(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Bytes that were taken, 0 when none is just now; OSError when the connection is over."""
        try:
            return self._sock.sendmsg(pieces)
        except BlockingIOError:
            return 0

    def read(self, buffer: memoryview) -> int | None:
        """Bytes that came, 0 at the end of the stream, None when nothing is there; OSError when the connection is over."""
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:
            return None

    def acknowledge(self) -> None:
        """The peer is told at once of what was read, for there is more to come."""
        quick_ack(self._sock)

    def wait(self, seconds: float, to_write: bool) -> tuple[bool, bool]:
        """Until something can be read or, if so wanted, written, at most `seconds`: which of both."""
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
        self._sock.close()
