"""Files and rows made to agree at start: with the reader that the node uses, on DICOM files as reception writes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from blake3 import blake3
from pydicom.dataset import Dataset

from node.receive.indexing import header_reader
from storage import index, reconcile
from storage.audit_log import AuditLog
from storage.index import ReceivedInstance, admit
from storage.objects import ObjectStore, object_path
from storage.schema import instance, series
from tests.support.small_objects import CT, image

Start = Callable[[], reconcile.Reconciled]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "data" / "objects")


@pytest.fixture
def start(engine: sa.Engine, store: ObjectStore, log: AuditLog) -> Start:
    return lambda: reconcile.reconcile(engine, store, header_reader(engine), log)


def keep(engine: sa.Engine, store: ObjectStore, ds: Dataset, row: bool = True) -> str:
    """Store and index one data set as reception does."""
    out = BytesIO()
    ds.file_meta.SourceApplicationEntityTitle = "SENDER"
    ds.save_as(out, enforce_file_format=True)
    data = out.getvalue()
    body = data[144 + int.from_bytes(data[140:144], "little"):]  # after the file meta information
    digest = blake3(body).hexdigest()
    with engine.connect() as conn:
        again = index.known_sop(conn, ds.SOPInstanceUID)
    part = store.begin()
    part.write(data)
    path = part.commit(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, digest, again)
    if row:
        with engine.begin() as conn:
            admit(conn, ReceivedInstance(ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID,
                                         ds.file_meta.TransferSyntaxUID, digest, len(body), path, "SENDER",
                                         instance_number=ds.InstanceNumber, position_mm=float(ds.InstanceNumber),
                                         facts={"modality": "CT", "series_number": None}))
    return path


def sets(count: int, **more: Any) -> list[Dataset]:
    return [image(CT, study="1.2", series="1.2.3", sop=f"1.2.3.{n}", number=n, rows=16, **more) for n in range(1, count + 1)]


COLUMNS = (instance.c.sop_uid, instance.c.sop_class_uid, instance.c.transfer_syntax, instance.c.digest, instance.c.bytes, instance.c.path,
           instance.c.current, instance.c.arrival, instance.c.calling_ae, instance.c.instance_number, instance.c.position_mm, instance.c.own)


def rows(engine: sa.Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(r) for r in conn.execute(sa.select(*COLUMNS).order_by(instance.c.id))]


def events(log: AuditLog) -> list[tuple[str, Any]]:
    return [(r["event"], r["details"]) for r in log.records()]


def test_nothing_to_do_says_nothing(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start) -> None:
    for ds in sets(3):
        keep(engine, store, ds)
    before = rows(engine)
    assert start() == reconcile.Reconciled()
    assert rows(engine) == before and events(log) == []


def test_the_rows_of_the_last_seconds_are_found_again(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start) -> None:
    """A power cut with synchronous NORMAL: the last commits are gone, the files are there; rows come back as they were."""
    for ds in sets(10):
        keep(engine, store, ds)
    before = rows(engine)
    with engine.begin() as conn:
        conn.execute(instance.delete().where(instance.c.id > 6))
    found = start()
    assert rows(engine) == before
    assert found.adopted == [r[5] for r in before[6:]] and found.lost == [] and found.unreadable == []
    assert events(log) == [("adopted", {"instances": 4})]
    assert log.records()[0]["series_uid"] == "1.2.3"
    assert start() == reconcile.Reconciled() and len(events(log)) == 1 and log.verify().ok


def test_a_lost_database_is_made_anew_from_the_files(engine: sa.Engine, store: ObjectStore, start: Start) -> None:
    for ds in sets(4):
        keep(engine, store, ds)
    before = rows(engine)
    with engine.begin() as conn:
        conn.execute(instance.delete())
        conn.execute(series.delete())
    start()
    assert rows(engine) == before
    with engine.connect() as conn:
        assert conn.execute(sa.select(series.c.study_uid, series.c.series_uid, series.c.state, series.c.modality)).one() \
            == ("1.2", "1.2.3", "open", "CT")


def test_the_time_of_reception_is_that_of_the_file(engine: sa.Engine, store: ObjectStore, start: Start) -> None:
    path = keep(engine, store, sets(1)[0], row=False)
    os.utime(store.path(path), (1_700_000_000.25, 1_700_000_000.25))
    start()
    with engine.connect() as conn:
        assert conn.execute(sa.select(instance.c.received_at)).scalar_one() == "2023-11-14T22:13:20.250000Z"


@pytest.mark.parametrize("lost", [(1, 2, 3), (2, 3), (3,)])
def test_versions_come_back_in_the_order_in_which_they_came(engine: sa.Engine, store: ObjectStore, start: Start, lost: tuple[int, ...]) -> None:
    """Which version is the first, and so which is current, is told from the files alone, whatever their digests are."""
    for description in ("first", "second", "third"):
        keep(engine, store, sets(1, SeriesDescription=description)[0])
    before = rows(engine)
    assert [r[6:8] for r in before] == [(1, "new"), (0, "unclassified"), (0, "unclassified")]
    for n, row in enumerate(before):  # the third file's time before the second's would turn them round
        os.utime(store.path(row[5]), (1_700_000_000 + n, 1_700_000_000 + n))
    with engine.begin() as conn:
        conn.execute(instance.delete().where(instance.c.id.in_(lost)))
    start()
    assert rows(engine) == before


def test_a_conflict_in_another_study_stays_the_second(engine: sa.Engine, store: ObjectStore, start: Start) -> None:
    """The order of folders, which are hashes, must not decide which of two studies holds the first version."""
    for study in ("1.2", "1.3", "1.4", "1.5"):
        keep(engine, store, image(CT, study=study, series=f"{study}.3", sop="1.9", rows=16))
    before = rows(engine)
    with engine.begin() as conn:
        conn.execute(instance.delete())
        conn.execute(series.delete())
    start()
    assert rows(engine) == before and [r[6] for r in before] == [1, 0, 0, 0]


def test_rows_without_files_are_reported_once(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start) -> None:
    paths = [keep(engine, store, ds) for ds in sets(3)]
    store.path(paths[1]).unlink()
    assert start().lost == [2] and start().lost == [2]
    assert events(log) == [("files-lost", {"count": 1, "instances": [2]})]
    store.path(paths[0]).unlink()
    assert start().lost == [1, 2]
    assert events(log)[1:] == [("files-lost", {"count": 2, "instances": [1, 2]})]
    assert len(rows(engine)) == 3


def test_parts_are_swept(store: ObjectStore, log: AuditLog, start: Start) -> None:
    store.begin().write(b"half")
    assert start().parts == 1 and list(store.parts.iterdir()) == [] and events(log) == []


def test_foreign_and_unreadable_files_are_reported_and_left_alone(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start) -> None:
    path = keep(engine, store, sets(1)[0], row=False)
    foreign = store.path(path).with_name("0123456789abcdef.dcm")  # a copy under a name that its header does not derive
    foreign.write_bytes(store.path(path).read_bytes())
    garbage = store.root / object_path("7", "8", "9")
    garbage.parent.mkdir(parents=True)
    garbage.write_bytes(b"DICM no more")
    found = start()
    assert found.adopted == [path]
    assert sorted(found.unreadable) == sorted(str(p.relative_to(store.root)) for p in (foreign, garbage))
    assert start().unreadable == found.unreadable and foreign.exists() and garbage.exists()
    told = [d for e, d in events(log) if e == "files-not-adopted"]
    assert told == [{"count": 2, "paths": found.unreadable}]
    assert len(rows(engine)) == 1


def test_a_file_that_changed_on_the_disk_is_not_taken_for_another_version(engine: sa.Engine, store: ObjectStore, start: Start) -> None:
    """The name of a second version carries its digest: a file whose bytes say otherwise is not what was received."""
    keep(engine, store, sets(1)[0])
    path = keep(engine, store, sets(1, SeriesDescription="second")[0], row=False)
    assert "-" in Path(path).name
    data = bytearray(store.path(path).read_bytes())
    data[-1] ^= 1
    store.path(path).write_bytes(data)
    assert start().unreadable == [path] and len(rows(engine)) == 1


def test_many_files_many_series(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches: each is one commit of rows and of the record that tells of them."""
    monkeypatch.setattr(reconcile, "BATCH", 5)
    for n in range(12):
        path = keep(engine, store, image(CT, study="1.2", series=f"1.2.{n % 2}", sop=f"1.9.{n}", number=n, rows=16), row=False)
        os.utime(store.path(path), (1e9 + n, 1e9 + n))  # the clock of a file system may stand still for milliseconds
    assert len(start().adopted) == 12
    told = [(r["series_uid"], r["details"]["instances"]) for r in log.records(event="adopted")]
    assert {uid: sum(n for u, n in told if u == uid) for uid, _ in told} == {"1.2.0": 6, "1.2.1": 6}
    assert [r[0] for r in rows(engine)] == [f"1.9.{n}" for n in range(12)]  # in order of reception


def test_no_patient_data_in_what_is_told(engine: sa.Engine, store: ObjectStore, log: AuditLog, start: Start) -> None:
    keep(engine, store, sets(1, PatientName="PLANTED^NAME", PatientID="PLANTED-ID")[0], row=False)
    start()
    assert "PLANTED" not in json.dumps(log.records())
