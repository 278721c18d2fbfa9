"""Rows of reception and completion: associations, instances, series, frozen revisions (DESIGN sections 4 and 5).

Every function runs inside the caller's transaction (`conn`), so that a fact and the work that it causes are one commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from storage import clock
from storage.prepared import Prepared
from storage.schema import association, instance, result_object, result_series, revision, revision_instance, series

FACTS = ("modality", "manufacturer", "manufacturer_model", "station", "device_serial", "protocol", "description", "body_part",
         "series_number", "series_date")
"""Columns of `series` that come from headers; the first instance that has a value fills it."""


@dataclass(frozen=True)
class ReceivedInstance:
    """What reception knows of an instance that lies, or will lie, in the object store. `facts` has keys of FACTS."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax: str
    digest: str
    bytes: int
    path: str
    calling_ae: str = ""
    association_id: int | None = None
    instance_number: int | None = None
    number_of_frames: int | None = None
    images_in_acquisition: int | None = None
    acquisition_number: int | None = None
    series_instances: int | None = None
    position_mm: float | None = None
    own: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    received_at: str = ""
    """"" = now."""


@dataclass(frozen=True)
class Admission:
    """kind: new, unclassified (SOP Instance UID known with other bytes or elsewhere), duplicate (identical: nothing was written) or restored
    (identical to one whose file retention had deleted)."""

    kind: str
    series_id: int
    instance_id: int


def open_association(conn: sa.Connection, start_id: str, calling_ae: str, called_ae: str, peer: str) -> int:
    """A row for an accepted association; its id."""
    row = association.insert().values(start_id=start_id, calling_ae=calling_ae, called_ae=called_ae, peer=peer, opened_at=clock.utc_now(),
                                      instances=0, bytes=0)
    return int(conn.execute(row).inserted_primary_key[0])


def close_association(conn: sa.Connection, association_id: int, how: str, instances: int, size: int) -> None:
    """how: released, aborted or lost."""
    conn.execute(association.update().where(association.c.id == association_id, association.c.closed_at.is_(None))
                 .values(closed_at=clock.utc_now(), how=how, instances=instances, bytes=size))


def close_lost_associations(conn: sa.Connection, start_id: str) -> int:
    """Associations of receivers other than `start_id` count as closed; how many were open."""
    done = conn.execute(association.update().where(association.c.closed_at.is_(None), association.c.start_id != start_id)
                        .values(closed_at=clock.utc_now(), how="lost"))
    return int(done.rowcount)


def known_version(conn: sa.Connection, sop_uid: str, digest: str, study_uid: str, series_uid: str) -> bool:
    """Whether these very bytes are indexed under this SOP, series and study already."""
    return any((v.digest, v.study_uid, v.series_uid) == (digest, study_uid, series_uid) for v in versions(conn, sop_uid))


class Version(NamedTuple):
    """An indexed version of a SOP Instance UID."""

    id: int
    path: str
    digest: str
    series_id: int
    study_uid: str
    series_uid: str
    deleted_at: str | None
    """When retention let the file go, None while it is here."""


class _Head(NamedTuple):
    """What `admit` needs of a series: its id, who sent last, and the facts that it has."""

    id: int
    calling_ae: str
    facts: tuple[Any, ...]


def _inserting(table: sa.Table, *names: str) -> Any:
    return table.insert().values({name: sa.bindparam(name) for name in names}).returning(table.c.id)


_VERSIONS = Prepared(sa.select(instance.c.id, instance.c.path, instance.c.digest, instance.c.series_id, series.c.study_uid, series.c.series_uid,
                               instance.c.deleted_at).join(series, series.c.id == instance.c.series_id).where(instance.c.sop_uid == sa.bindparam("sop_uid")))
_SERIES = Prepared(sa.select(series.c.id, series.c.calling_ae, *(series.c[name] for name in FACTS)).where(
    series.c.study_uid == sa.bindparam("study_uid"), series.c.series_uid == sa.bindparam("series_uid")))
_NEW_SERIES = series.insert()
_NEW_INSTANCE = Prepared(_inserting(
    instance, "series_id", "association_id", "sop_uid", "sop_class_uid", "transfer_syntax", "digest", "bytes", "path", "current", "arrival",
    "calling_ae", "received_at", "received_mono", "instance_number", "number_of_frames", "images_in_acquisition", "acquisition_number",
    "series_instances", "position_mm", "own"))
_GROWN = Prepared(series.update().where(series.c.id == sa.bindparam("grown")).values(
    changes=series.c.changes + 1, state=sa.case((series.c.state == "parked", "parked"), else_="open"), last_at=sa.bindparam("at"),
    last_mono=sa.bindparam("mono"), boot_id=sa.bindparam("boot"), last_association_id=sa.bindparam("by"),
    first_mono=sa.case(((series.c.boot_id == sa.bindparam("boot")) & (series.c.state == "open"), series.c.first_mono),
                       else_=sa.bindparam("mono")),
    calling_ae=sa.bindparam("caller"), emptied_at=None))
