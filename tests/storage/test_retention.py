"""What retention may delete: the pure decision, and the rows that it is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import retention
from storage.index import ReceivedInstance, admit
from storage.objects import ObjectStore
from storage.retention import Because, Candidate, Needed, Rule, needed, wanted
from storage.schema import delivery, instance, result_object, revision, series

IDLE = Candidate(1, "1.2", "1.2.3", "complete", "2026-01-01T00:00:00.000000Z")
DAY = 86400.0
NO_REPORT_DUE = revision.c.outcome == "never"


@pytest.mark.parametrize("change, why", [
    ({}, None), ({"state": "open"}, Needed.OPEN), ({"state": "parked"}, Needed.PARKED), ({"spoken": True}, Needed.SPOKEN),
    ({"unnamed": True}, Needed.UNNAMED), ({"unended": True}, Needed.UNENDED), ({"unreported": True}, Needed.UNREPORTED),
    ({"undelivered": True}, Needed.UNDELIVERED)])
def test_what_is_needed_stays(change: dict[str, object], why: Needed | None) -> None:
    assert needed(replace(IDLE, **change)) == why


@pytest.mark.parametrize("now, free, rule, because", [
    ("2026-01-30T23:59:59Z", 0, Rule(30 * DAY), None),
    ("2026-01-31T00:00:00Z", 10**12, Rule(30 * DAY), Because.AGE),
    ("2026-01-01T00:59:59Z", 0, Rule(keep_free=1), None),  # younger than LEAST_AGE, however full the disk
    ("2026-01-01T01:00:00Z", 0, Rule(keep_free=1), Because.SPACE),
    ("2026-01-01T01:00:00Z", 1, Rule(keep_free=1), None),
    ("2026-12-31T00:00:00Z", 0, Rule(), None),  # nothing is configured, nothing is deleted
    ("2025-12-31T00:00:00Z", 0, Rule(DAY, 10**12), None)])  # the clock went back
def test_when_it_is_deleted(now: str, free: int, rule: Rule, because: Because | None) -> None:
    assert wanted(IDLE, now, free, rule) == because


def put(engine: sa.Engine, number: int, at: str) -> int:
    with engine.begin() as conn:
        found = admit(conn, ReceivedInstance("1.2", f"1.2.{number}", f"1.2.{number}.1", "1.2.840", "1.2.840.10008.1.2.1", "d" * 64, 100,
                                             f"aa/bb/{number}/x.dcm", received_at=at))
        conn.execute(series.update().where(series.c.id == found.series_id).values(state="complete"))
        conn.execute(revision.insert().values(series_id=found.series_id, number=1, changes=1, completed_at=at, completed_by="quiet", instances=1,
                                              content_digest="", outcome="assessed", report_seconds=0.1))
    return found.series_id


def seen(engine: sa.Engine, **more: object) -> list[Candidate]:
    with engine.connect() as conn:
        return retention.candidates(conn, NO_REPORT_DUE, **more)


def test_candidates_come_oldest_first_and_page(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    days = (3, 1, 2)
    ids = {day: put(engine, day, f"2026-01-0{day}T00:00:00.000000Z") for day in days}
    assert [c.id for c in seen(engine)] == [ids[1], ids[2], ids[3]] and all(needed(c) is None for c in seen(engine))
    monkeypatch.setattr(retention, "BATCH", 1)
    first = seen(engine)[0]
    assert [c.id for c in seen(engine, after=(first.last_at, first.id))] == [ids[2]]


def test_candidates_tell_what_has_no_end(engine: sa.Engine) -> None:
    number = put(engine, 1, "2026-01-01T00:00:00.000000Z")

    def now() -> Needed | None:
        return needed(seen(engine, series_id=number)[0])

    def write(statement: sa.Executable) -> None:
        with engine.begin() as conn:
            conn.execute(statement)

    write(delivery.insert().values(revision_id=1, kind="sr", destination="pacs", state="pending", made_at="x"))
    assert now() == Needed.UNDELIVERED
    write(delivery.update().values(state="delivered", ended_at="y"))
    assert now() is None
    write(revision.update().values(outcome=None))
    assert now() == Needed.UNENDED
    write(revision.update().values(outcome="never"))
    assert now() == Needed.UNREPORTED
    write(revision.update().values(outcome="assessed"))
    write(instance.update().values(arrival="unclassified"))
    assert now() == Needed.UNNAMED
    write(instance.update().values(arrival="new"))
    write(series.update().values(operator_word="rescore"))
    assert now() == Needed.SPOKEN


@pytest.mark.parametrize("states, goes", [([], False), (["delivered"], True), (["delivered", "refused"], False), (["dropped"], False),
                                          (["committed", "delivered"], True)])
def test_a_picture_goes_once_every_destination_has_it(engine: sa.Engine, states: list[str], goes: bool) -> None:
    number = put(engine, 1, "2026-01-01T00:00:00.000000Z")
    with engine.begin() as conn:
        for kind in ("sr", "sc"):
            conn.execute(result_object.insert().values(revision_id=1, kind=kind, sop_class_uid=kind, sop_uid=kind, series_uid="9", study_uid="1.2",
                                                       path=f"{kind}.dcm", digest="", bytes=7, made_at="x"))
        for k, state in enumerate(states):
            conn.execute(delivery.insert().values(revision_id=1, kind="sc", destination=str(k), state=state, made_at="x", ended_at="y"))
        gone = retention.let_go(conn, number, "2026-02-01T00:00:00.000000Z")
    assert (gone.instances, gone.captures, gone.bytes) == (1, ("sc.dcm",) if goes else (), 107 if goes else 100)
    assert seen(engine) == []
    with engine.begin() as conn:
        assert retention.marked(conn, number) == replace(gone, instances=0, bytes=0)


def test_a_deletion_that_was_begun_is_known_in_the_same_boot(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.begin() as conn:
        assert retention.begun(conn, "w") is None
        retention.begin(conn, "w", 7)
        assert retention.begun(conn, "w") == 7 and retention.begun(conn, "other") is None
        monkeypatch.setattr(retention.clock, "boot_id", lambda: "another-boot")
        assert retention.begun(conn, "w") is None  # the last commits may be gone, what is there stays
        retention.begin(conn, "w", 8)
        assert retention.begun(conn, "w") == 8
        retention.finish(conn, "w")
        assert retention.begun(conn, "w") is None


def test_what_came_again_meanwhile_is_not_deleted(engine: sa.Engine, tmp_path: Path) -> None:
    """Reception takes the mark away in a writing transaction of its own; the file of a row without mark stays."""
    number, store = put(engine, 1, "2026-01-01T00:00:00.000000Z"), ObjectStore(tmp_path / "objects")
    store.path("aa/bb/1").mkdir(parents=True)
    store.path("aa/bb/1/x.dcm").write_bytes(b"x")
    again = ReceivedInstance("1.2", "1.2.1", "1.2.1.1", "1.2.840", "1.2.840.10008.1.2.1", "d" * 64, 100, "aa/bb/1/x.dcm")
    with engine.begin() as conn:
        retention.let_go(conn, number, "2026-02-01T00:00:00.000000Z")
        before = conn.execute(sa.select(series.c.changes, series.c.state)).one()
    with engine.begin() as conn:
        assert admit(conn, again).kind == "restored"
        assert conn.execute(sa.select(series.c.changes, series.c.state)).one() == before  # nothing new: no revision comes of it
    assert seen(engine)[0].last_at > "2026-02"  # and it ages anew
    retention.delete_files(engine, store, number)
    assert store.path("aa/bb/1/x.dcm").is_file()
    before = seen(engine)[0].last_at
    with engine.begin() as conn:
        assert admit(conn, again).kind == "duplicate"
    assert seen(engine)[0].last_at == before
    with engine.begin() as conn:
        retention.let_go(conn, number, "2026-03-01T00:00:00.000000Z")
    retention.delete_files(engine, store, number)
    assert not store.path("aa/bb").exists() and store.path("aa").exists()
