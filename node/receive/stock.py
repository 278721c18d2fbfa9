"""The stock path (receive.path: stock): pynetdicom's upper layer and DIMSE with the bounds that they lack, for peers that need it.

What stays pynetdicom's: PDU coding, the state machine of PS3.8 9.2, two threads per association. What is ours: every read has a deadline
and a limit, time-outs follow the monotonic clock, the answer to an association request, and data sets go to a `Spool`.
"""

from __future__ import annotations

import logging
import socket
import time
from io import BytesIO
from typing import Any

from pynetdicom import _config, evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket, RequestHandler

from node.log import event
from node.receive import limits
from node.receive.admission import MAX_UID, Command
from node.receive.application_entity import negotiate
from node.receive.connection import prepare, quick_ack, secured
from node.receive.header_scan import uid_text
from node.receive.listener import Listener, Path, Service
from node.receive.spool import Spool
from node.receive.upper_layer import Reason, abort

log = logging.getLogger("node.receive")

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
        self._max_pdu, self._timeout = max_pdu + limits.PDU_TOLERANCE, timeout
        client_socket.settimeout(timeout)

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly `nr_bytes`, fewer when the peer closed; OSError past the deadline or over the limit."""
        sock = self.socket
        if sock is None:
            raise OSError("closed")
        if nr_bytes > (self._max_pdu if self._assoc.is_established else limits.MAX_ASSOCIATE):
            sock.sendall(abort(Reason.INVALID_PARAMETER))
            raise OSError("PDU is longer than announced")
        deadline = time.monotonic() + limits.HANDSHAKE_SECONDS + nr_bytes / limits.LEAST_RATE
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


class _Command(BytesIO):
    """A command set of bounded size."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > limits.MAX_COMMAND:
            raise ValueError("command set is too large")
        return super().write(data)


class _Sink(BytesIO):
    """Stands where pynetdicom collects a data set; what it writes goes to a spool, made when the command is known."""

    def __init__(self, assoc: ReceiverAssociation, message: DIMSEMessage) -> None:
        super().__init__()
        self._assoc, self._message = assoc, message
        self.spool: Spool | None = None

    def write(self, data: Any) -> int:
        if self.spool is None:
            if not isinstance(self._message, C_STORE_RQ):
                raise ValueError("a data set without a C-STORE request")
            self.spool = self._assoc.spool(self._message.context_id, self._message.command_set)
        self.spool.write(data)
        return len(data)

    def discard(self) -> None:
        if self.spool is not None:
            self.spool.discard()


class SpoolingDimse(DIMSEServiceProvider):
    """DIMSE provider whose messages carry a `_Sink` for their data set."""

    _sink: _Sink | None = None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Collects the fragments; a message that cannot be understood aborts the association (PS3.8 9.3.8)."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.encoded_command_set = _Command()
            self._sink = _Sink(self.assoc, self.message)
            self.message.data_set = self._sink
        try:
            super().receive_primitive(primitive)
        except Exception:
            self.discard()
            self.dul.event_queue.put("Evt19")
        if self.message is None:
            self._sink = None  # complete: it belongs to the request now

    def discard(self) -> None:
        """Removes what an ended association left half-way: the object in flight and those that nobody will answer."""
        sink, self._sink, self.message = self._sink, None, None
        if sink is not None:
            sink.discard()
        while True:
            _, request = self.get_msg(block=False)
            if request is None:
                return
            waiting = getattr(request, "DataSet", None)
            if isinstance(waiting, _Sink):
                waiting.discard()


class ReceiverAcse(ACSE):
    """Answers an association request by our own rules."""

    def _negotiate_as_acceptor(self) -> None:
        assoc: Any = self.assoc
        request = self.requestor.primitive
        self.requestor.ae_title = request.calling_ae_title
        rejection = assoc.service.judge(assoc, request.calling_ae_title.strip(), request.called_ae_title.strip(),
                                        str(request.application_context_name))
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
        assoc._server.connections.associated(assoc.address)
        assoc.is_established = True
        evt.trigger(assoc, evt.EVT_ESTABLISHED, {})


