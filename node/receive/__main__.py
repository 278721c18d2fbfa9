"""`python -m node.receive`: the receiver process. Makes files and rows agree, listens, says so, drains on SIGTERM."""

from __future__ import annotations

if __name__ == "__main__":
    from node.receive import lean  # noqa: F401  before anything imports pydicom

import argparse
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import sqlalchemy as sa

from node.config import Config, ConfigError, load
from node.log import configure, event, tell_unexpected
from node.receive.certificate_watch import CertificateWatch
from node.receive.indexing import header_reader
from node.receive.scp import Receiver
from node.receive.session import ACTOR
from node.receive.tls import LOOK_SECONDS, ListenerTls, TlsError
from storage import clock, index
from storage.audit_log import AuditKeyError, AuditLog
from storage.database import DatabaseTooNew, migrate, node_id, open_engine
from storage.objects import ObjectStore
from storage.reconcile import reconcile
from storage.schema import association, instance, series

log = logging.getLogger("node.receive")

READY = "receiver.ready"
"""File in the data folder while the receiver listens: {"port", "pid", "at"}."""
FAILED, WRONG_USE = 1, 2
SWITCH_SECONDS = 0.0005
"""Between two threads that want to run, a tenth of Python's own: a peer that waits for its answer waits for this, times those that keep us busy."""


class CannotStart(Exception):
    """One line that says why and what to do; `code` is the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def main(argv: list[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT; 0, or 1 for a start that another try may mend, 2 for one that it will not."""
    parser = argparse.ArgumentParser(prog="python -m node.receive", description="The receiver process of the node.")
    parser.add_argument("-c", "--config", type=Path, default=None)
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    try:
        config = load(arguments.config)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return WRONG_USE
    configure(config.node.log_level, "receiver")
    tell_unexpected(log)
    try:
        return run(config)
    except CannotStart as error:
        event(log, str(error), logging.ERROR)
        return error.code
    except sa.exc.SQLAlchemyError as error:
        event(log, "the database cannot be used; check the key database, its disk and its rights", logging.ERROR, error)
        return FAILED


def run(config: Config) -> int:
    """The receiver's life."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ready = config.data_folder / READY
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        tls = ListenerTls(config)
    except TlsError as error:
        raise CannotStart(str(error), WRONG_USE) from None
    engine, store, audit = open_storage(config)
    watch = CertificateWatch(config, engine, audit)
    tls.tell = watch.told
    start_id = uuid.uuid4().hex
    close_lost(engine, audit, start_id)
    device_uid = own_device_uid(engine)
    found = reconcile(engine, store, header_reader(engine, device_uid), audit)
    event(log, "files and rows agree", adopted=len(found.adopted), lost=found.lost_count, unreadable=len(found.unreadable),
          parts=found.parts)
    receiver = Receiver(config, engine, store, audit, start_id, device_uid, tls)
    listen(receiver, config)
    try:
        with engine.begin() as conn:
            audit.append(conn, "application-start", ACTOR, start_id=start_id, port=receiver.port, configuration=config.digest)
        write_ready(ready, receiver.port)
        event(log, "listening", port=receiver.port, ae_title=config.receive.ae_title, path=config.receive.path, tls=bool(config.receive.tls.certificate))
        has_certificates = bool(config.receive.tls.certificate) or any(d.tls.trust for d in config.destinations)
        while not stop.is_set():
            if has_certificates:
                tls.context()
                watch.warn(time.time())
            stop.wait(LOOK_SECONDS if has_certificates else None)
    finally:
        ready.unlink(missing_ok=True)
        receiver.stop()
    with engine.begin() as conn:
        audit.append(conn, "application-stop", ACTOR, start_id=start_id)
    try:
        audit.anchor()
    except OSError as error:
        event(log, "the audit log cannot be anchored; check storage.audit_anchor", logging.ERROR, error)
    event(log, "stopped")
    return 0


def open_storage(config: Config) -> tuple[sa.Engine, ObjectStore, AuditLog]:
    """Database at this program's version, object store and audit log, as the configuration says."""
    try:
        config.data_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = open_engine(config.database_target, "FULL" if config.storage.durability == "full" else "NORMAL")
        migrate(engine)
        store = ObjectStore(config.data_folder / "objects", config.storage.durability)
        return engine, store, AuditLog(engine, config.audit_key_path, config.audit_anchor_path)
    except OSError as error:
        raise CannotStart(f"node.data: {config.data_folder} cannot be used ({error.strerror}), write a folder that the node may write") \
            from None
    except (DatabaseTooNew, AuditKeyError) as error:
        raise CannotStart(str(error), WRONG_USE) from None


def close_lost(engine: sa.Engine, audit: AuditLog, start_id: str) -> None:
    """Associations that a killed receiver left open: their counts come from the rows of what they brought."""
    count, size = sa.func.count(instance.c.id), sa.func.sum(instance.c.bytes)
    with engine.begin() as conn:
        left = conn.execute(sa.select(
            association.c.id, association.c.calling_ae, association.c.peer, series.c.study_uid, series.c.series_uid, count.label("n"),
            size.label("bytes")).join(instance, instance.c.association_id == association.c.id).join(
            series, series.c.id == instance.c.series_id).where(association.c.closed_at.is_(None), association.c.start_id != start_id)
            .group_by(association.c.id, association.c.calling_ae, association.c.peer, series.c.study_uid, series.c.series_uid)).all()
        lost = index.close_lost_associations(conn, start_id)
        for row in left:
            audit.append(conn, "received", ACTOR, study_uid=row.study_uid, series_uid=row.series_uid, instances=row.n, bytes=int(row.bytes),
                         association=row.id, calling_ae=row.calling_ae, peer=row.peer, how="lost")
    if lost:
        event(log, "associations of a receiver that was killed count as closed", associations=lost)


def own_device_uid(engine: sa.Engine) -> str:
    """The Device UID that our results carry in Contributing Equipment (PS3.3 C.12.1.1.5), "" where none was made yet."""
    try:
        from node.report.identifiers import device_uid
    except ImportError:
        return ""
    return str(device_uid(node_id(engine)))


def listen(receiver: Receiver, config: Config) -> None:
    """Starts listening, or says in one line why it cannot."""
    host, port = config.receive.host, config.receive.port
    try:
        receiver.start()
    except OSError as error:
        what = {errno.EADDRINUSE: f"port {port} is in use, stop the other program or write another receive.port",
                errno.EACCES: f"port {port} needs rights that the node does not have, write a receive.port above 1023",
                errno.EADDRNOTAVAIL: f"{host} is no address of this machine, write another receive.host"}
        raise CannotStart(what.get(error.errno or 0, f"cannot listen on {host}:{port} ({error.strerror or error}), "
                                                     "write another receive.host")) from None


def write_ready(path: Path, port: int) -> None:
    """The ready file, complete or not there at all; CannotStart where the disk takes nothing more."""
    part = path.with_suffix(".new")
    try:
        part.write_text(json.dumps({"port": port, "pid": os.getpid(), "at": clock.utc_now()}) + "\n", encoding="ascii")
        part.replace(path)
    except OSError as error:
        raise CannotStart(f"{path} cannot be written ({error.strerror}), make room on that disk or give the node the right to write") from None


if __name__ == "__main__":
    sys.exit(main())
