"""Copies of the database by name and number, and what else of the data folder must follow when one was put back."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from node.log import event
from storage import backup, clock
from storage.audit_log import AuditLog
from storage.objects import ObjectStore
from storage.schema import result_object

log = logging.getLogger("node.backups")

NAME = re.compile(r"node-\d{8}T\d{6}Z\.db")
"""Names of the scheduled copies; files of other names in the folder are nobody's business here."""
ATTRIBUTES = ("SeriesDate", "SeriesTime", "SeriesNumber", "SeriesDescription", "BodyPartExamined")


def name_for(now: str) -> str:
    """Name of a copy made at the UTC time `now`; names sort by time."""
    digits = "".join(c for c in now if c.isdigit())
    return f"node-{digits[:8]}T{digits[8:14]}Z.db"


def make(config: Any, engine: sa.Engine, audit: AuditLog, target: Path, actor: str) -> backup.Copy:
    """A checked copy as `target`, told to the audit log. BackupError says in one line why not."""
    made = backup.back_up(Path(config.database_target), target, clock.utc_now())
    with engine.begin() as conn:
        audit.append(conn, "backup", actor, file=target.name, bytes=made.bytes, records=made.head[0] if made.head else 0)
    return made


def make_scheduled(config: Any, engine: sa.Engine, audit: AuditLog, actor: str) -> None:
    """A copy in `storage.backup`; then the oldest go, so that `storage.backup_keep` stay."""
    folder = config.backup_folder
    try:
        made = make(config, engine, audit, folder / name_for(clock.utc_now()), actor)
    except backup.BackupError as error:
        event(log, str(error), logging.ERROR)
        raise
    for name in backup.expired([p.name for p in folder.iterdir() if NAME.fullmatch(p.name)], config.storage.backup_keep):
        for path in (folder / name, folder / (name + backup.ANCHOR)):
            path.unlink(missing_ok=True)
    event(log, "backup made", file=made.path.name, bytes=made.bytes)


def follow(engine: sa.Engine, results: ObjectStore, pictures: Path, newest_revision: int) -> None:
    """After a restore: result series know what was rendered since the backup; pictures of revisions that no row knows go, their numbers come again."""
    for path in pictures.glob("*.npz*"):
        number = path.name.partition(".")[0]
        if number.isdigit() and int(number) > newest_revision:
            path.unlink(missing_ok=True)
    with engine.connect() as conn:
        known = set(conn.execute(sa.select(result_object.c.path)).scalars())
    unknown = [relative for relative in results.walk() if relative not in known]
    with engine.begin() as conn:
        for relative in results.in_order_of_reception(unknown):
            _continue_series(conn, results.path(relative))


def _continue_series(conn: sa.Connection, file: Path) -> None:
    """The series of a rendered object keeps the attributes that it was sent with, and its Instance Numbers go on behind it."""
    import pydicom

    try:
        ds = pydicom.dcmread(file, stop_before_pixels=True)
        uid, study, number = str(ds.SeriesInstanceUID), str(ds.StudyInstanceUID), int(ds.InstanceNumber)
        attributes = {k: int(v) if k == "SeriesNumber" else str(v) for k in ATTRIBUTES for v in [ds.get(k, "")]}
    except Exception as error:  # a file that is none of ours continues nothing
        event(log, "a file in the store of results cannot be read", logging.WARNING, error)
        return
    from storage.results import continue_series

    continue_series(conn, uid, study, "sr" if ds.Modality == "SR" else "sc", attributes, number)
