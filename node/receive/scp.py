"""The receiver: listens, judges who may associate, keeps or refuses what comes, records both (DESIGN sections 5 and 8).

`Receiver` is the one interface of reception: `start`, `stop`, `port`. How bytes become messages is the business of a path: `association.py`
(fast) or `stock.py`, whichever receive.path names; both ask the receiver and no other for every decision.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from node.config import Config
from node.log import event
from node.receive.admission import Command, Refusal, Status, judge_command, judge_error
from node.receive.application_entity import CONGESTION, LIMIT, CallingRules, Rejection
from node.receive.association import FastHandler
from node.receive.file_meta import file_meta
from node.receive.keeping import Keeper
from node.receive.listener import Connections, Listener, Peer, listen
from node.receive.repeats import Repeats
from node.receive.session import ACTOR, Session, Sessions
from node.receive.spool import NO_DATA_SET, Room, Spool
from node.receive.stock import StockHandler
from node.receive.tls import ListenerTls
from storage import index
from storage.audit_log import AuditLog
from storage.objects import ObjectStore

log = logging.getLogger("node.receive")

PATHS = {"fast": FastHandler, "stock": StockHandler}
DRAIN_SECONDS = 10.0
LAST_WORDS_SECONDS = 0.5
"""For the answer to a release, and the peer's end of the connection."""


