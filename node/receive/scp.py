"""C-ECHO and C-STORE: bytes to a part file, the file made durable, the row, then SUCCESS (DESIGN sections 5 and 8).

`Receiver` is the one interface of reception: `start`, `stop`, `port`. A faster transport can take its place behind it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pynetdicom import AE
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE

from node.config import Config
from node.log import event
from node.receive.admission import (
    Command,
    Refusal,
    Status,
    judge_command,
    judge_error,
    judge_header,
    own_result,
    with_stand_ins,
)
from node.receive.application_entity import CONGESTION, LIMIT, VERIFICATION, CallingRules, Rejection
from node.receive.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, file_meta
from node.receive.header_scan import Header, scan, uid_text
from node.receive.indexing import known_results, received_instance
from node.receive.session import ACTOR, Session, Sessions
from node.receive.spool import NO_DATA_SET, Spool, SpoolingDimse
from node.receive.transport import SPARE_CONNECTIONS, ReceiverAssociation, ReceiverServer
from storage import index
from storage.audit_log import AuditLog
from storage.objects import ObjectStore
from storage.schema import instance, series

log = logging.getLogger("node.receive")

STRIPES = 64
"""Locks over SOP Instance UIDs: the same UID on two associations is admitted one after the other."""
QUIET_REJECTIONS = 60.0
"""Seconds in which the same rejection of the same peer is counted, not written again."""
DRAIN_SECONDS = 10.0
MAX_PEERS = 1024


class Receiver:
    """The DICOM listener. Arguments: configuration, engine of node.db, object store, audit log, start id, our Device UID."""

    def __init__(self, config: Config, engine: sa.Engine, store: ObjectStore, audit: AuditLog, start_id: str = "",
                 device_uid: str = "") -> None:
        self._config, self._engine, self._store, self._audit = config, engine, store, audit
        self._start_id, self._device_uid = start_id, device_uid
        self._rules = CallingRules(config.receive)
        self._sessions = Sessions()
        self._locks = [threading.Lock() for _ in range(STRIPES)]
        self._rejected: dict[tuple[str, str, str], tuple[float, int]] = {}
        self._rejected_lock = threading.Lock()
        self._server: ReceiverServer | None = None
        self._connections: set[Any] = set()
        self.max_pdu = config.receive.max_pdu
        self.network_timeout = config.receive.network_timeout

    @property
    def port(self) -> int:
        """The port that is listened on, also where the configuration says 0."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listens; OSError when the port is not to be had."""
        receive = self._config.receive
        ae = AE(receive.ae_title)
        ae.implementation_class_uid, ae.implementation_version_name = IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = receive.max_pdu
        ae.acse_timeout, ae.dimse_timeout = receive.acse_timeout, receive.dimse_timeout
        ae.network_timeout = receive.network_timeout
        ae.add_supported_context(VERIFICATION)  # what else is accepted, `negotiate` decides
        self._server = ae.make_server((receive.host, receive.port), server_class=ReceiverServer, service=self,
                                      max_connections=receive.max_associations + SPARE_CONNECTIONS,
                                      connections=lambda: len(self._connections))
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
        self._server = None

    # What the transport asks; each runs in the thread of its association.

    def equip(self, assoc: ReceiverAssociation) -> None:
        """Gives a new connection its DIMSE provider."""
        receive = self._config.receive

        def meta(message: DIMSEMessage) -> bytes:
            context = assoc._accepted_cx[message.context_id]
            command = message.command_set
            return file_meta(uid_text(command.get("AffectedSOPClassUID")), uid_text(command.get("AffectedSOPInstanceUID")),
                             str(context.transfer_syntax[0]), assoc.requestor.ae_title.strip())

        assoc.dimse = SpoolingDimse(assoc, self._store, self._config.reserve_bytes, receive.max_object_mb * 2**20, self._free, meta)
        self._connections.add(assoc)

    def judge(self, assoc: ReceiverAssociation) -> Rejection | None:
        """Accepts or rejects an association request; an accepted one has a session and a row."""
        request = assoc.requestor.primitive
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        rejection = self._rules.judge(calling, called, assoc.peer, str(request.application_context_name), 0, self._free())
        if rejection is None and not self._sessions.take(assoc, self._config.receive.max_associations):
            rejection = LIMIT
        if rejection is None:
            try:
                with self._engine.begin() as conn:
                    row = index.open_association(conn, self._start_id, calling, called, assoc.peer)
                assoc.session = Session(row, calling, called, assoc.peer)
                return None
            except sa.exc.SQLAlchemyError as error:
                event(log, "association cannot be recorded", logging.ERROR, error)
                rejection = CONGESTION
        self._audit_rejection(rejection, calling, called, assoc.peer)
        return rejection

    def ended(self, assoc: ReceiverAssociation) -> None:
        """Cleans up after an association or a connection that never became one."""
        assoc.dimse.discard()
        session: Session | None = assoc.session
        try:
            if session is not None:
                with self._engine.begin() as conn:
                    session.close(conn, self._audit, "released" if assoc.is_released else "aborted")
        except sa.exc.SQLAlchemyError as error:
            event(log, "end of an association cannot be recorded", logging.ERROR, error, association=session.id)
        finally:
            self._sessions.leave(assoc)
            self._connections.discard(assoc)

    def store(self, assoc: ReceiverAssociation, request: C_STORE, context: Any) -> tuple[int, str]:
        """Serves one C-STORE request: status and Error Comment of the answer."""
        spool = request.DataSet
        assert isinstance(spool, Spool)
        try:
            command = Command(uid_text(request.AffectedSOPClassUID), uid_text(request.AffectedSOPInstanceUID),
                              str(context.abstract_syntax))
            refusal = judge_command(command) or spool.refusal or (NO_DATA_SET if spool.part is None else None)
            if refusal is None:
                refusal = self._keep(assoc.session, command, str(context.transfer_syntax[0]), spool)
            elif spool.error is not None:
                event(log, "data set cannot be written", logging.ERROR, spool.error)
        except Exception as error:
            event(log, "instance cannot be kept", logging.ERROR, error)
            refusal = judge_error(error)
        finally:
            spool.discard()
        if refusal is None:
            return Status.SUCCESS, ""
        self._audit_refusal(assoc.session, refusal, uid_text(request.AffectedSOPInstanceUID))
        return refusal.status, refusal.comment

    def _keep(self, session: Session, command: Command, syntax: str, spool: Spool) -> Refusal | None:
        """Makes a complete data set durable and known; what it is refused for, None when the answer is SUCCESS."""
        with spool.part.path.open("rb") as file:
            file.seek(spool.meta_bytes)
            header = scan(file, syntax)
        refusal = judge_header(command, header)
        if refusal is not None or header is None:
            return refusal
        header = with_stand_ins(header)
        with self._locks[zlib.crc32(command.sop_uid.encode("utf-8", "replace")) % STRIPES]:
            duplicate = self._admit(session, header, syntax, spool)
        session.count(header.study_uid, header.series_uid, spool.size, duplicate)
        return None

    def _admit(self, session: Session, header: Header, syntax: str, spool: Spool) -> bool:
        """Durable file, then the row in one transaction; whether the identical instance was here already."""
        with self._engine.connect().execution_options(readonly=True) as conn:
            versions = conn.execute(sa.select(instance.c.path, instance.c.digest, series.c.study_uid, series.c.series_uid).join(
                series, series.c.id == instance.c.series_id).where(instance.c.sop_uid == header.sop_uid)).all()
        again = bool(versions)
        for version in versions:
            if (version.digest, version.study_uid, version.series_uid) == (spool.digest, header.study_uid, header.series_uid):
                if self._store.path(version.path).is_file():
                    return True
                again = "-" in Path(version.path).name  # the file was lost: put it back under the name that the row has
        relative = spool.part.commit(header.study_uid, header.series_uid, header.sop_uid, spool.digest, again)
        spool.part = None
        with self._engine.begin() as conn:
            known = known_results(conn, self._device_uid)
            admission = index.admit(conn, received_instance(
                header, transfer_syntax=syntax, digest=spool.digest, size=spool.size, path=relative, calling_ae=session.calling_ae,
                association_id=session.id, own=own_result(header, known)))
        return admission.kind == "duplicate"

    def _free(self) -> int:
        """Free bytes where objects and, if it is a file, the database lie."""
        free = self._store.free_bytes()
        if self._engine.url.get_backend_name() == "sqlite":
            stat = os.statvfs(Path(self._engine.url.database or ".").parent)
            free = min(free, stat.f_bavail * stat.f_frsize)
        return free

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

    def _audit_rejection(self, rejection: Rejection, calling: str, called: str, peer: str) -> None:
        """An event for each rejection; the same one again within a minute is counted into the next event."""
        key, now = (calling, peer, rejection.code), time.monotonic()
        with self._rejected_lock:
            last, earlier = self._rejected.get(key, (float("-inf"), 0))
            if now - last < QUIET_REJECTIONS:
                self._rejected[key] = (last, earlier + 1)
                return
            if len(self._rejected) >= MAX_PEERS:
                self._rejected.clear()
            self._rejected[key] = (now, 0)
        event(log, "association rejected", logging.WARNING, code=rejection.code, why=rejection.text, calling=calling, called=called,
              peer=peer)
        try:
            with self._engine.begin() as conn:
                self._audit.append(conn, "association-rejected", ACTOR, code=rejection.code, reason=rejection.text, calling_ae=calling,
                                   called_ae=called, peer=peer, earlier=earlier)
        except sa.exc.SQLAlchemyError as error:
            event(log, "rejection cannot be recorded", logging.ERROR, error)

