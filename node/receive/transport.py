"""pynetdicom's upper layer with the bounds that it lacks: every read has a deadline and a limit, time-outs follow the monotonic clock.

What stays pynetdicom's: PDU coding, the state machine of PS3.8 9.2, one thread per association. What is ours: sockets, the answer to an
association request, serving of requests, counting of connections.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from pynetdicom import _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from node.log import event
from node.receive.admission import MAX_UID
from node.receive.application_entity import Rejection, negotiate

log = logging.getLogger("node.receive")

MAX_ASSOCIATE = 2**20
"""Bytes of an A-ASSOCIATE-RQ; 128 contexts with all transfer syntaxes need less than half."""
PDU_TOLERANCE = 16384
"""Bytes by which a P-DATA-TF may exceed what we announced; some senders do not count the header."""
HANDSHAKE_SECONDS = 10.0
LEAST_RATE = 1024.0
"""Bytes per second that a PDU must make, besides its 10 seconds."""
INVALID_PARAMETER = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
"""A-ABORT by the service provider, reason: invalid PDU parameter value (PS3.8 9.3.8)."""
SPARE_CONNECTIONS = 32
"""Connections beyond max_associations that may wait for their association request."""
BACKLOG = 128

_config.LOG_HANDLER_LEVEL = "none"
_config.VALIDATORS["UI"] = lambda value: (True, "")  # a malformed UID is an answer of the service, not an abort


class MonotonicTimer(Timer):
    """A pynetdicom timer that a step of the wall clock does not touch."""

    def start(self) -> None:
        self._start_time, self._end_time = time.monotonic(), None

    def stop(self) -> None:
        self._end_time = time.monotonic()

    @property
    def remaining(self) -> float:
        if self.timeout is None or self._start_time is None:
            return 1.0 if self.timeout is None else self.timeout
        return self.timeout - ((self._end_time or time.monotonic()) - self._start_time)


class BoundedSocket(AssociationSocket):
    """A socket whose reads are limited in length and time."""

    def __init__(self, assoc: Association, client_socket: socket.socket, max_pdu: int, timeout: float) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._max_pdu, self._timeout = max_pdu + PDU_TOLERANCE, timeout
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client_socket.settimeout(timeout)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, fewer when the peer closed; OSError past the deadline or over the limit."""
        sock = self.socket
        if sock is None:
            raise OSError("closed")
        if nr_bytes > (self._max_pdu if self._assoc.is_established else MAX_ASSOCIATE):
            sock.sendall(INVALID_PARAMETER)
            raise OSError("PDU is longer than announced")
        deadline = time.monotonic() + HANDSHAKE_SECONDS + nr_bytes / LEAST_RATE
        data, have = bytearray(nr_bytes), 0
        view = memoryview(data)
        try:
            while have < nr_bytes:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("PDU takes too long")
                sock.settimeout(min(left, self._timeout))
                got = sock.recv_into(view[have:])
                quick_ack(sock)
                if not got:
                    self._wake()
                    break
                have += got
        except OSError:
            self._wake()
            raise
        finally:
            view.release()
            try:
                sock.settimeout(self._timeout)
            except OSError:
                pass
        del data[have:]
        return data

    def close(self) -> None:
        self._wake()
        super().close()

    def _wake(self) -> None:
        """Ends the association thread's wait for a request that will not come (state 2 of PS3.8 9.2)."""
        if self._assoc.dul.state_machine.current_state == "Sta2":
            self._assoc.dul.to_user_queue.put(None)