_RESULT_OBJECT = Prepared(sa.select(result_object.c.id).where(result_object.c.sop_uid == sa.bindparam("sop_uid")).limit(1))
_RESULT_SERIES = Prepared(sa.select(result_series.c.series_uid).where(result_series.c.series_uid == sa.bindparam("series_uid")).limit(1))


def versions(conn: sa.Connection, sop_uid: str) -> list[Version]:
    """All that is indexed under this SOP Instance UID, in any series."""
    return [Version(*row) for row in _VERSIONS.rows(conn, sop_uid=sop_uid)]


def known_sop(conn: sa.Connection, sop_uid: str) -> bool:
    """Whether any version of this SOP Instance UID is indexed."""
    return bool(versions(conn, sop_uid))


def admit(conn: sa.Connection, new: ReceivedInstance) -> Admission:
    """Index an instance whose file is durable. A series opens and its `changes` grow unless it is a duplicate.

    A duplicate of what retention had deleted is here again and ages anew; it says nothing new, so no revision comes of it.
    """
    mono, boot, now = clock.monotonic(), clock.boot_id(), new.received_at or clock.utc_now()
    head = _series_head(conn, new, mono, boot, now)
    known = versions(conn, new.sop_uid)
    for version in known:
        if (version.digest, version.series_id) == (new.digest, head.id):
            if version.deleted_at is None:
                return Admission("duplicate", head.id, version.id)
            restore(conn, [version.id])
            conn.execute(series.update().where(series.c.id == head.id).values(last_at=now))
            return Admission("restored", head.id, version.id)
    kind = "unclassified" if known else "new"
    [(instance_id,)] = _NEW_INSTANCE.rows(
        conn, series_id=head.id, association_id=new.association_id, sop_uid=new.sop_uid, sop_class_uid=new.sop_class_uid,
        transfer_syntax=new.transfer_syntax, digest=new.digest, bytes=new.bytes, path=new.path, current=int(kind == "new"), arrival=kind,
        calling_ae=new.calling_ae, received_at=now, received_mono=mono, instance_number=new.instance_number,
        number_of_frames=new.number_of_frames, images_in_acquisition=new.images_in_acquisition, acquisition_number=new.acquisition_number,
        series_instances=new.series_instances, position_mm=new.position_mm, own=int(new.own))
    _GROWN.rows(conn, grown=head.id, at=now, mono=mono, boot=boot, by=new.association_id, caller=new.calling_ae or head.calling_ae)
    empty = {name: new.facts[name] for name, value in zip(FACTS, head.facts, strict=True)
             if value in (None, "") and new.facts.get(name) not in (None, "")}
    if empty:
        conn.execute(series.update().where(series.c.id == head.id).values(empty))
    return Admission(kind, head.id, int(instance_id))


def restore(conn: sa.Connection, instance_ids: Sequence[int]) -> None:
    """The files of these rows are here again, or still."""
    of_series = sa.select(instance.c.series_id).where(instance.c.id.in_(instance_ids))
    conn.execute(series.update().where(series.c.id.in_(of_series)).values(emptied_at=None))
    conn.execute(instance.update().where(instance.c.id.in_(instance_ids)).values(deleted_at=None))


def _series_head(conn: sa.Connection, new: ReceivedInstance, mono: float, boot: str, now: str) -> _Head:
    wanted = {"study_uid": new.study_uid, "series_uid": new.series_uid}
    if not (found := _SERIES.rows(conn, **wanted)):
        conn.execute(_NEW_SERIES, dict(wanted, first_at=now, last_at=now, first_mono=mono, last_mono=mono, boot_id=boot,
                                       calling_ae=new.calling_ae, state="open", revision=0, changes=0))
        found = _SERIES.rows(conn, **wanted)
    number, calling_ae, *facts = found[0]
    return _Head(number, calling_ae, tuple(facts))


def is_result_object(conn: sa.Connection, sop_uid: str) -> bool:
    """Whether this node rendered that SOP instance."""
    return bool(_RESULT_OBJECT.rows(conn, sop_uid=sop_uid))


def is_result_series(conn: sa.Connection, series_uid: str) -> bool:
    """Whether this node derived that Series Instance UID."""
    return bool(_RESULT_SERIES.rows(conn, series_uid=series_uid))


def open_series(conn: sa.Connection) -> Sequence[Any]:
    """Rows of series that wait for completion, or for which an operator has spoken."""
    return conn.execute(sa.select(series).where(sa.or_(series.c.state == "open", series.c.operator_word.is_not(None)))
                        .order_by(series.c.id)).all()


def current_instances(conn: sa.Connection, series_id: int) -> Sequence[Any]:
    """Rows of the versions that an assessment would see now."""
    return conn.execute(sa.select(instance).where(instance.c.series_id == series_id, instance.c.current == 1).order_by(instance.c.id)).all()


