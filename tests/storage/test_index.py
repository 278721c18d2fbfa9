"""Rows of reception: what is new, what came before, revisions frozen once, series reopened, text that wants to be SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from storage import clock, index
from storage.index import ReceivedInstance, admit
from storage.schema import association, instance, revision, series

CT = "1.2.840.10008.5.1.4.1.1.2"


def received(sop: str = "1.1", digest: str = "a", study: str = "S", series_uid: str = "E", **more: Any) -> ReceivedInstance:
    return ReceivedInstance(study, series_uid, sop, CT, "1.2.840.10008.1.2.1", digest * 64, 10, f"{study}/{series_uid}/{sop}-{digest}", "SENDER",
                            **more)


def one(engine: sa.Engine, query: sa.Select[Any]) -> Any:
    with engine.connect() as conn:
        return conn.execute(query).one()


def put(engine: sa.Engine, *instances: ReceivedInstance) -> list[index.Admission]:
    with engine.begin() as conn:
        return [admit(conn, i) for i in instances]


def test_new_duplicate_unclassified(engine: sa.Engine) -> None:
    first, again, other = put(engine, received(), received(), received(digest="b"))
    assert (first.kind, again.kind, other.kind) == ("new", "duplicate", "unclassified")
    assert again.instance_id == first.instance_id and other.series_id == first.series_id
    with engine.connect() as conn:
        rows = conn.execute(sa.select(instance.c.arrival, instance.c.current).order_by(instance.c.id)).all()
        assert [tuple(r) for r in rows] == [("new", 1), ("unclassified", 0)]
        assert [r.sop_uid for r in index.current_instances(conn, first.series_id)] == ["1.1"]
        assert [r.id for r in index.unclassified(conn, first.series_id)] == [other.instance_id]
    assert one(engine, sa.select(series.c.changes)).changes == 2  # the duplicate changed nothing


def test_the_same_sop_uid_in_another_study_is_no_new_instance_of_it(engine: sa.Engine) -> None:
    here, there, bytes_too = put(engine, received(), received(study="T"), received(study="T", series_uid="F", digest="b"))
    assert [here.kind, there.kind, bytes_too.kind] == ["new", "unclassified", "unclassified"]
    assert len({here.series_id, there.series_id, bytes_too.series_id}) == 3
    with engine.connect() as conn:
        assert index.current_instances(conn, there.series_id) == []
        first = index.first_version(conn, "1.1", there.instance_id)
        assert (first.id, first.study_uid) == (here.instance_id, "S")
        assert index.known_version(conn, "1.1", "a" * 64, "T", "E") and not index.known_version(conn, "1.1", "b" * 64, "T", "E")


@pytest.mark.parametrize("arrival, current, left", [("update", True, ["b"]), ("transcoded", False, ["a"]), ("conflict", False, ["a"])])
def test_naming_a_second_version(engine: sa.Engine, arrival: str, current: bool, left: list[str]) -> None:
    _, second, _ = put(engine, received(), received(digest="b"), received("1.2"))
    with engine.begin() as conn:
        index.set_arrival(conn, second.instance_id, arrival, make_current=current)
    with engine.connect() as conn:
        rows = index.current_instances(conn, second.series_id)
        assert sorted((r.sop_uid, r.digest[0]) for r in rows) == [("1.1", left[0]), ("1.2", "a")]
        assert index.unclassified(conn, second.series_id) == []


def test_freezing_a_revision(engine: sa.Engine) -> None:
    series_id = put(engine, received("1.1"), received("1.2"), received("1.2", "b"))[0].series_id
    changes = one(engine, sa.select(series.c.changes)).changes
    with engine.begin() as conn:
        revision_id = index.freeze_revision(conn, series_id, "quiet", missing=3, expected_changes=changes)
        assert [r.sop_uid for r in index.revision_files(conn, revision_id)] == ["1.1", "1.2"]
    row = one(engine, sa.select(revision))
    assert (row.number, row.completed_by, row.instances, row.missing, row.outcome, row.purpose) == (1, "quiet", 2, 3, None, "score")
    assert row.content_digest == index.content_digest([("1.2", "a" * 64), ("1.1", "a" * 64)])
    assert one(engine, sa.select(series.c.state, series.c.revision)) == ("complete", 1)


def test_a_series_that_changed_while_somebody_looked_is_not_frozen(engine: sa.Engine) -> None:
    series_id = put(engine, received())[0].series_id
    put(engine, received("1.2"))
    with engine.begin() as conn:
        assert index.freeze_revision(conn, series_id, "quiet", expected_changes=1) is None
    assert one(engine, sa.select(series.c.state)).state == "open"
    assert one(engine, sa.select(sa.func.count()).select_from(revision))[0] == 0


def test_a_series_without_a_current_instance_has_no_revision(engine: sa.Engine) -> None:
    put(engine, received())
    series_id = put(engine, received(study="T"))[0].series_id
    with engine.begin() as conn:
        assert index.freeze_revision(conn, series_id, "quiet") is None
    assert one(engine, sa.select(series.c.state).where(series.c.id == series_id)).state == "complete"


def test_a_frozen_revision_keeps_its_instances(engine: sa.Engine) -> None:
    """An update that comes later makes another version current, for the next revision alone."""
    series_id = put(engine, received())[0].series_id
    with engine.begin() as conn:
        first = index.freeze_revision(conn, series_id, "quiet")
    second = put(engine, received(digest="b"))[0]
    with engine.begin() as conn:
        index.set_arrival(conn, second.instance_id, "update", make_current=True)
        later = index.freeze_revision(conn, series_id, "quiet")
    with engine.connect() as conn:
        assert [r.digest[0] for r in index.revision_files(conn, first)] == ["a"]
        assert [r.digest[0] for r in index.revision_files(conn, later)] == ["b"]


def test_a_late_instance_reopens_a_series_and_a_duplicate_does_not(engine: sa.Engine) -> None:
    series_id = put(engine, received())[0].series_id
    with engine.begin() as conn:
        index.freeze_revision(conn, series_id, "quiet")
    put(engine, received())
    assert one(engine, sa.select(series.c.state)).state == "complete"
    put(engine, received("1.2"))
    assert one(engine, sa.select(series.c.state, series.c.revision, series.c.changes)) == ("open", 1, 2)
    with engine.begin() as conn:
        index.freeze_revision(conn, series_id, "contiguous")
    assert one(engine, sa.select(series.c.state, series.c.revision)) == ("complete", 2)


def test_a_parked_series_stays_parked_until_an_operator_speaks(engine: sa.Engine) -> None:
    series_id = put(engine, received())[0].series_id
    with engine.begin() as conn:
        index.park(conn, series_id)
    put(engine, received("1.2"))
    with engine.begin() as conn:
        assert index.open_series(conn) == []
        assert index.operator_word(conn, "E", "complete") == 1 and index.operator_word(conn, "nowhere", "complete") == 0
        assert [r.operator_word for r in index.open_series(conn)] == ["complete"]
        index.freeze_revision(conn, series_id, "operator")
        assert index.open_series(conn) == []


def test_automatic_revisions_are_counted_since_a_time(engine: sa.Engine) -> None:
    series_id = put(engine, received())[0].series_id
    with engine.begin() as conn:
        for by in ("quiet", "operator", "forced"):
            index.freeze_revision(conn, series_id, by)
        assert index.revisions_since(conn, series_id, "2000-01-01T00:00:00.000000Z") == 2
        assert index.revisions_since(conn, series_id, "2999-01-01T00:00:00.000000Z") == 0


def test_header_facts_fill_what_is_empty_and_change_nothing_else(engine: sa.Engine) -> None:
    put(engine, received(facts={"modality": "CT", "station": "", "series_number": None}),
        received("1.2", facts={"modality": "MR", "station": "CT99", "series_number": 4}), received("1.3", facts={"series_number": 5}))
    assert one(engine, sa.select(series.c.modality, series.c.station, series.c.series_number)) == ("CT", "CT99", 4)


def test_hostile_text_is_a_value_and_nothing_else(engine: sa.Engine) -> None:
    hostile = "'; drop table instance; --\" \0 %s :x \n\x1b[31m ü"
    new = received(hostile, series_uid=hostile, study=hostile, facts={name: hostile for name in index.FACTS if name != "series_number"})
    new = replace(new, calling_ae=hostile, transfer_syntax=hostile, path=hostile)
    assert [a.kind for a in put(engine, new, new)] == ["new", "duplicate"]
    row = one(engine, sa.select(instance, series.c.study_uid, series.c.modality, series.c.device_serial).join(series))
    assert {row.sop_uid, row.study_uid, row.modality, row.device_serial, row.calling_ae, row.path} == {hostile}
    with engine.begin() as conn:
        assert index.operator_word(conn, hostile, "complete") == 1 and index.operator_word(conn, "' or 1=1 --", "complete") == 0
        assert index.known_sop(conn, hostile) and not index.known_sop(conn, "%")
        index.freeze_revision(conn, row.series_id, "quiet")


def test_associations(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        old, done, mine = (index.open_association(conn, start, "SENDER", "MEDIQA", "127.0.0.1") for start in ("dead", "dead", "alive"))
        index.close_association(conn, done, "released", 3, 30)
        index.close_association(conn, done, "aborted", 9, 90)  # ended is ended
        for number, row in enumerate((old, done, mine)):
            admit(conn, received(f"1.{number}", association_id=row))
        series_id = conn.execute(sa.select(series.c.id)).scalar_one()
        assert index.open_associations(conn, series_id) == {old, mine}
        assert index.close_lost_associations(conn, "alive") == 1 and index.close_lost_associations(conn, "alive") == 0
        assert index.open_associations(conn, series_id) == {mine}
        rows = conn.execute(sa.select(association.c.how, association.c.instances).order_by(association.c.id)).all()
    assert [tuple(r) for r in rows] == [("lost", 0), ("released", 3), (None, 0)]


def test_after_a_boot_the_first_moment_is_counted_anew(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Monotonic times of another boot mean nothing: the forced end counts from the first instance of this one."""
    monkeypatch.setattr(clock, "monotonic", lambda: 5000.0)
    put(engine, received("1.1"))
    monkeypatch.setattr(clock, "monotonic", lambda: 5010.0)
    put(engine, received("1.2"))
    assert one(engine, sa.select(series.c.first_mono, series.c.last_mono)) == (5000.0, 5010.0)
    monkeypatch.setattr(clock, "boot_id", lambda: "another boot")
    monkeypatch.setattr(clock, "monotonic", lambda: 7.0)
    put(engine, received("1.3"))
    assert one(engine, sa.select(series.c.first_mono, series.c.last_mono, series.c.boot_id)) == (7.0, 7.0, "another boot")


def test_content_digest_does_not_know_the_order(engine: sa.Engine) -> None:
    a, b = ("1.1", "x"), ("1.2", "y")
    assert index.content_digest([a, b]) == index.content_digest([b, a]) != index.content_digest([("1.1", "y"), ("1.2", "x")])
    assert index.content_digest([("1.1", "2x")]) != index.content_digest([("1.12", "x")])


def test_a_transaction_that_fails_leaves_no_row(engine: sa.Engine) -> None:
    def fail() -> None:
        with engine.begin() as conn:
            admit(conn, received())
            raise RuntimeError("the end of the transaction")

    with pytest.raises(RuntimeError):
        fail()
    assert one(engine, sa.select(sa.func.count()).select_from(series))[0] == 0
