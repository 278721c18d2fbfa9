"""The listening socket and the count of connections, the same for both receive paths (PS3.8 9.1.1, one TCP connection per association).

It is pynetdicom's threaded server with three things changed: connections are counted apart from associations and per address, so that
silent ones cost only their own address; a TLS handshake waits in the thread of its connection, not in the one that accepts; the backlog.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from socketserver import BaseRequestHandler
from typing import Any, Protocol

from pynetdicom import AE, _config
from pynetdicom.transport import ThreadedAssociationServer

from node.config import Config
from node.log import event
from node.receive.admission import Command
from node.receive.application_entity import VERIFICATION, Rejection
from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.receive.limits import ADDRESSES, BACKLOG, SPARE_CONNECTIONS
from node.receive.repeats import Repeats
from node.receive.session import Session
from node.receive.spool import Spool
from node.receive.tls import refused_certificate

log = logging.getLogger("node.receive")

_config.LOG_HANDLER_LEVEL = "none"

Address = tuple[Any, ...]
"""What accept says of a peer: (host, port, ...); no two open connections share it."""


class Peer(Protocol):
    """An association as the receiver sees it, whichever path made it."""

    address: Address
    session: Session | None
    busy: bool
    is_released: bool

    def abort(self, block: bool = False) -> Any: ...
    def join(self, timeout: float | None = None) -> None: ...


class Service(Protocol):
    """What a path asks of the receiver. Each function runs in the thread of an association, many of them at once."""

    config: Config

    def judge(self, peer: Peer, calling: str, called: str, context_name: str) -> Rejection | None: ...
    def spool(self, peer: Peer, command: Command, syntax: str) -> Spool: ...
    def store(self, peer: Peer, command: Command, syntax: str, spool: Spool) -> tuple[int, str]: ...
    def ended(self, peer: Peer) -> None: ...
    def unauthenticated(self, host: str, why: str) -> None: ...


class Connections:
    """Open connections by address, and which of each host wait: for their association request, or for the peer to close. Safe for many threads."""

    def __init__(self, max_associations: int) -> None:
        self._per_host = max(SPARE_CONNECTIONS, max_associations)
        self._lock = threading.Lock()
        self._open: dict[Address, socket.socket] = {}
        self._waiting: dict[str, dict[Address, None]] = {}  # of each host, those that have waited longest first
        self._waits = 0

    def enter(self, address: Address, sock: socket.socket) -> bool:
        """Counts a new connection, which waits; False where its host has too many that do.

        Where all hosts together have too many, the host that has most of them loses the one that has waited longest: an honest peer sends
        its request at once, so the places of those that do not are the ones to have.
        """
        with self._lock:
            if len(self._waiting.get(address[0], ())) >= self._per_host:
                return False
            if self._waits >= ADDRESSES * self._per_host:
                self._hang_up_on(max(self._waiting.values(), key=len))
            self._open[address] = sock
            self._wait(address)
            return True

    def taken(self, address: Address, sock: socket.socket) -> None:
        """The connection belongs to another socket object now, as it does after a TLS handshake began."""
        with self._lock:
            if address in self._open:
                self._open[address] = sock

    def associated(self, address: Address) -> None:
        """The connection waits no longer."""
        with self._lock:
            self._waited(address)

    def parting(self, address: Address) -> bool:
        """The association has ended and its connection waits for the peer to close; False where its host has too many that wait."""
        with self._lock:
            if address not in self._waiting.get(address[0], ()):
                if len(self._waiting.get(address[0], ())) >= self._per_host:
                    return False
                self._wait(address)
            return True

    def leave(self, address: Address) -> None:
        """The connection has ended; may be said twice."""
        with self._lock:
            self._waited(address)
            self._open.pop(address, None)

    def _wait(self, address: Address) -> None:
        self._waiting.setdefault(address[0], {})[address] = None
        self._waits += 1

    def _waited(self, address: Address) -> None:
        waiting = self._waiting.get(address[0], {})
        if address in waiting:
            del waiting[address]
            self._waits -= 1
            if not waiting:
                del self._waiting[address[0]]

    def _hang_up_on(self, waiting: dict[Address, None]) -> None:
        address = next(iter(waiting))
        self._waited(address)
        try:
            socket.socket.shutdown(self._open[address], socket.SHUT_RDWR)  # its thread sees the end of the stream
        except OSError:
            pass  # it has ended already

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)


def has_gone(sock: socket.socket) -> bool:
    """Whether the peer has closed without a word, as port checks do; never waits."""
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False  # it says nothing yet
    except OSError:
        return True


class Path(BaseRequestHandler):
    """Base of the two receive paths: makes one association of one connection."""

    leaves_garbage = False


class Listener(ThreadedAssociationServer):
    """Accepts connections and hands each to a path in a thread of its own, with the TLS context it is to use."""

    request_queue_size = BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, service: Service, connections: Connections, context: Callable[[], ssl.SSLContext | None], **more: Any) -> None:
        self.service, self.connections, self.context = service, connections, context
        self._repeats = Repeats()
        super().__init__(*args, **more)
        self.ae._servers.append(self)

    def verify_request(self, request: Any, client_address: Address) -> bool:
        """Closes a connection over the limit, or one whose peer has gone, before it costs a thread."""
        if has_gone(request):
            return False
        if self.connections.enter(client_address, request):
            return True
        self.tell("connection closed: too many of this address wait", logging.WARNING, client_address)
        return False

    def tell(self, message: str, level: int, address: Address, why: str = "") -> None:
        """One line in the log; the same of the same peer within a minute is counted into its next line."""
        earlier = self._repeats.note(address[0], f"{message}: {why}", time.monotonic())
        if earlier is not None:
            event(log, message, level, peer=address[0], **({"why": why} if why else {}), **({"earlier": earlier} if earlier else {}))

    def handshake_failed(self, error: OSError, address: Address) -> None:
        """A TLS handshake that fails is one line; where it is the certificate of the peer that is at fault, the receiver records it."""
        why = refused_certificate(error)
        if why:
            self.service.unauthenticated(address[0], why)
        else:
            self.tell("TLS handshake failed", logging.INFO, address, why=str(getattr(error, "reason", None) or error))

    def service_actions(self) -> None:
        """Collects garbage now and then, which the library's cyclic associations need."""
        if self.RequestHandlerClass.leaves_garbage:
            super().service_actions()

    def handle_error(self, request: Any, client_address: Address) -> None:
        self.connections.leave(client_address)
        self.tell("connection failed", logging.WARNING, client_address)


def listen(service: Service, connections: Connections, path: type[Path], context: Callable[[], ssl.SSLContext | None]) -> Listener:
    """A listener that is bound but does not serve yet; OSError when the port is not to be had. `context` is asked for each connection."""
    receive = service.config.receive
    ae = AE(receive.ae_title)
    ae.implementation_class_uid, ae.implementation_version_name = IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = receive.max_pdu
    ae.acse_timeout, ae.dimse_timeout = receive.acse_timeout, receive.dimse_timeout
    ae.network_timeout = receive.network_timeout
    ae.add_supported_context(VERIFICATION)  # what else is accepted, `negotiate` decides
    return ae.make_server((receive.host, receive.port), server_class=Listener, request_handler=path, service=service,
                          connections=connections, context=context)