class Receiver:
    """The DICOM listener. Arguments: configuration, engine of node.db, object store, audit log, start id, our Device UID, TLS."""

    def __init__(self, config: Config, engine: sa.Engine, store: ObjectStore, audit: AuditLog, start_id: str = "",
                 device_uid: str = "", tls: ListenerTls | None = None) -> None:
        self.config = config
        self._engine, self._store, self._audit, self._start_id, self._tls = engine, store, audit, start_id, tls
        self._keeper = Keeper(engine, store, device_uid)
        self._folders = _apart(store.root, config.data_folder, engine.url)
        self._room = Room(store, config.reserve_bytes, config.receive.max_object_mb * 2**20, self._free)
        self._rules = CallingRules(config.receive)
        self._sessions = Sessions()
        self._connections = Connections(config.receive.max_associations)
        self._repeats = Repeats()
        self._server: Listener | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, also where the configuration says 0."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listens; OSError when the port is not to be had."""
        self._server = listen(self, self._connections, PATHS[self.config.receive.path], self._context)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="listener", daemon=True).start()

    def stop(self, drain: float = DRAIN_SECONDS) -> None:
        """Stops listening, lets open associations end for `drain` seconds, then aborts them between two objects."""
        if self._server is None:
            return
        self._server.shutdown()
        deadline = time.monotonic() + drain
        while len(self._sessions) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self._sessions.associations()
        for assoc in left:
            wait = time.monotonic() + 5
            while assoc.busy and time.monotonic() < wait:
                time.sleep(0.01)
            assoc.abort(block=False)
        for assoc in left:
            assoc.join(5)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while len(self._connections) and time.monotonic() < deadline:
            time.sleep(0.02)
        self._keeper.close()
        self._server = None

    # What a path asks; each runs in the thread of its association.

    def judge(self, peer: Peer, calling: str, called: str, context_name: str) -> Rejection | None:
        """Accepts or rejects an association request; an accepted one has a session and a row."""
        host = peer.address[0]
        rejection = self._rules.judge(calling, called, host, context_name, 0, self._free())
        if rejection is None and not self._sessions.take(peer, host, self.config.receive.max_associations,
                                                           self.config.receive.max_per_address):
            rejection = LIMIT
        if rejection is None:
            try:
                with self._engine.begin() as conn:
                    row = index.open_association(conn, self._start_id, calling, called, host)
                peer.session = Session(row, calling, called, host)
                return None
            except sa.exc.SQLAlchemyError as error:
                event(log, "association cannot be recorded", logging.ERROR, error)
                rejection = CONGESTION
        self._audit_rejection(rejection, calling, called, host)
        return rejection

    def ended(self, peer: Peer) -> None:
        """Records the end of an association; nothing for a connection that never became one."""
        try:
            if peer.session is not None:
                with self._engine.begin() as conn:
                    peer.session.close(conn, self._audit, "released" if peer.is_released else "aborted")
        except sa.exc.SQLAlchemyError as error:
            event(log, "end of an association cannot be recorded", logging.ERROR, error, association=peer.session.id)
        finally:
            self._sessions.leave(peer)

    def spool(self, peer: Peer, command: Command, syntax: str) -> Spool:
        """Where the data set of a C-STORE request goes; what must be refused anyway is not written."""
        meta = file_meta(command.sop_class_uid, command.sop_uid, syntax, peer.session.calling_ae)
        return Spool(self._room, meta, syntax, judge_command(command))

    def store(self, peer: Peer, command: Command, syntax: str, spool: Spool) -> tuple[int, str]:
        """Serves a C-STORE request whose data set has come: status and Error Comment of the answer."""
        try:
            refusal = spool.refusal or (NO_DATA_SET if spool.part is None else None)
            if refusal is None:
                refusal = self._keeper.keep(peer.session, command, syntax, spool)
            elif spool.error is not None:
                event(log, "data set cannot be written", logging.ERROR, spool.error)
        except Exception as error:
            event(log, "instance cannot be kept", logging.ERROR, error)
            refusal = judge_error(error)
        finally:
            spool.discard()
        if refusal is None:
            return Status.SUCCESS, ""
        self._audit_refusal(peer.session, refusal, command.sop_uid)
        return refusal.status, refusal.comment

    def _free(self) -> int:
        """Free bytes where objects, results and, if it is a file, the database lie: of the fullest file system."""
        return min(stat.f_bavail * stat.f_frsize for stat in map(os.statvfs, self._folders))

    def _audit_refusal(self, session: Session, refusal: Refusal, sop_uid: str) -> None:
        """The first refusal of a kind on an association is an event of its own; repeats are counted at its end."""
        if not session.refused(refusal):
            return
        event(log, "store refused", logging.WARNING, status=f"0x{refusal.status:04X}", why=refusal.comment, calling=session.calling_ae,
              peer=session.peer)
        try:
            with self._engine.begin() as conn:
                self._audit.append(conn, "store-refused", ACTOR, sop_uid=sop_uid[:64] or None, status=f"0x{refusal.status:04X}",
                                   reason=refusal.comment, calling_ae=session.calling_ae, peer=session.peer, association=session.id)
        except sa.exc.SQLAlchemyError as error:
            event(log, "refusal cannot be recorded", logging.ERROR, error)

    def unauthenticated(self, host: str, why: str) -> None:
        """A peer whose certificate is refused: PS3.15 A.5.3.11, Node Authentication."""
        earlier = self._repeats.note(host, why, time.monotonic())
        if earlier is not None:
            event(log, "TLS: the certificate of the peer is refused", logging.WARNING, why=why, peer=host)
            self._record("node-authentication", "refusal", reason=why, peer=host, earlier=earlier)

    def _context(self) -> ssl.SSLContext | None:
        return None if self._tls is None else self._tls.context()

    def _audit_rejection(self, rejection: Rejection, calling: str, called: str, peer: str) -> None:
        """An event for each rejection; the same one again within a minute is counted into the next event."""
        earlier = self._repeats.note(peer, f"{rejection.code} {calling}", time.monotonic())
        if earlier is None:
            return
        event(log, "association rejected", logging.WARNING, code=rejection.code, why=rejection.text, calling=calling, called=called,
              peer=peer)
        self._record("association-rejected", "rejection", code=rejection.code, reason=rejection.text, calling_ae=calling, called_ae=called,
                     peer=peer, earlier=earlier)

    def _record(self, name: str, what: str, **details: object) -> None:
        try:
            with self._engine.begin() as conn:
                self._audit.append(conn, name, ACTOR, **details)
        except sa.exc.SQLAlchemyError as error:
            event(log, f"{what} cannot be recorded", logging.ERROR, error)


def _apart(root: Path, data_folder: Path, url: sa.URL) -> list[Path]:
    """A folder of each file system that the node fills: objects, results and, if it is a file, the database."""
    folders = [root, data_folder, *([Path(url.database or ".").parent] if url.get_backend_name() == "sqlite" else [])]
    return list({folder.stat().st_dev: folder for folder in folders}.values())
