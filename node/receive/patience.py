"""How long a peer is waited for (pure; the ARTIM timer of PS3.8 9.1.5, and more than it).

Replaces pynetdicom's timers, which follow the wall clock and never look at a read that has begun. Here only the seconds spent waiting for
the peer are added up (the caller measures them on the monotonic clock), so our own work costs the peer nothing. What it must do is make
progress: a request within its time, a PDU and a data set at LEAST_RATE, the next message within `idle`.
"""

from __future__ import annotations

from node.receive import limits


class Patience:
    """Time left for one peer. request, idle, message: receive.acse_timeout, .network_timeout and .dimse_timeout, in seconds."""

    def __init__(self, request: float, idle: float, message: float) -> None:
        self._idle, self._message = idle, message
        self._waited = 0.0
        self._request_by: float | None = request
        self._heard = 0.0
        self._pdu, self._pdu_since = 0, 0.0
        self._message_since: float | None = None
        self.message_bytes = 0
        """Bytes on the line of the message in progress."""

    def associated(self) -> None:
        """The request has been answered."""
        self._request_by = None

    def received(self, waited: float, size: int) -> None:
        """`size` bytes came after `waited` seconds; said before they are looked at."""
        self._waited += waited
        self._heard = self._waited
        self.message_bytes += size

    def reached(self, pdus: int) -> None:
        """With these bytes the stream stands in or behind its PDU number `pdus`."""
        if pdus != self._pdu:
            self._pdu, self._pdu_since = pdus, self._waited

    def message_began(self) -> None:
        """The first fragment of a command came."""
        self._message_since, self.message_bytes = self._waited, 0

    def message_ended(self) -> None:
        """The message is complete."""
        self._message_since = None

    def seconds_left(self, in_pdu: bool, pdu_length: int) -> float:
        """Seconds within which the next byte must come; 0 or less when the peer has had its time."""
        until = self._heard + self._idle
        if self._request_by is not None:
            until = min(until, self._request_by)
        if in_pdu:
            until = min(until, self._pdu_since + limits.HANDSHAKE_SECONDS + pdu_length / limits.LEAST_RATE)
        if self._message_since is not None:
            until = min(until, self._message_since + self._message + self.message_bytes / limits.LEAST_RATE)
        elif in_pdu and self._request_by is None:  # its first fragment must come, too
            until = min(until, self._pdu_since + self._message)
        return until - self._waited