def quick_ack(sock: socket.socket) -> None:
    """Acknowledges at once; the option is not sticky. A sender with Nagle's algorithm else waits 40 ms for each PDU."""
    if hasattr(socket, "TCP_QUICKACK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Service(Protocol):
    """What the transport asks of the receiver. All but `free` may be called by many threads at once."""

    max_pdu: int
    network_timeout: float

    def judge(self, assoc: ReceiverAssociation) -> Rejection | None: ...
    def equip(self, assoc: ReceiverAssociation) -> None: ...
    def store(self, assoc: ReceiverAssociation, request: C_STORE, context: Any) -> tuple[int, str]: ...
    def ended(self, assoc: ReceiverAssociation) -> None: ...


class ReceiverAcse(ACSE):
    """Answers an association request by our own rules."""

    def _negotiate_as_acceptor(self) -> None:
        assoc: Any = self.assoc
        request = self.requestor.primitive
        self.requestor.ae_title = request.calling_ae_title
        rejection = assoc.service.judge(assoc)
        if rejection is not None:
            self.send_reject(rejection.result, rejection.source, rejection.reason)
            evt.trigger(assoc, evt.EVT_REJECTED, {})
            assoc.kill()
            return
        answers = negotiate(request.presentation_context_definition_list)
        assoc._accepted_cx = {c.context_id: c for c in answers if c.result == 0}
        assoc._rejected_cx = [c for c in answers if c.result != 0]
        self.send_accept()
        evt.trigger(assoc, evt.EVT_ACCEPTED, {})
        assoc.is_established = True
        evt.trigger(assoc, evt.EVT_ESTABLISHED, {})


class ReceiverAssociation(Association):
    """An acceptor that serves C-ECHO and C-STORE and tells the receiver when it ends, however it ends."""

    def __init__(self, ae: Any, service: Service, peer: str) -> None:
        super().__init__(ae, "acceptor")
        self.service, self.peer = service, peer
        self.session: Any = None
        self.busy = False
        self.acse = ReceiverAcse(self)
        for name in ("_idle_timer", "artim_timer"):
            timer = MonotonicTimer(getattr(self.dul, name).timeout)
            setattr(self.dul, name, timer)

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:
            event(log, "association failed", logging.ERROR, error, peer=self.peer)
        finally:
            self.service.ended(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        context = self._accepted_cx.get(context_id)
        if context is not None and isinstance(msg, C_STORE) and msg.MessageID is not None and msg.MessageIDBeingRespondedTo is None:
            self.busy = True
            try:
                status, comment = self.service.store(self, msg, context)
                self._respond(msg, context_id, status, comment)
            finally:
                self.busy = False
        elif context is not None and isinstance(msg, C_ECHO):
            super()._serve_request(msg, context_id)
        else:
            self.abort()
        self.dul._idle_timer.restart()  # idle is only what we wait for the peer

    def _respond(self, request: C_STORE, context_id: int, status: int, comment: str) -> None:
        response = C_STORE()
        response.MessageIDBeingRespondedTo = request.MessageID
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):  # both may be left out (PS3.7 9.3.1.2)
            uid = getattr(request, keyword)
            if uid is not None and len(uid) <= MAX_UID:  # peers abort on a longer one
                setattr(response, keyword, uid)
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]
        if self.is_established:
            self.dimse.send_msg(response, context_id)


class ReceiverHandler(RequestHandler):
    """Makes one association of one connection."""

    server: ReceiverServer

    def _create_association(self) -> Association:
        server = self.server
        assoc = ReceiverAssociation(self.ae, server.service, self.client_address[0])
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.client_address[0]}:{self.client_address[1]}"
        assoc.set_socket(BoundedSocket(assoc, self.request, server.service.max_pdu, server.service.network_timeout))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info, assoc.requestor.address_info = self.local, self.remote
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = server.contexts
        for kind, handler in server._handlers.items():
            if kind.is_intervention and handler:
                assoc.bind(kind, *handler)
        server.service.equip(assoc)
        return assoc


class ReceiverServer(ThreadedAssociationServer):
    """The listener. Connections are counted apart from associations, so that silent ones cannot lock senders out."""

    request_queue_size = BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, service: Service, max_connections: int, connections: Callable[[], int], **more: Any) -> None:
        self.service, self._max, self._connections = service, max_connections, connections
        super().__init__(*args, request_handler=ReceiverHandler, **more)
        self.ae._servers.append(self)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Closes a connection over the limit before it costs a thread."""
        if self._connections() < self._max:
            return True
        event(log, "connection closed: too many wait for an association", logging.WARNING, peer=client_address[0])
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        event(log, "connection failed", logging.WARNING, peer=client_address[0])
