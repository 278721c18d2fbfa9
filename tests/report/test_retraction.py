"""A result that was withdrawn: report and picture that name their predecessors, what is scored afterwards, and a source that is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset

from node import retraction
from node.report.overlay import draw_overlay
from node.report.overlay_withdrawn import STAMP
from storage import retention
from storage.schema import series
from tests.report.conftest import Engine
from tests.report.test_overlay import CONTEXT, result
from tests.report.test_reporting import COMPREHENSIVE_3D, PLANTED, SC, Site, sets  # noqa: F401
from tests.support.reports import CAPTURE, SR_CLASSES, codes_of, groups_of, numbers_of, texts_of, validate

pytestmark = [pytest.mark.model, pytest.mark.peer]


def withdraw(site: Site, why: str | None = None) -> int:
    """What an operator's word comes to; the new revision, reported."""
    with site.place.engine.begin() as conn:
        conn.execute(series.update().values(operator_word="retract", operator_text=why))
        revision_id = retraction.withdraw(conn, site.place, conn.execute(sa.select(series)).one())
    assert revision_id is not None
    site.steps.assess(revision_id)
    site.steps.report(revision_id)
    return revision_id


def predecessor(ds: Dataset) -> str:
    [study] = ds.PredecessorDocumentsSequence
    [item] = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
    return str(item.ReferencedSOPInstanceUID)


def refusal(site: Site, uid: str) -> str:
    with site.place.reader.connect() as conn:
        return retraction.refusal(conn, uid)


def check(objects: dict[str, Dataset], first: dict[str, Dataset], words: str, site: Site, folder: Path) -> None:
    """What every withdrawal holds, in each class."""
    for uid, ds in objects.items():
        name = CAPTURE if uid == SC else next(SR_CLASSES[n] for n, u in _classes().items() if u == uid)
        assert validate(site.file(ds), name, folder) == []
        assert (ds.SeriesInstanceUID, ds.StudyInstanceUID, str(ds.PatientName)) == (first[uid].SeriesInstanceUID, first[uid].StudyInstanceUID, PLANTED)
        assert ds.SOPInstanceUID != first[uid].SOPInstanceUID and ds.InstanceNumber == first[uid].InstanceNumber + 1
    report = objects[COMPREHENSIVE_3D]
    assert predecessor(report) == first[COMPREHENSIVE_3D].SOPInstanceUID
    assert [code for code, _ in codes_of(report, "Verdict")] == ["Q124"] and texts_of(report, "Reason without score") == ["abstained/retracted"]
    assert list(groups_of(report)) == ["Series"] and list(numbers_of(groups_of(report)["Series"])) == ["Images received"]
    assert any(words in told for told in texts_of(report, "Comment"))
    assert f"replaces {first[SC].SOPInstanceUID}" in objects[SC].DerivationDescription


def _classes() -> dict[str, str]:
    from node.workplace import SR_CLASSES

    return SR_CLASSES