class ReceiverAssociation(Association):
    """An acceptor that serves C-ECHO and C-STORE and tells the receiver when it ends, however it ends."""

    def __init__(self, ae: Any, service: Service, address: tuple[Any, ...]) -> None:
        super().__init__(ae, "acceptor")
        self.service, self.address = service, address
        self.session: Any = None
        self.busy = False
        self.dimse = SpoolingDimse(self)
        self.acse = ReceiverAcse(self)
        for name in ("_idle_timer", "artim_timer"):
            timer = MonotonicTimer(getattr(self.dul, name).timeout)
            setattr(self.dul, name, timer)

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception as error:
            event(log, "association failed", logging.ERROR, error, peer=self.address[0])
        finally:
            self.dimse.discard()
            try:
                self.service.ended(self)
            finally:
                self._server.connections.leave(self.address)

    def _wanted(self, context_id: int, request: Any) -> Command:
        """`request` is a primitive or a command set: both name their elements alike."""
        return Command(uid_text(getattr(request, "AffectedSOPClassUID", None)), uid_text(getattr(request, "AffectedSOPInstanceUID", None)),
                       str(self._accepted_cx[context_id].abstract_syntax))

    def spool(self, context_id: int, request: Any) -> Spool:
        """For the data set of a C-STORE request."""
        return self.service.spool(self, self._wanted(context_id, request), str(self._accepted_cx[context_id].transfer_syntax[0]))

    def _serve_request(self, msg: Any, context_id: int) -> None:
        try:
            self._serve(msg, context_id, self._accepted_cx.get(context_id))
        finally:
            if isinstance(sink := getattr(msg, "DataSet", None), _Sink):
                sink.discard()
        self.dul._idle_timer.restart()  # idle is only what we wait for the peer

    def _serve(self, msg: Any, context_id: int, context: Any) -> None:
        if context is not None and isinstance(msg, C_STORE) and msg.MessageID is not None and msg.MessageIDBeingRespondedTo is None:
            self.busy = True
            try:
                spool = getattr(msg.DataSet, "spool", None) or self.spool(context_id, msg)
                status, comment = self.service.store(self, self._wanted(context_id, msg), str(context.transfer_syntax[0]), spool)
                self._respond(msg, context_id, status, comment)
            finally:
                self.busy = False
        elif context is not None and isinstance(msg, C_ECHO):
            super()._serve_request(msg, context_id)
        else:
            self.abort()

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


class StockHandler(RequestHandler, Path):
    """Makes one association of one connection."""

    server: Listener
    leaves_garbage = True

    def handle(self) -> None:
        """Starts the association's threads, after the TLS handshake; OSError where that fails."""
        seconds = min(limits.HANDSHAKE_SECONDS, self.server.service.config.receive.acse_timeout)
        address = self.client_address
        try:
            self.request = secured(self.request, self.server.context(), seconds, lambda sock: self.server.connections.taken(address, sock))
        except OSError as error:
            self.server.handshake_failed(error, address)
            self.server.connections.leave(address)
            return
        super().handle()

    def _create_association(self) -> Association:
        server = self.server
        receive = server.service.config.receive
        assoc = ReceiverAssociation(self.ae, server.service, self.client_address)
        assoc._server = server
        assoc.name = f"AcceptorThread@{self.client_address[0]}:{self.client_address[1]}"
        prepare(self.request)
        assoc.set_socket(BoundedSocket(assoc, self.request, receive.max_pdu, receive.network_timeout))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info, assoc.requestor.address_info = self.local, self.remote
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = server.contexts
        for kind, handler in server._handlers.items():
            if kind.is_intervention and handler:
                assoc.bind(kind, *handler)
        return assoc
