"""The fast path: one association, one blocking loop in its own thread (PS3.7 annex C.5 and 9.3: C-ECHO and C-STORE as a provider).

Replaces pynetdicom's `Association`, its DUL thread and their queues: there each message crosses two threads that sleep a millisecond
between looks. Here the thread that reads the last fragment makes the file durable and sends the answer. Layers: `Connection` moves bytes,
`UpperLayer` makes fragments of them, this loop makes messages of fragments; what is kept and refused, the receiver decides for both paths.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from node.log import event
from node.receive import limits
from node.receive.admission import Command
from node.receive.associate import VERSION, accept, read_request, reject
from node.receive.command_set import CommandSet, Field, read_command, response
from node.receive.connection import Connection, PeerDoesNotRead
from node.receive.listener import Address, Listener, Path, Service
from node.receive.patience import Patience
from node.receive.session import Session
from node.receive.spool import Spool
from node.receive.turns import TURN
from node.receive.upper_layer import (
    RELEASE_RESPONSE,
    Abort,
    AssociateRequest,
    Fragment,
    ProtocolError,
    Reason,
    Release,
    UpperLayer,
    abort,
    data_tf,
)

log = logging.getLogger("node.receive")

FIRST_BUFFER, BUFFER = 8192, 256 * 1024
"""Bytes read at once, before an association is accepted and after."""
PIECES = 256
"""Views that are collected before they are written."""
SUCCESS = 0x0000


class _Ended(Exception):
    """The association is over; nothing more is to be said."""


class FastAssociation:
    """An acceptor; `run` returns when it has ended, however it ends. Only `abort` and `join` may be called by other threads."""

    def __init__(self, service: Service, listener: Listener, sock: Any, address: Address) -> None:
        receive = service.config.receive
        self.address = address
        self.session: Session | None = None
        self.busy = False
        self.is_released = False
        self._service, self._listener, self._connection = service, listener, Connection(sock)
        self._max_pdu, self._seconds, self._endless = receive.max_pdu, receive.network_timeout, limits.ENDLESS * receive.max_object_mb * 2**20
        self._handshake = min(limits.HANDSHAKE_SECONDS, receive.acse_timeout)
        self._upper = UpperLayer(receive.max_pdu)
        self._patience = Patience(receive.acse_timeout, receive.network_timeout, receive.dimse_timeout)
        self._contexts: dict[int, tuple[str, str]] = {}
        self._peer_max = 0
        self._over = threading.Event()
        self._stopping = False
        self._message: tuple[int, CommandSet | None] | None = None  # context ID, command once it is complete
        self._command = bytearray()
        self._spool: Spool | None = None
        self._pieces: list[memoryview] = []

    def abort(self, block: bool = False) -> None:
        """Asks the association to abort as soon as its thread waits for the peer."""
        self._stopping = True
        self._connection.hang_up()

    def join(self, timeout: float | None = None) -> None:
        """Waits until it has ended, at most `timeout` seconds."""
        self._over.wait(timeout)

    def run(self) -> None:
        """Serves the peer until release, abort, the end of its connection or of our patience. Raises nothing."""
        last: bytes | None = None
        try:
            self._secure()
            last = self._serve()
        except ProtocolError as error:
            self._listener.tell("association aborted", logging.WARNING, self.address, why=str(error))
            last = abort(error.reason)
        except TimeoutError:
            level = logging.INFO if self.session is None else logging.WARNING
            self._listener.tell("connection ended: the peer took too long", level, self.address)
            last = abort(Reason.NOT_SPECIFIED)
        except PeerDoesNotRead:
            self._listener.tell("connection ended: the peer does not read what we answer", logging.WARNING, self.address)
        except (OSError, _Ended):
            pass  # the peer is gone
        except Exception as error:
            event(log, "association failed", logging.ERROR, error, peer=self.address[0])
            last = abort(Reason.NOT_SPECIFIED)
        finally:
            self._end(last)

    def _secure(self) -> None:
        """The TLS handshake; its time counts against the association request."""
        began = time.monotonic()
        try:
            self._connection.secure(self._listener.context(), self._handshake, lambda sock: self._listener.connections.taken(self.address, sock))
        except OSError as error:
            self._listener.handshake_failed(error, self.address)
            raise _Ended from None
        self._patience.received(time.monotonic() - began, 0)

    def _end(self, last: bytes | None) -> None:
        """Records the end, then says `last`: who hears it finds the association closed."""
        if self._spool is not None:
            self._spool.discard()
        try:
            self._service.ended(self)
            if last is not None:
                try:
                    self._connection.send(last, limits.LAST_WORDS_SECONDS)
                    if self._listener.connections.parting(self.address):
                        self._connection.linger()
                except OSError:
                    pass  # nobody listens
        finally:
            self._connection.close()
            self._listener.connections.leave(self.address)
            self._over.set()

    def _serve(self) -> bytes | None:
        """The loop. What is to be sent last, None when the peer is not there any more."""
        upper, patience, connection = self._upper, self._patience, self._connection
        view = memoryview(bytearray(FIRST_BUFFER))
        while True:
            before = time.monotonic()
            got = connection.receive(view, patience.seconds_left(upper.in_pdu, upper.pdu_length))
            if not got:
                return abort(Reason.NOT_SPECIFIED) if self._stopping else None
            patience.received(time.monotonic() - before, got)
            if patience.message_bytes > self._endless and self._message is not None:
                raise ProtocolError(Reason.NOT_SPECIFIED, "message has no end")
            with TURN:
                for happened in upper.feed(view[:got]):
                    if isinstance(happened, Fragment):
                        self._fragment(happened)
                    elif isinstance(happened, AssociateRequest):
                        self._associate(happened.pdu)
                    elif isinstance(happened, Release):
                        if self._message is not None:
                            raise ProtocolError(Reason.UNEXPECTED_PDU, "released inside a message")
                        self.is_released = True
                        return RELEASE_RESPONSE
                    elif isinstance(happened, Abort):
                        return None
                self._write()
            patience.reached(upper.pdus)
            if self._stopping and self._message is None:
                return abort(Reason.NOT_SPECIFIED)
            if upper.established and len(view) < BUFFER:
                view = memoryview(bytearray(BUFFER))

    def _associate(self, pdu: bytes) -> None:
        """Accepts or rejects (PS3.8 9.3.3, 9.3.4)."""
        request = read_request(pdu)
        rejection = VERSION if not request.version & 1 else self._service.judge(self, request.calling, request.called, request.context_name)
        if rejection is not None:
            self._connection.send(reject(rejection), self._seconds)
            self._connection.linger()
            raise _Ended
        answer, self._contexts = accept(request, self._max_pdu)
        self._peer_max = request.max_pdu
        self._upper.established = True
        self._patience.associated()
        self._listener.connections.associated(self.address)
        self._connection.send(answer, self._seconds)

    def _fragment(self, fragment: Fragment) -> None:
        """Adds to the message in progress (PS3.8 annex E: a command in fragments, then its data set in fragments, in one context)."""
        if self._message is None:
            if not fragment.command or fragment.context_id not in self._contexts:
                raise ProtocolError(Reason.NOT_SPECIFIED, "fragment belongs to no message")
            self._message = fragment.context_id, None
            self._patience.message_began()
        context_id, command = self._message
        if fragment.context_id != context_id or fragment.command != (command is None):
            raise ProtocolError(Reason.NOT_SPECIFIED, "fragment belongs to another message")
        if command is None:
            self._command += fragment.data
            if len(self._command) > limits.MAX_COMMAND:
                raise ProtocolError(Reason.NOT_SPECIFIED, "command set is too large")
            if fragment.last:
                self._commanded(context_id, read_command(self._command))
            return
        self._pieces.append(fragment.data)
        if fragment.last or len(self._pieces) >= PIECES:
            self._write()
        if fragment.last:
            self._store(context_id, command)

    def _commanded(self, context_id: int, command: CommandSet) -> None:
        """A command set is complete: C-ECHO is answered, C-STORE waits for its data set, anything else is not served here."""
        self._command = bytearray()
        if command.message_id is None or command.responded_to is not None:
            raise ProtocolError(Reason.NOT_SPECIFIED, "no request")
        if command.field == Field.C_ECHO_RQ and not command.has_data_set:
            self._answer(context_id, command, SUCCESS)
        elif command.field == Field.C_STORE_RQ:
            self._message = context_id, command
            self._spool = self._service.spool(self, self._wanted(context_id, command), self._contexts[context_id][1])
            if not command.has_data_set:
                self._store(context_id, command)
        else:
            raise ProtocolError(Reason.NOT_SPECIFIED, "no service of this node")

    def _wanted(self, context_id: int, command: CommandSet) -> Command:
        return Command(command.sop_class_uid, command.sop_uid, self._contexts[context_id][0])

    def _write(self) -> None:
        """Passes on what was collected, before its buffer is read into again."""
        if self._pieces and self._spool is not None:
            self._spool.write(*self._pieces)
        self._pieces.clear()

    def _store(self, context_id: int, command: CommandSet) -> None:
        """The data set is complete: it is kept or refused, then answered in one PDU."""
        spool, self._spool = self._spool, None
        assert spool is not None
        self.busy = True
        try:
            status, comment = self._service.store(self, self._wanted(context_id, command), self._contexts[context_id][1], spool)
            self._answer(context_id, command, status, comment)
        finally:
            self.busy = False

    def _answer(self, context_id: int, command: CommandSet, status: int, comment: str = "") -> None:
        self._connection.send(data_tf(context_id, response(command, status, comment), self._peer_max), self._seconds)
        self._message = None
        self._patience.message_ended()


class FastHandler(Path):
    """Makes one association of one connection, in the thread of that connection."""

    server: Listener

    def handle(self) -> None:
        FastAssociation(self.server.service, self.server, self.request, self.client_address).run()
