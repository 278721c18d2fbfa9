"""The listening socket and the count of connections, the same for both receive paths (PS3.8 9.1.1, one TCP connection per association).

It is pynetdicom's threaded server with three things changed: connections are counted apart from associations and per address, so that
silent ones cost only their own address; a TLS handshake waits in the thread of its connection, not in the one that accepts; the backlog.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections import Counter
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
from node.receive.session import Session
from node.receive.spool import Spool

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


class Connections:
    """Open connections by address, and how many of each host still wait for their association. Safe for many threads."""

    def __init__(self, max_associations: int) -> None:
        self._per_host = max(SPARE_CONNECTIONS, max_associations)
        self._lock = threading.Lock()
        self._open: dict[Address, bool] = {}  # whether it waits
        self._waiting: Counter[str] = Counter()

    def enter(self, address: Address) -> bool:
        """Counts a new connection; False where its host, or all hosts together, have too many that wait."""
        with self._lock:
            if self._waiting[address[0]] >= self._per_host or self._waiting.total() >= ADDRESSES * self._per_host:
                return False
            self._open[address] = True
            self._waiting[address[0]] += 1
            return True

    def associated(self, address: Address) -> None:
        """The connection waits no longer."""
        with self._lock:
            if self._open.get(address):
                self._open[address] = False
                self._waited(address)

    def leave(self, address: Address) -> None:
        """The connection has ended; may be said twice."""
        with self._lock:
            if self._open.pop(address, False):
                self._waited(address)

    def _waited(self, address: Address) -> None:
        self._waiting[address[0]] -= 1
        if not self._waiting[address[0]]:
            del self._waiting[address[0]]

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)


class Path(BaseRequestHandler):
    """Base of the two receive paths: makes one association of one connection."""

    leaves_garbage = False


class Listener(ThreadedAssociationServer):
    """Accepts connections and hands each to a path in a thread of its own, with the TLS context it is to use."""

    request_queue_size = BACKLOG
    daemon_threads = True

    def __init__(self, *args: Any, service: Service, connections: Connections, tls: ssl.SSLContext | None = None, **more: Any) -> None:
        self.service, self.connections, self.tls = service, connections, tls
        super().__init__(*args, **more)
        self.ae._servers.append(self)

    def verify_request(self, request: Any, client_address: Address) -> bool:
        """Closes a connection over the limit before it costs a thread."""
        if self.connections.enter(client_address):
            return True
        event(log, "connection closed: too many wait for an association", logging.WARNING, peer=client_address[0])
        return False

    def service_actions(self) -> None:
        """Collects garbage now and then, which the library's cyclic associations need."""
        if self.RequestHandlerClass.leaves_garbage:
            super().service_actions()

    def handle_error(self, request: Any, client_address: Address) -> None:
        self.connections.leave(client_address)
        event(log, "connection failed", logging.WARNING, peer=client_address[0])


def listen(service: Service, connections: Connections, path: type[Path], tls: ssl.SSLContext | None) -> Listener:
    """A listener that is bound but does not serve yet; OSError when the port is not to be had."""
    receive = service.config.receive
    ae = AE(receive.ae_title)
    ae.implementation_class_uid, ae.implementation_version_name = IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = receive.max_pdu
    ae.acse_timeout, ae.dimse_timeout = receive.acse_timeout, receive.dimse_timeout
    ae.network_timeout = receive.network_timeout
    ae.add_supported_context(VERIFICATION)  # what else is accepted, `negotiate` decides
    return ae.make_server((receive.host, receive.port), server_class=Listener, request_handler=path, service=service,
                          connections=connections, tls=tls)
