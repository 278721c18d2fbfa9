"""Results of revisions as they are kept: rows, files, predecessors, a corrected identity, an identity that had to be cut."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from node.assessment_text import load, load_pictures
from node.build import open_workplace, policy_of
from node.reporting import render_and_keep, renderer
from node.steps import RevisionSteps, revision_row
from node.workplace import SR_CLASSES as SR_UIDS
from node.workplace import Workplace
from qa_engine.assessment import Assessment
from qa_engine.outcome import End
from storage import index
from storage.schema import instance, series
from tests.report.conftest import Engine
from tests.support.bench import Bench
from tests.support.reports import CAPTURE, SR_CLASSES, codes_of, groups_of, numbers_of, put_bytes, texts_of, validate

pytestmark = [pytest.mark.model, pytest.mark.peer]

SC = "1.2.840.10008.5.1.4.1.1.7"
COMPREHENSIVE_3D, ENHANCED, BASIC_TEXT = (SR_UIDS[name] for name in ("comprehensive-3d", "enhanced", "basic-text"))
TWO = ("comprehensive-3d", "basic-text")
PLANTED, PLANTED_ID = "PLANTEDNAME^SIMULATED", "PLANTED-ID-77"


class Site:
    """A worker's steps on real rows, called one by one; the engine is real."""

    def __init__(self, folder: Path, engine: Engine, **report: Any) -> None:
        self.bench = Bench(folder, 1)
        config = self.bench.config
        config = config.model_copy(update={"report": config.report.model_copy(update=report)})
        self.place: Workplace = open_workplace(config)
        self.scored = 0

        def assess(files: Sequence[Path]) -> Assessment:
            self.scored += 1
            return engine(files)

        self.policy = policy_of(config)
        self.steps = RevisionSteps(self.place, assess, renderer(self.place, self.policy), sender=None)  # type: ignore[arg-type]

    def put(self, sets: Sequence[Dataset], update: bool = False) -> None:
        """Store instances; `update`: as newer versions of known ones."""
        for ds in sets:
            self.bench.put(ds)
        if update:
            with self.place.engine.begin() as conn:
                for row in conn.execute(sa.select(instance.c.id).where(instance.c.arrival == "unclassified")).all():
                    index.set_arrival(conn, row.id, "update", make_current=True)

    def revision(self, purpose: str = "score", run: bool = True) -> int:
        """Freeze what is there and run the steps on it."""
        with self.place.engine.begin() as conn:
            revision_id = index.freeze_revision(conn, conn.execute(sa.select(series.c.id)).scalar_one(), "quiet", purpose=purpose)
        assert revision_id is not None
        if run:
            self.steps.assess(revision_id)
            self.steps.report(revision_id)
        return revision_id

    def objects(self, revision_id: int) -> dict[str, Dataset]:
        """Result objects of a revision by SOP class, read from the store."""
        return {row["sop_class_uid"]: pydicom.dcmread(self.place.results.path(row["path"]))
                for row in self.bench.rows("select * from result_object where revision_id = :r order by id", r=revision_id)}

    def file(self, ds: Dataset) -> bytes:
        """The stored bytes of a result object."""
        return self.place.results.path(self.bench.rows("select path from result_object where sop_uid = :u", u=ds.SOPInstanceUID)[0]["path"]).read_bytes()

    def audit(self, event: str) -> list[str]:
        return [row["details"] for row in self.bench.rows("select details from audit_record where event = :e order by seq", e=event)]


@pytest.fixture
def sets(samples: dict[str, list[Path]]) -> list[Dataset]:
    """The simulated MR series under a name that can be looked for."""
    found = [pydicom.dcmread(f) for f in samples["mr"]]
    for ds in found:
        ds.PatientName, ds.PatientID, ds.AccessionNumber = PLANTED, PLANTED_ID, "PLANTEDACC"
    return found


