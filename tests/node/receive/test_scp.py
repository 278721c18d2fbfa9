"""The receiver against real peers in this process: statuses, rejections, duplicates, durability order, no traces of half objects."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import _config

from node.receive.file_meta import IMPLEMENTATION_CLASS_UID
from node.receive.indexing import header_reader
from storage import index
from storage.objects import PartFile, object_path
from storage.schema import result_object, result_series, revision
from tests.support.ports import wait_for
from tests.support.receiver import ReceiverUnderTest, association, configuration, encoded, raw_store, rejection
from tests.support.small_objects import CT, image

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("path")]

EXPLICIT = [(CT, ExplicitVRLittleEndian)]


@pytest.fixture
def site(tmp_path: Path, path: str):
    with ReceiverUnderTest(configuration(tmp_path)) as receiver:
        yield receiver


def send(port: int, *sets: Dataset) -> list[int]:
    with association(port, EXPLICIT) as assoc:
        assert assoc.is_established
        return [int(assoc.send_c_store(ds).get("Status", -1)) for ds in sets]


def data_set_of(file: bytes) -> bytes:
    """What follows preamble and file meta information."""
    return file[144 + int.from_bytes(file[140:144], "little"):]


def test_echo(site: ReceiverUnderTest) -> None:
    with association(site.port, [("1.2.840.10008.1.1", ImplicitVRLittleEndian)]) as assoc:
        assert assoc.send_c_echo().Status == 0


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_bytes_are_kept_as_they_came(site: ReceiverUnderTest, syntax: str) -> None:
    ds = image(CT)
    data = encoded(ds, syntax)
    with association(site.port, [(CT, syntax)]) as assoc:
        assert raw_store(assoc, data, CT, ds.SOPInstanceUID).Status == 0
    [(path, file)] = site.stored().items()
    assert data_set_of(file) == data
    meta = pydicom.dcmread(site.store.path(path)).file_meta
    assert (meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle) == (
        syntax, ds.SOPInstanceUID, "SENDER")
    assert (meta.ImplementationClassUID, len(data) % 2) == (IMPLEMENTATION_CLASS_UID, 0)
    [row] = site.rows("select * from instance")
    assert (row["bytes"], row["instance_number"], row["position_mm"], row["arrival"], row["current"]) == (len(data), 1, 1.0, "new", 1)
    assert row["path"] == path and row["transfer_syntax"] == syntax


def test_compressed_htj2k_is_kept_as_it_came(site: ReceiverUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_config, "STORE_SEND_CHUNKED_DATASET", True)
    codecs = pytest.importorskip("imagecodecs")
    ds = image(CT)
    frame = codecs.jpeg2k_encode(ds.pixel_array, codecformat="j2k", reversible=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = HTJ2KLossless
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    ds["PixelData"].VR = "OB"
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with association(site.port, [(CT, HTJ2KLossless)]) as assoc:
        assert assoc.send_c_store(tmp_path / "a.dcm").Status == 0
    [file] = site.stored().values()
    assert data_set_of(file) == data_set_of((tmp_path / "a.dcm").read_bytes())


@pytest.mark.parametrize(("calling", "called", "code"), [("NOBODY", "MEDIQA", (1, 1, 3)), ("SENDER", "OTHER", (1, 1, 7))])
def test_rejections_are_those_of_the_standard_and_audited(site: ReceiverUnderTest, calling: str, called: str,
                                                          code: tuple[int, int, int]) -> None:
    for _ in range(3):
        with association(site.port, EXPLICIT, calling, called) as assoc:
            assert assoc.is_rejected and rejection(assoc) == code
    [entry] = site.events("association-rejected")  # repeats within a minute are counted, not written
    assert (entry["details"]["calling_ae"], entry["details"]["code"]) == (calling, "/".join(map(str, code)))
    assert site.rows("select * from association") == []


def test_network_of_a_known_caller_counts(tmp_path: Path) -> None:
    allow = ({"ae_title": "SENDER", "networks": ("10.0.0.0/8",)},)
    with ReceiverUnderTest(configuration(tmp_path, receive={"allow": allow})) as site, association(site.port, EXPLICIT) as assoc:
        assert rejection(assoc) == (1, 1, 3)


def test_too_many_associations(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_associations": 2})) as site:
        with association(site.port, EXPLICIT) as a, association(site.port, EXPLICIT) as b:
            assert a.is_established and b.is_established
            with association(site.port, EXPLICIT) as c:
                assert rejection(c) == (2, 3, 2)
        wait_for(lambda: len(site.receiver._sessions) == 0, 5, "places are given back")
        with association(site.port, EXPLICIT) as d:
            assert d.is_established


def test_below_the_reserve_nothing_is_taken(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path, storage={"reserve": "9000 TiB"})) as site:
        series = generate_uid()
        assert send(site.port, *(image(CT, series=series, number=k) for k in range(1, 5))) == [0xA700] * 4
        wait_for(lambda: site.rows("select * from association where closed_at is not null"), 5, "closed")
        events = site.events("store-refused")
        assert [e["details"].get("status") for e in events] == ["0xA700", None]  # one event, and the count at the end
        assert events[1]["details"]["times"] == {"0xA700 free space is below the reserve": 4}
        assert site.stored() == {} and site.parts() == [] and site.rows("select * from instance") == []
        with association(site.port, [("1.2.840.10008.1.1", ImplicitVRLittleEndian)]) as assoc:
            assert assoc.send_c_echo().Status == 0


def test_statuses_of_what_cannot_be_kept(site: ReceiverUnderTest) -> None:
    ds = image(CT)
    data, uid = encoded(ds, ExplicitVRLittleEndian), str(ds.SOPInstanceUID)

    def without(keyword: str) -> bytes:
        other = Dataset()
        other.update(ds)
        del other[keyword]
        return encoded(other, ExplicitVRLittleEndian)

    mr = "1.2.840.10008.5.1.4.1.1.4"
    cases = [  # data, class and UID of the command, status, word of the comment
        (data, CT, generate_uid(), 0xA900, "Instance UID differs"),
        (encoded(image(mr, sop=uid), ExplicitVRLittleEndian), CT, uid, 0xA900, "Class UID differs"),
        (data, mr, uid, 0x0122, "presentation context"),
        (data, CT, None, 0xC000, "Affected SOP Instance UID"),
        (without("SOPInstanceUID"), CT, uid, 0xC000, "no SOP Instance UID"),
        (b"\xff" * 3000, CT, uid, 0xC000, ""),
        (None, CT, uid, 0xC000, "no data set"),
        (data[:40], CT, uid, 0xC000, ""),
        (data, CT, "1." + "2" * 70, 0xC000, "64 characters"),
    ]
    told = set()
    with association(site.port, EXPLICIT) as assoc:
        for bytes_, sop_class, sop_uid, status, word in cases:
            answer = raw_store(assoc, bytes_, sop_class, sop_uid)
            assert (answer.Status, word in answer.ErrorComment) == (status, True), (hex(answer.Status), answer.ErrorComment)
            told.add((answer.Status, answer.ErrorComment))
            assert len(answer.AffectedSOPInstanceUID) <= 64  # a peer may abort on a longer one
            assert uid not in answer.ErrorComment and "SIMULATED" not in answer.ErrorComment
        assert site.stored() == {} and site.parts() == []
        assert raw_store(assoc, data, CT, uid).Status == 0  # the association lives through all of it
    # one event of each kind at once, and one at the end of the association for the kinds that came again
    wait_for(lambda: len(site.events("store-refused")) == len(told) + 1, 10, "the refusals are audited")


def test_objects_without_study_or_series_are_kept_each_by_itself(site: ReceiverUnderTest) -> None:
    sets = [image(CT), image(CT)]
    for ds in sets:
        ds.SeriesInstanceUID = ""
    del sets[0].StudyInstanceUID
    assert send(site.port, *sets, sets[0]) == [0, 0, 0]
    rows = site.rows("select study_uid, series_uid from series order by id")
    assert rows[0]["study_uid"] == rows[0]["series_uid"] and rows[0]["study_uid"].startswith("none:")
    assert rows[1]["study_uid"] == sets[1].StudyInstanceUID and rows[1]["series_uid"].startswith("none:")
    assert len(rows) == len(site.stored()) == 2
    read = header_reader(site.engine)
    for path in site.stored():  # found at start without a row, it would get the same one
        again = read(site.store.path(path), path)
        assert again is not None and object_path(again.study_uid, again.series_uid, again.sop_uid) == path


def test_a_hostile_uid_is_kept_under_a_hashed_name(site: ReceiverUnderTest) -> None:
    uid = "../../etc/x;drop table"
    ds = image(CT, sop=uid, study="..", series="a/b")
    with association(site.port, EXPLICIT) as assoc:
        assert raw_store(assoc, encoded(ds, ExplicitVRLittleEndian), CT, uid).Status == 0
    [path] = site.stored()
    assert all(c in "0123456789abcdef/.dcm" for c in path)
    assert site.rows("select sop_uid from instance") == [{"sop_uid": uid}]


def test_database_failure_invites_a_retry(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = image(CT)
    with monkeypatch.context() as broken:
        def locked(*_: object) -> None:
            raise sa.exc.OperationalError("insert", {}, Exception("database is locked"))
        broken.setattr(index, "admit", locked)
        assert send(site.port, ds) == [0x0110]
    assert send(site.port, ds) == [0]
    assert len(site.stored()) == len(site.rows("select * from instance")) == 1


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 0xA700), (errno.EIO, 0xA700), (errno.EBADF, 0x0110)])
def test_disk_errors(site: ReceiverUnderTest, monkeypatch: pytest.MonkeyPatch, code: int, status: int) -> None:
    def fail(self: PartFile, *pieces: bytes) -> None:
        raise OSError(code, "scratch")
    with monkeypatch.context() as broken:
        broken.setattr(PartFile, "write", fail)
        assert send(site.port, image(CT), image(CT)) == [status, status]
    assert site.parts() == [] and send(site.port, image(CT)) == [0]


def test_an_object_over_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_object_mb": 1})) as site:
        assert send(site.port, image(CT, rows=800), image(CT)) == [0xA700, 0]
        assert len(site.stored()) == 1 and site.parts() == []


def test_duplicates_and_second_versions(site: ReceiverUnderTest) -> None:
    ds = image(CT)
    assert send(site.port, ds, ds) == [0, 0]
    assert send(site.port, ds) == [0]
    [series] = site.rows("select * from series")
    assert (series["changes"], len(site.stored())) == (1, 1)
    changed = image(CT, study=ds.StudyInstanceUID, series=ds.SeriesInstanceUID, sop=ds.SOPInstanceUID, PatientName="SIMULATED^OTHER")
    elsewhere = image(CT, sop=ds.SOPInstanceUID)
    assert send(site.port, changed, elsewhere, changed) == [0, 0, 0]
    rows = site.rows("select * from instance order by id")
    assert [(r["arrival"], r["current"]) for r in rows] == [("new", 1), ("unclassified", 0), ("unclassified", 0)]
    assert rows[1]["digest"][:16] in rows[1]["path"] and len(site.stored()) == 3
    wait_for(lambda: len(site.events("received")) == 4, 5, "one event per association and series")
    counts = [(e["details"]["instances"], e["details"]["duplicates"]) for e in site.events("received")]
    assert counts == [(1, 1), (0, 1), (1, 1), (1, 0)]


def test_a_lost_file_is_taken_again(site: ReceiverUnderTest) -> None:
    ds = image(CT)
    assert send(site.port, ds) == [0]
    [path] = site.stored()
    site.store.path(path).unlink()
    assert send(site.port, ds) == [0]
    assert list(site.stored()) == [path] and len(site.rows("select * from instance")) == 1


def test_many_senders_at_once(site: ReceiverUnderTest) -> None:
    series, study, shared = generate_uid(), generate_uid(), image(CT, number=99)
    answers: list[int] = []

    def sender(k: int) -> None:
        sets = [image(CT, study=study, series=series, number=10 * k + i) for i in range(6)]
        answers.extend(send(site.port, shared, *sets, shared))

    threads = [threading.Thread(target=sender, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [0] * 48
    assert len(site.rows("select * from instance")) == len(site.stored()) == 37 and site.parts() == []
    assert {r["arrival"] for r in site.rows("select arrival from instance")} == {"new"}
    wait_for(lambda: not site.rows("select * from association where closed_at is null"), 5, "closed")
    assert sum(r["instances"] for r in site.rows("select * from association")) == 37
    assert site.audit.verify().ok


def test_abort_in_the_middle_leaves_nothing_then_the_rest_comes(site: ReceiverUnderTest) -> None:
    sets = [image(CT, rows=128, number=k) for k in range(1, 4)]
    with association(site.port, EXPLICIT) as assoc:
        assert assoc.send_c_store(sets[0]).Status == 0
        from pynetdicom.dimse_messages import C_STORE_RQ
        from pynetdicom.dimse_primitives import C_STORE

        request = C_STORE()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 2, 2, CT
        request.AffectedSOPInstanceUID = sets[1].SOPInstanceUID
        data = encoded(sets[1], ExplicitVRLittleEndian)
        from io import BytesIO
        request.DataSet = BytesIO(data)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        fragments = list(message.encode_msg(assoc.accepted_contexts[0].context_id, 4096))
        for fragment in fragments[:-2]:
            assoc.dul.send_pdu(fragment)
        wait_for(site.parts, 5, "the object arrives")
        assoc.abort()
    wait_for(lambda: not site.parts(), 10, "the half object is gone")
    [row] = wait_for(lambda: site.rows("select * from association where closed_at is not null"), 5, "closed")
    assert (row["how"], row["instances"]) == ("aborted", 1)
    assert send(site.port, *sets) == [0, 0, 0] and len(site.stored()) == 3


def test_own_results_are_marked(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path), device_uid="2.25.7") as site:
        known, series = generate_uid(), generate_uid()
        first = image(CT)
        assert send(site.port, first) == [0]
        with site.engine.begin() as conn:
            conn.execute(revision.insert().values(id=1, series_id=1, number=1, changes=1, completed_at="x", completed_by="quiet",
                                                  instances=1, content_digest="x"))
            conn.execute(result_object.insert().values(revision_id=1, kind="sc", sop_class_uid=CT, sop_uid=known, series_uid="1.2",
                                                       study_uid="1.2", path="p", digest="d", bytes=1, made_at="x"))
            conn.execute(result_series.insert().values(series_uid=series, study_uid="1.2", kind="sr", attributes="{}"))

        def equipment(**values: str) -> list[Dataset]:
            item = Dataset()
            for name, value in values.items():
                setattr(item, name, value)
            return [Dataset(), item]

        made = [image(CT, sop=known), image(CT, series=series),
                image(CT, ContributingEquipmentSequence=equipment(Manufacturer="MedIQA Node")),
                image(CT, ContributingEquipmentSequence=equipment(Manufacturer="X", DeviceUID="2.25.7"))]
        others = [image(CT, Manufacturer="MedIQA Node"), image(CT, ContributingEquipmentSequence=equipment(Manufacturer="Other"))]
        assert send(site.port, *made, *others) == [0] * 6
        own = {r["sop_uid"]: r["own"] for r in site.rows("select sop_uid, own from instance")}
        assert [own[d.SOPInstanceUID] for d in made] == [1, 1, 1, 1]
        assert [own[d.SOPInstanceUID] for d in (first, *others)] == [0, 0, 0]


def test_nothing_of_a_patient_in_log_and_audit(site: ReceiverUnderTest, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ds = image(CT, PatientName="PLANTED^NAME", PatientID="PLANTED-7", PatientBirthDate="not a date PLANTED")
    with association(site.port, EXPLICIT) as assoc:
        raw_store(assoc, encoded(ds, ExplicitVRLittleEndian), CT, generate_uid())
        raw_store(assoc, encoded(ds, ExplicitVRLittleEndian), CT, ds.SOPInstanceUID)
    wait_for(lambda: site.events("received"), 5, "told")
    ours = "".join(r.getMessage() + str(r.__dict__) for r in caplog.records if r.name.startswith("node"))
    assert "PLANTED" not in ours + str(site.audit.records()) + str(list(site.stored()))


def test_private_storage_classes_are_taken_and_other_services_are_not(site: ReceiverUnderTest) -> None:
    private = "1.2.826.0.1.3680043.9.7133.99.1"
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    with association(site.port, [(private, ExplicitVRLittleEndian), (find, ExplicitVRLittleEndian)]) as assoc:
        assert [c.abstract_syntax for c in assoc.accepted_contexts] == [private]
        assert [(c.abstract_syntax, c.result) for c in assoc.rejected_contexts] == [(find, 3)]
        ds = image(private)
        assert raw_store(assoc, encoded(ds, ExplicitVRLittleEndian), private, ds.SOPInstanceUID).Status == 0


def test_stop_ends_an_association_that_nobody_releases(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path)) as site, association(site.port, EXPLICIT) as assoc:
        assert assoc.send_c_store(image(CT)).Status == 0
        site.receiver.stop(drain=0.2)
        wait_for(lambda: not assoc.is_established, 5, "aborted")
        [row] = site.rows("select * from association")
        assert (row["how"], row["instances"]) == ("aborted", 1)