def test_a_withdrawal_and_what_is_scored_after_it(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:  # noqa: F811
    site = Site(tmp_path / "node", engine)
    uid = str(sets[0].SeriesInstanceUID)
    site.put(sets)
    assert refusal(site, "1.2.3").startswith("no series") and "nothing" in refusal(site, uid)
    first = site.objects(site.revision())
    assert refusal(site, uid) == ""
    gone = site.objects(withdraw(site, "the wrong protocol"))
    assert set(gone) == set(first)
    check(gone, first, "The result of revision 1 was withdrawn by an operator: the wrong protocol.", site, tmp_path)
    assert "retracted already, by revision 2" in refusal(site, uid) and site.scored == 1
    shown = site.bench.rows('select revision, "end", reason, score, verdict, retracted_at, ended_at from results order by revision')
    assert (shown[1]["end"], shown[1]["reason"], shown[1]["score"], shown[1]["verdict"]) == ("abstained", "retracted", None, None)
    assert shown[0]["verdict"] and shown[0]["retracted_at"] == shown[1]["ended_at"] and shown[1]["retracted_at"] is None
    # the row of the first is dropped from the queue, not sent after the word that withdraws it
    assert {(r["state"], r["number"]) for r in site.bench.rows(
        "select d.state, r.number from delivery d join revision r on r.id = d.revision_id")} == {("dropped", 1), ("pending", 2)}

    # the same model says the same of the same images: another object all the same, which names the withdrawal
    again = site.objects(site.revision())
    assert set(again) == set(first) and {d.SOPInstanceUID for d in again.values()}.isdisjoint(d.SOPInstanceUID for d in (*first.values(), *gone.values()))
    assert predecessor(again[COMPREHENSIVE_3D]) == gone[COMPREHENSIVE_3D].SOPInstanceUID
    assert [code for code, _ in codes_of(again[COMPREHENSIVE_3D], "Verdict")] == [code for code, _ in codes_of(first[COMPREHENSIVE_3D], "Verdict")]
    # and it may be withdrawn again, without a word
    check(site.objects(withdraw(site)), again, "The result of revision 3 was withdrawn by an operator.", site, tmp_path)
    assert [bool(r["retracted_at"]) for r in site.bench.rows("select retracted_at from results order by revision")] == [True, False, True, False]


def test_years_later_the_kept_report_stands_in_for_the_source(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:  # noqa: F811
    site = Site(tmp_path / "node", engine)
    for ds in sets:
        ds.SpecificCharacterSet, ds.ReferringPhysicianName = "ISO_IR 100", "M\u00fcller^Ute"
    site.put(sets)
    first = site.objects(site.revision())
    with site.place.engine.begin() as conn:
        retention.let_go(conn, 1, site.place.now())
    retention.delete_files(site.place.engine, site.place.objects, 1)
    assert not list(site.place.objects.walk())
    gone = site.objects(withdraw(site, "a defect of the detector was found"))
    check(gone, first, "a defect of the detector", site, tmp_path)
    assert {str(ds.ReferringPhysicianName) for ds in gone.values()} == {"M\u00fcller^Ute"}
    told = {str(i.ReferencedSOPInstanceUID) for s in gone[COMPREHENSIVE_3D].CurrentRequestedProcedureEvidenceSequence
            for r in s.ReferencedSeriesSequence for i in r.ReferencedSOPSequence}
    assert told == {str(ds.SOPInstanceUID) for ds in sets}


def test_nothing_is_reported_where_nothing_was(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:  # noqa: F811
    site = Site(tmp_path / "node", engine, on=())
    site.put(sets)
    site.revision()
    assert site.objects(withdraw(site)) == {} and site.bench.rows("select * from delivery") == []
    assert [r["reason"] for r in site.bench.rows("select reason from results order by revision")] == [None, "retracted"]


def grey(image: Any) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=float)


def test_the_picture_says_so_without_colour_and_as_a_thumbnail() -> None:
    scored = result()
    canvas = draw_overlay(retraction.withdrawn(scored, 1, "x" * 90 + " " + "y" * 90), CONTEXT)
    told = [words for words, _ in canvas.texts]
    assert {"Withdrawn", STAMP, "The result of this series is no longer valid. Do not use it.", "abstained: retracted"} <= set(told)
    assert not any(f"{scored.score:.0f}" == words for words in told) and not {"Good", "Usable", "Reject"} & set(told)
    pixels = np.asarray(canvas.image, dtype=int)
    assert (pixels.max(axis=2) - pixels.min(axis=2)).max() < 25  # greys alone: nothing that a colour would say
    small, other = grey(canvas.image.resize((128, 128))), grey(draw_overlay(scored, CONTEXT).image.resize((128, 128)))
    assert np.abs(small - other).mean() > 25
    stamp = small[57:112, 4:124]
    assert stamp.max() > 200 and 0.1 < (stamp > 120).mean() < 0.5  # strokes that are still light and apart


def test_pydicom_reads_the_words_back(engine: Engine, sets: list[Dataset], tmp_path: Path) -> None:  # noqa: F811
    """The same words in database, report and picture."""
    site = Site(tmp_path / "node", engine)
    site.put(sets)
    site.revision()
    report = site.objects(withdraw(site, "why"))[COMPREHENSIVE_3D]
    words = "The result of revision 1 was withdrawn by an operator: why."
    assert words in texts_of(report, "Comment") and words in site.bench.rows("select assessment from results order by revision")[1]["assessment"]
    assert isinstance(report, pydicom.Dataset)