def test_row_report_and_store_agree(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    site = Site(tmp_path / "node", engine)
    site.put(sets)
    revision_id = site.revision()
    row = site.bench.rows("select * from revision")[0]
    objects = site.objects(revision_id)
    assert set(objects) == {SC, *SR_UIDS.values()} and row["outcome"] == "assessed"
    group = groups_of(objects[COMPREHENSIVE_3D])["Series"]
    numbers = numbers_of(group)
    assert numbers["Image Set Quality Rating"] == round(row["score"], 1)
    assert [numbers[f"{w} limit of 90% interval"] for w in ("Lower", "Upper")] == [round(row["low"], 1), round(row["high"], 1)]
    assert codes_of(group, "Verdict")[0][1] == row["verdict"]
    assert {str(d.PatientName) for d in objects.values()} == {PLANTED} and {d.StudyInstanceUID for d in objects.values()} == {sets[0].StudyInstanceUID}
    planned = site.bench.rows("select kind, state from delivery order by kind")
    assert planned == [{"kind": "sc", "state": "pending"}, {"kind": "sr", "state": "pending"}]
    site.steps.report(revision_id)
    assert len(site.bench.rows("select id from result_object")) == 5, "again is harmless"


def test_rendering_again_with_the_same_stored_facts(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    """A worker that was killed between keeping and recording renders again: same UIDs, and no file is left without a row."""
    site = Site(tmp_path / "node", engine, sr_classes=TWO)
    site.put(sets)
    revision_id = site.revision(run=False)
    site.steps.assess(revision_id)
    with site.place.reader.connect() as conn:
        row, versions = revision_row(conn, revision_id), index.revision_files(conn, revision_id)
    told = load(row.assessment, load_pictures(site.place.pictures / f"{revision_id}.npz") or ())
    first = render_and_keep(site.place, site.policy, row, versions, told)
    second = render_and_keep(site.place, site.policy, row, versions, told)
    assert [(o.sop_uid, o.path) for o in first.kept] == [(o.sop_uid, o.path) for o in second.kept]
    site.steps.report(revision_id)
    recorded = site.bench.rows("select path, digest, bytes from result_object")
    stored = sorted(site.place.results.walk())
    assert sorted(r["path"] for r in recorded) == stored and len(stored) == 3
    for r in recorded:
        data = site.place.results.path(r["path"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (r["digest"], r["bytes"])


def test_second_revision_names_the_first(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    """A late slice: new objects in the same result series, with the next instance number, that name what they replace."""
    site = Site(tmp_path / "node", engine, sr_classes=TWO)
    site.put(sets[:2])
    first = site.objects(site.revision())
    site.put(sets[2:])
    second = site.objects(site.revision())
    iods = {COMPREHENSIVE_3D: "Comprehensive3DSR", BASIC_TEXT: "BasicTextSR"}
    for sop_class, ds in second.items():
        before = first[sop_class]
        assert before.SOPInstanceUID != ds.SOPInstanceUID and before.SeriesInstanceUID == ds.SeriesInstanceUID
        assert (before.InstanceNumber, ds.InstanceNumber) == (1, 2)
        assert (before.SeriesDate, before.SeriesTime, before.SeriesNumber) == (ds.SeriesDate, ds.SeriesTime, ds.SeriesNumber)
        if sop_class == SC:
            assert before.SOPInstanceUID in ds.DerivationDescription and "revision 2" in ds.DerivationDescription
            continue
        assert "PredecessorDocumentsSequence" not in before
        named = [(r.ReferencedSOPClassUID, r.ReferencedSOPInstanceUID) for study in ds.PredecessorDocumentsSequence
                 for one in study.ReferencedSeriesSequence for r in one.ReferencedSOPSequence]
        assert named == [(COMPREHENSIVE_3D, first[COMPREHENSIVE_3D].SOPInstanceUID)]
        assert validate(site.file(ds), iods[sop_class], tmp_path) == []


def test_predecessor_is_what_the_destination_took(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    site = Site(tmp_path / "node", engine, sr_classes=("comprehensive-3d", "enhanced"))
    site.put(sets[:2])
    site.revision()
    site.bench.write("update delivery set object_id = (select id from result_object where sop_class_uid = :c) where kind = 'sr'", c=ENHANCED)
    site.put(sets[2:])
    for sop_class, ds in site.objects(site.revision()).items():
        if sop_class != SC:
            reference = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
            assert [r.ReferencedSOPClassUID for r in reference] == [ENHANCED]


def test_corrected_identity_is_rendered_anew_without_scoring(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    site = Site(tmp_path / "node", engine, sr_classes=TWO)
    site.put(sets)
    first = site.objects(site.revision())
    scored = site.scored
    for ds in sets:
        ds.PatientName, ds.PatientID = "SIMULATED^CORRECTED", "SIM-CORRECTED"
    site.put(sets, update=True)
    second = site.objects(site.revision("identity"))
    assert site.scored == scored and set(first) == set(second)
    rows = site.bench.rows("select score, verdict, outcome from revision order by number")
    assert rows[0] == rows[1] and rows[0]["outcome"] == "assessed"
    for sop_class, ds in second.items():
        before = first[sop_class]
        assert (str(ds.PatientName), ds.PatientID) == ("SIMULATED^CORRECTED", "SIM-CORRECTED")
        assert ds.SOPInstanceUID != before.SOPInstanceUID and ds.SeriesInstanceUID != before.SeriesInstanceUID
        assert ds.InstanceNumber == 1, "a series of its own"
        if sop_class == SC:
            assert before.SOPInstanceUID in ds.DerivationDescription
        else:
            one = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
            assert one.SeriesInstanceUID == first[COMPREHENSIVE_3D].SeriesInstanceUID
    numbers = [numbers_of(groups_of(o[COMPREHENSIVE_3D])["Series"]) for o in (first, second)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("policy", ["send", "hold"])
def test_cut_identity(engine: Engine, sets: list[Dataset], policy: str, tmp_path: Path) -> None:
    """A cut patient ID may match nobody: it is told in report and audit log, without the ID, and a site may hold such results back."""
    for ds in sets:
        put_bytes(ds, "PatientID", b"PLANTEDID" * 8)
    site = Site(tmp_path / "node", engine, on_bad_identity=policy, sr_classes=("enhanced",))
    site.put(sets)
    report = site.objects(site.revision())[ENHANCED]
    words = "PatientID of the source is longer than 64 characters; it was cut."
    assert report.PatientID == ("PLANTEDID" * 8)[:64] and words in texts_of(report, "Comment")
    told = site.audit("reported")
    assert len(told) == 1 and words in told[0] and ('"held":true' in told[0].replace(" ", "")) == (policy == "hold")
    due = [r["next_try_at"] for r in site.bench.rows("select next_try_at from delivery where state = 'pending'")]
    assert len(due) == 2 and all((at is None) == (policy == "hold") for at in due), "held back: planned, due only by an operator's word"


@pytest.mark.parametrize("asked", [False, True])
def test_ends_without_a_number_are_reported_where_asked(engine: Engine, sets: list[Dataset], asked: bool, tmp_path: Path) -> None:
    for ds in sets:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    site = Site(tmp_path / "node", engine, on=("assessed", "skipped") if asked else ("assessed",))
    site.put(sets)
    objects = site.objects(site.revision())
    assert site.bench.rows("select outcome, reason, score from revision") == [{"outcome": "skipped", "reason": "localizer", "score": None}]
    assert len(objects) == (5 if asked else 0)
    for ds, iod in zip(objects.values(), [CAPTURE, *SR_CLASSES.values()], strict=False):
        assert validate(site.file(ds), iod, tmp_path) == []
    if asked:
        group = groups_of(objects[COMPREHENSIVE_3D])["Series"]
        assert codes_of(group, "Verdict")[0][1] == "Not assessed" and texts_of(group, "Reason without score") == ["skipped/localizer"]
        assert numbers_of(group) == {"Images received": 3.0}


def test_superseded_revision_is_explained(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    """An end that the engine was not asked for."""
    site = Site(tmp_path / "node", engine, on=("assessed", "skipped"), sr_classes=("comprehensive-3d",), secondary_capture=False)
    site.put(sets[:2])
    older = site.revision(run=False)
    site.put(sets[2:])
    site.revision(run=False)
    site.steps.assess(older)
    site.steps.report(older)
    report = site.objects(older)[COMPREHENSIVE_3D]
    assert any("newer revision" in words for words in texts_of(report, "Comment"))
    assert site.scored == 0 and SC not in site.objects(older)


def test_nothing_of_the_patient_at_rest_beside_the_objects(engine: Engine, sets: list[Dataset], tmp_path: Path, capfd: pytest.CaptureFixture[str],
                                                           caplog: pytest.LogCaptureFixture) -> None:
    """DESIGN section 8: no name or ID in file names, audit log, database, pictures or output; folders and files are the node's alone."""
    old = os.umask(0o077)
    try:
        for ds in sets:
            ds.PatientName = "PLANTEDNAME"  # one component: libraries warn about it and quote it
        site = Site(tmp_path / "node", engine, on=("assessed", "skipped"))
        site.put(sets)
        site.revision()
    finally:
        os.umask(old)
    assert site.bench.rows("select outcome from revision") == [{"outcome": str(End.ASSESSED)}]
    data = site.place.config.data_folder
    files = [p for p in data.rglob("*") if p.is_file()]
    assert len([p for p in files if p.suffix == ".dcm"]) == len(sets) + 5
    assert not [p for p in data.rglob("*") if "PLANTED" in str(p.relative_to(data)).upper()]
    for path in files:
        content = path.read_bytes()
        assert (b"PLANTED" in content) == (path.suffix == ".dcm"), path.name
        assert path.stat().st_mode & 0o077 == 0, path.name
    out, err = capfd.readouterr()
    assert "PLANTED" not in out + err + caplog.text


def test_another_model_or_policy_makes_other_objects(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:
    """Scored again with the same model nothing is new; with other thresholds or another model there is another result."""
    site = Site(tmp_path / "node", engine, sr_classes=("enhanced",), secondary_capture=False)
    site.put(sets)
    first = site.objects(site.revision())
    assert site.objects(site.revision()) == {} and len(first) == 1
    policy = dataclasses.replace(site.policy, thresholds={"CT": (1.0, 2.0), "MR": (1.0, 2.0)})
    site.steps = RevisionSteps(site.place, lambda files: engine(files), renderer(site.place, policy), sender=None)  # type: ignore[arg-type]
    other = site.objects(site.revision())
    assert [d.SOPInstanceUID for d in other.values()] != [d.SOPInstanceUID for d in first.values()] and len(other) == 1
    assert len(site.bench.rows("select id from revision")) == 3
