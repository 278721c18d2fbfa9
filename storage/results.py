"""Rows of results: rendered objects, result series whose attributes are fixed once, and the table that physicists ask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from storage import clock
from storage.schema import result_object, result_series, revision

RESULT_COLUMNS = ("ended_at", "modality", "region", "station", "manufacturer_model", "protocol", "description", "end", "reason", "score",
                  "low", "high", "verdict", "noise", "sharpness", "artefact", "revision", "instances", "missing", "series_uid", "study_uid",
                  "model_profile", "model_version", "model_sha256", "total_seconds", "retracted_at")
"""Columns of the view `results` that the command prints; the view has more."""


def add_object(conn: sa.Connection, *, revision_id: int, kind: str, sop_class_uid: str, sop_uid: str, series_uid: str, study_uid: str,
               path: str, digest: str, bytes: int, made_at: str = "") -> int:
    """A rendered object that lies at `path`; its id. The same SOP Instance UID again is the same object."""
    known = conn.execute(sa.select(result_object.c.id).where(result_object.c.sop_uid == sop_uid)).scalar()
    if known is not None:
        return int(known)
    return int(conn.execute(result_object.insert().values(
        revision_id=revision_id, kind=kind, sop_class_uid=sop_class_uid, sop_uid=sop_uid, series_uid=series_uid, study_uid=study_uid,
        path=path, digest=digest, bytes=bytes, made_at=made_at or clock.utc_now())).inserted_primary_key[0])


def fixed_series(conn: sa.Connection, series_uid: str, study_uid: str, kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Series-level attributes of a result series: those of its first instance, whatever a later one would say."""
    known = conn.execute(sa.select(result_series.c.attributes).where(result_series.c.series_uid == series_uid)).scalar()
    if known is None:
        known = json.dumps(dict(attributes), sort_keys=True)
        conn.execute(result_series.insert().values(series_uid=series_uid, study_uid=study_uid, kind=kind, attributes=known,
                                                   next_instance_number=1))
    return dict(json.loads(known))


def next_instance_number(conn: sa.Connection, series_uid: str) -> int:
    """The next Instance Number of a result series, taken for good."""
    number = int(conn.execute(sa.select(result_series.c.next_instance_number).where(result_series.c.series_uid == series_uid)).scalar_one())
    conn.execute(result_series.update().where(result_series.c.series_uid == series_uid).values(next_instance_number=number + 1))
    return number


def continue_series(conn: sa.Connection, series_uid: str, study_uid: str, kind: str, attributes: Mapping[str, Any], number: int) -> None:
    """An object with this Instance Number was rendered into the series, whose rows may have been lost since: the next one comes behind it."""
    fixed_series(conn, series_uid, study_uid, kind, attributes)
    conn.execute(result_series.update().where(result_series.c.series_uid == series_uid, result_series.c.next_instance_number <= number)
                 .values(next_instance_number=number + 1))


def objects_of_series(conn: sa.Connection, series_id: int, before_number: int, kind: str) -> Sequence[Any]:
    """Result objects of that kind of the revisions of a source series before `before_number`, newest revision first."""
    return conn.execute(sa.select(result_object, revision.c.number).join(revision, revision.c.id == result_object.c.revision_id)
                        .where(revision.c.series_id == series_id, revision.c.number < before_number, result_object.c.kind == kind)
                        .order_by(revision.c.number.desc(), result_object.c.id)).all()


def result_rows(engine: sa.Engine, *, since: str | None = None, modality: str | None = None, station: str | None = None,
                verdict: str | None = None) -> list[dict[str, Any]]:
    """Rows of the view `results`, oldest first, with RESULT_COLUMNS; `since` is the beginning of an ISO 8601 time."""
    clauses, values = ["ended_at is not null"], {}
    for name, operator, value in (("ended_at", ">=", since), ("modality", "=", modality), ("station", "=", station), ("verdict", "=", verdict)):
        if value:
            clauses.append(f"{name} {operator} :{name}")
            values[name] = value
    columns = ", ".join(f'"{name}"' for name in RESULT_COLUMNS)
    query = sa.text(f"select {columns} from results where {' and '.join(clauses)} order by ended_at, revision_id")
    with engine.execution_options(readonly=True).connect() as conn:
        return [dict(row._mapping) for row in conn.execute(query, values)]