def unclassified(conn: sa.Connection, series_id: int) -> Sequence[Any]:
    """Second versions of known SOP Instance UIDs that nobody has named yet, oldest first."""
    return conn.execute(sa.select(instance).where(instance.c.series_id == series_id, instance.c.arrival == "unclassified")
                        .order_by(instance.c.id)).all()


def first_version(conn: sa.Connection, sop_uid: str, before_id: int) -> Any | None:
    """The current version of a SOP Instance UID among those received before `before_id`, else the oldest; with series and study UID."""
    return conn.execute(sa.select(instance, series.c.series_uid, series.c.study_uid).join(series, series.c.id == instance.c.series_id)
                        .where(instance.c.sop_uid == sop_uid, instance.c.id < before_id)
                        .order_by(instance.c.current.desc(), instance.c.id).limit(1)).first()


def set_arrival(conn: sa.Connection, instance_id: int, arrival: str, make_current: bool = False) -> None:
    """Name what a second version is: transcoded, update or conflict. `make_current` puts it in place of its siblings in the series."""
    row = conn.execute(sa.select(instance.c.sop_uid, instance.c.series_id).where(instance.c.id == instance_id)).one()
    if make_current:
        conn.execute(instance.update().where(instance.c.sop_uid == row.sop_uid, instance.c.series_id == row.series_id).values(current=0))
    conn.execute(instance.update().where(instance.c.id == instance_id).values(arrival=arrival, current=int(make_current)))


def open_associations(conn: sa.Connection, series_id: int) -> set[int]:
    """Ids of open associations that have brought an instance of the series."""
    return set(conn.execute(sa.select(association.c.id).join(instance, instance.c.association_id == association.c.id)
                            .where(instance.c.series_id == series_id, association.c.closed_at.is_(None)).distinct()).scalars())


def content_digest(versions: Sequence[tuple[str, str]]) -> str:
    """sha256 hex over the sorted pairs (SOP Instance UID, data set digest): same content, same text; pure."""
    joined = "\n".join(f"{uid}\0{digest}" for uid, digest in sorted(versions))
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()


def freeze_revision(conn: sa.Connection, series_id: int, completed_by: str, missing: int = 0, purpose: str = "score",
                    expected_changes: int | None = None) -> int | None:
    """Freeze the current versions as the next revision and close the series.

    The revision's id; None when nothing is current, or when the series changed since the caller looked (`expected_changes`).
    """
    head = conn.execute(sa.select(series).where(series.c.id == series_id)).one()
    if expected_changes is not None and head.changes != expected_changes:
        return None
    rows = current_instances(conn, series_id)
    if not rows:
        conn.execute(series.update().where(series.c.id == series_id).values(state="complete", operator_word=None))
        return None
    revision_id = int(conn.execute(revision.insert().values(
        series_id=series_id, number=head.revision + 1, changes=head.changes, completed_at=clock.utc_now(), completed_by=completed_by,
        purpose=purpose, instances=len(rows), missing=missing, modality=head.modality,
        content_digest=content_digest([(r.sop_uid, r.digest) for r in rows]))).inserted_primary_key[0])
    conn.execute(revision_instance.insert(), [{"revision_id": revision_id, "instance_id": r.id} for r in rows])
    conn.execute(series.update().where(series.c.id == series_id).values(state="complete", revision=head.revision + 1, operator_word=None))
    return revision_id


def revision_files(conn: sa.Connection, revision_id: int) -> Sequence[Any]:
    """Rows of the instances of a revision, in order of reception."""
    return conn.execute(sa.select(instance).join(revision_instance, revision_instance.c.instance_id == instance.c.id)
                        .where(revision_instance.c.revision_id == revision_id).order_by(instance.c.id)).all()


def newest_instance(conn: sa.Connection, revision_id: int) -> int | None:
    """Id of the instance of a revision that was received last."""
    return conn.execute(sa.select(sa.func.max(revision_instance.c.instance_id)).where(
        revision_instance.c.revision_id == revision_id)).scalar()


def revisions_since(conn: sa.Connection, series_id: int, since: str) -> int:
    """How many revisions the series got automatically since the UTC time `since` (the storm rule)."""
    return int(conn.execute(sa.select(sa.func.count()).where(revision.c.series_id == series_id, revision.c.completed_at >= since,
                                                             revision.c.completed_by != "operator")).scalar_one())


def park(conn: sa.Connection, series_id: int) -> None:
    """No more automatic revisions until an operator speaks."""
    conn.execute(series.update().where(series.c.id == series_id).values(state="parked"))


def operator_word(conn: sa.Connection, series_uid: str, word: str, text: str | None = None) -> int:
    """complete, rescore or retract, for each series with that UID; how many there are."""
    return int(conn.execute(series.update().where(series.c.series_uid == series_uid).values(operator_word=word, operator_text=text)).rowcount)
