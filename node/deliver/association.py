"""An association that we request: C-STORE and C-ECHO as a user, in the caller's thread (PS3.7 9.3.1 and 9.3.5; PS3.8 9.2 as a requestor).

Replaces pynetdicom's association for sending: that one queues a whole object before it leaves, waits for Nagle's algorithm, and its second thread may
take the answer that the first one waits for. Here one thread writes, and reads while it cannot write; an answer is taken once, and only for
the request that it belongs to. Layers: `Wire` moves bytes, `UpperLayer` makes fragments of what comes, `Fragments` P-DATA-TFs of what goes.

Silence is measured as progress on the wire, on the monotonic clock, by the same `Patience` that the receiver has: a slow link that moves is
no failure, a peer that drips, lies about lengths or never answers costs its bounded time.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Iterable, Sequence

from node.deliver.answers import Answer, Kind
from node.deliver.fragments import FileCut, Fragments
from node.deliver.negotiation import Accepted, Proposal, Rejected, read_answer, request
from node.deliver.part10 import Stored
from node.deliver.peer import Peer, why_not
from node.deliver.wire import Wire
from node.receive import command_set, limits
from node.receive.command_set import RESPONSE, CommandSet, Field, read_command
from node.receive.file_meta import DEFLATED
from node.receive.patience import Patience
from node.receive.tls import TlsError
from node.receive.upper_layer import (
    RELEASE_REQUEST,
    RELEASE_RESPONSE,
    Abort,
    AssociateAnswer,
    Event,
    Fragment,
    ProtocolError,
    Reason,
    Release,
    Released,
    UpperLayer,
    abort,
    data_tf,
)

VERIFICATION = "1.2.840.10008.1.1"
MAX_PDU = 16384
"""What we announce; answers have some hundred bytes."""
READ = 4096
LOOK_SECONDS = 1.0
"""Between two looks at what the kernel still holds for a peer that says nothing."""
NO_PROGRESS, ENDED = "no progress in time", "association ended before the response"


class NoAssociation(Exception):
    """Why there is none; `rejected` where the peer said so."""

    def __init__(self, answer: Answer, rejected: Rejected | None = None) -> None:
        super().__init__(answer.text)
        self.answer, self.rejected = answer, rejected


class _Ended(Exception):
    """The peer has released, aborted or closed."""


class Association:
    """Connects and negotiates; NoAssociation where that fails. For one thread; its context releases it.

    accepted: context ID by (SOP class, transfer syntax). `comment`: Error Comment (0000,0902) of the newest answer; archives quote patients
    in it, so it is for the eyes of who sends by hand and for nothing that lasts.
    """

    def __init__(self, peer: Peer, proposals: Sequence[Proposal]) -> None:
        self._timeout, self._proposals = peer.timeout, proposals
        self._upper = UpperLayer(MAX_PDU, requestor=True)
        self._patience = Patience(peer.timeout, peer.timeout, peer.timeout)
        self._waited = 0.0
        self._came: deque[Event] = deque()
        self._over = self._releasing = False  # the peer has ended it; we are about to
        self._buffer = memoryview(bytearray(READ))
        self._bytes = self._message_id = 0
        self.comment = ""
        self.open = False
        said = self._negotiate(peer)
        self.accepted = said.contexts
        self._peer_max = said.peer_max
        self._fragments = Fragments(said.peer_max)

    def __enter__(self) -> Association:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Releases; after an error nothing more is said, for it could be taken for the rest of an object."""
        if error is None:
            self.release()
        elif self.open:
            self._close(at_once=True)

    def _negotiate(self, peer: Peer) -> Accepted:
        """Associated, or NoAssociation."""
        try:
            pdu = request(peer.ae_title, peer.calling_ae, self._proposals, MAX_PDU)
            self._wire = Wire(peer.host, peer.port, peer.timeout, None if peer.tls is None else peer.tls.context())
        except (OSError, ValueError, TlsError) as error:
            raise NoAssociation(Answer(Kind.UNREACHABLE, comment=why_not(error))) from None
        silence = "no answer to the association request"
        try:
            self._send(pdu)
            came = self._next()
            said = read_answer(came.pdu, self._proposals) if isinstance(came, AssociateAnswer) else None
        except ProtocolError as error:
            self._abort(error.reason)
            raise NoAssociation(Answer(Kind.UNREACHABLE, comment=f"{silence} ({error})")) from None
        except (OSError, _Ended) as error:  # TimeoutError is one; in TLS 1.3 a peer refuses our certificate when the handshake is over
            said, silence = None, why_not(error) if isinstance(error, ssl.SSLError) else silence
        if isinstance(said, Accepted):
            self._patience.associated()
            self._upper.established = self.open = True
            return said
        self._wire.close(at_once=said is None)
        if isinstance(said, Rejected):
            kind = Kind.REJECTED_TRANSIENT if said.result == 2 else Kind.REJECTED_PERMANENT
            raise NoAssociation(Answer(kind, comment=f"result {said.result}, source {said.source}, reason {said.reason} (PS3.8 9.3.4)"), said)
        raise NoAssociation(Answer(Kind.UNREACHABLE, comment=silence))

    def lost(self) -> bool:
        """Whether the association is over, also where the peer ended it since the last answer; asked before anything is begun."""
        if not self.open:
            return True
        try:
            self._read()
            if self._came:
                raise ProtocolError(Reason.UNEXPECTED_PDU, "the peer says what nobody asked")
        except ProtocolError as error:
            self._abort(error.reason)
        except OSError:
            self._over = True
        if self._over and self.open:
            self._close()
        return not self.open

    def store(self, sop_class_uid: str, sop_uid: str, stored: Stored) -> Answer:
        """C-STORE of an open file in its own transfer syntax, which was accepted for the class; what came back.

        An answer that did not come is unknown, whatever the reason, and ends the association.
        """
        context_id = self.accepted[sop_class_uid, stored.transfer_syntax]
        if not stored.length:
            return Answer(Kind.FAILED_HERE, comment="no data set in the file")
        pieces = self._fragments.of(stored.handle, stored.offset, stored.length, context_id, stored.transfer_syntax in DEFLATED)
        try:
            first = next(pieces)
        except (OSError, FileCut) as error:
            return Answer(Kind.FAILED_HERE, comment=type(error).__name__)
        return self._ask(Field.C_STORE_RQ, context_id, sop_class_uid, sop_uid, first, pieces)

    def echo(self) -> Answer:
        """C-ECHO in the context of Verification, which was accepted."""
        context_id = next(number for (abstract, _), number in self.accepted.items() if abstract == VERIFICATION)
        return self._ask(Field.C_ECHO_RQ, context_id, VERIFICATION)

    def release(self) -> None:
        """Ends the association in good order, within HANDSHAKE_SECONDS; nothing where it has ended."""
        if not self.open:
            return
        self._patience = Patience(1, min(self._timeout, limits.HANDSHAKE_SECONDS), 1)
        self._patience.associated()
        self._releasing = True
        try:
            self._send(RELEASE_REQUEST)
            while not isinstance(self._next(), Released):
                pass
        except (OSError, _Ended, ProtocolError):
            pass  # it is over in any case
        self._close()

    def _ask(self, field: Field, context_id: int, sop_class_uid: str, sop_uid: str = "", first: memoryview | None = None,
             pieces: Iterable[memoryview] = ()) -> Answer:
        """One request with its data set, one response."""
        self._message_id = self._message_id % 0xFFFF + 1
        self._bytes, self.comment = 0, ""
        command = data_tf(context_id, command_set.request(field, self._message_id, sop_class_uid, sop_uid), self._peer_max)
        self._patience.message_began()
        try:
            self._send(command, *(() if first is None else (first,)))
            for piece in pieces:
                self._send(piece)
            said = self._response(context_id)
            if said.field != field | RESPONSE or said.responded_to != self._message_id or said.sop_uid not in ("", sop_uid):
                raise ProtocolError(Reason.NOT_SPECIFIED, "the response belongs to no request of ours")
        except TimeoutError:
            return self._unknown(NO_PROGRESS)
        except ProtocolError as error:
            return self._unknown(f"protocol error: {error}", error.reason)
        except FileCut:
            return self._unknown("our file ended before its data set")
        except (OSError, _Ended):
            self._close()
            return Answer(Kind.NO_RESPONSE, comment=ENDED)
        self._patience.message_ended()
        self.comment = said.comment
        return Answer(Kind.STATUS, said.status)

    def _unknown(self, why: str, reason: Reason = Reason.NOT_SPECIFIED) -> Answer:
        self._abort(reason)
        return Answer(Kind.NO_RESPONSE, comment=why)

    def _response(self, context_id: int) -> CommandSet:
        """The next command set; there is no data set behind a response that we ask for."""
        data = bytearray()
        while True:
            came = self._next()
            if not isinstance(came, Fragment) or not came.command or came.context_id != context_id:
                raise ProtocolError(Reason.UNEXPECTED_PDU, "no response but something else")
            data += came.data
            if came.last:
                said = read_command(data)
                if said.has_data_set or self._came:
                    raise ProtocolError(Reason.NOT_SPECIFIED, "more than a response")
                return said

    def _send(self, *pieces: bytes | memoryview) -> None:
        """All of `pieces`. TimeoutError, OSError, _Ended, ProtocolError."""
        left = [memoryview(piece) for piece in pieces]
        while left:
            took = self._wire.write(left)
            if took:
                self._moved(took)
            else:
                self._wait(to_write=True)
                if self._over:
                    raise _Ended
            while left and took >= len(left[0]):
                took -= len(left.pop(0))
            if took:
                left[0] = left[0][took:]

    def _next(self) -> Event:
        """The next event. TimeoutError, OSError, _Ended, ProtocolError."""
        while not self._came:
            if self._over:
                raise _Ended
            self._wait(to_write=False)
        return self._came.popleft()

    def _wait(self, to_write: bool) -> None:
        """Until the peer said or, if so wanted, takes something."""
        held = self._wire.unsent()
        while True:
            left = self._patience.seconds_left(self._upper.in_pdu, self._upper.pdu_length) - self._waited
            if left <= 0:
                raise TimeoutError(NO_PROGRESS)
            began = time.monotonic()
            readable, writable = self._wire.wait(min(left, LOOK_SECONDS, self._timeout / 4), to_write)
            self._waited += time.monotonic() - began
            if readable:
                self._read()
            if readable or writable:
                return
            if held != (held := self._wire.unsent()):
                self._moved(0)

    def _read(self) -> None:
        """Takes what is there; what ends the association is noted behind what came before it."""
        got = self._wire.read(self._buffer)
        if got is None:
            return
        self._over = self._over or not got
        self._moved(got)
        self._bytes += got
        if self._bytes > limits.MAX_COMMAND and self.open:
            raise ProtocolError(Reason.NOT_SPECIFIED, "a response without end")
        for happened in self._upper.feed(self._buffer[:got]):
            if isinstance(happened, Fragment):
                happened.data = memoryview(bytes(happened.data))  # the buffer is used again
            elif isinstance(happened, Release):
                self._wire.write([RELEASE_RESPONSE])
                self._over = not self._releasing  # else both asked at once (PS3.8 9.2, state 9): ours is answered, too
                continue
            elif isinstance(happened, Abort):
                self._over = True
                continue
            self._came.append(happened)
        self._patience.reached(self._upper.pdus)
        if self._upper.in_pdu:
            self._wire.acknowledge()

    def _moved(self, size: int) -> None:
        """The peer has taken or given `size` bytes."""
        self._patience.received(self._waited, size)
        self._waited = 0.0

    def _abort(self, reason: Reason) -> None:
        try:
            took = self._wire.write([abort(reason)])
        except OSError:
            took = 0  # nobody listens
        self._close(at_once=not took)

    def _close(self, at_once: bool = False) -> None:
        self.open = False
        self._wire.close(at_once)
