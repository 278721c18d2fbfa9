"""The same content always has the same UID and the same bytes; other content never has (DESIGN section 6)."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID

from node.report.context import Predecessor, RenderContext
from node.report.render import render_results
from node.report.source_header import read_source_header
from tests.support.reports import SR_CLASSES, Scored, changed, context, put_bytes, validate, walk

pytestmark = [pytest.mark.model]

AGAIN = """
import pickle, sys
from node.report.render import render_results
a, files, facts, classes, source = pickle.load(open(sys.argv[1], "rb"))
pickle.dump([o.data for o in render_results(a, files, facts, classes, True, source)], open(sys.argv[2], "wb"))
"""


def uids(series: Scored, facts: RenderContext, change: Callable[[Dataset], None] | None = None, folder: Path | None = None) -> dict[str, tuple[str, str]]:
    """SOP Instance and Series Instance UID of each object."""
    files = series.files if change is None or folder is None else changed(series.files, folder, change)
    made = render_results(series.assessment, files, facts, ["basic-text"])
    return {o.sop_class_uid: (o.sop_uid, o.series_uid) for o in made}


def test_rendered_again_in_another_process_at_another_time(scored: dict[str, Scored], tmp_path: Path) -> None:
    """Identical bytes with the same stored facts: nothing of the moment, of another program or of the order of a set is in them."""
    series = scored["enhanced"]
    facts = context(predecessors={"sr": (Predecessor("1.2.840.10008.5.1.4.1.1.88.22", "2.25.5", "2.25.6", "2.25.7"),)}, instance_numbers={"sr": 2, "sc": 5})
    first = [o.data for o in render_results(series.assessment, series.files, facts, list(SR_CLASSES), True, series.source)]
    began = time.time()
    (tmp_path / "in").write_bytes(pickle.dumps((series.assessment, series.files, facts, list(SR_CLASSES), series.source)))
    subprocess.run([sys.executable, "-c", AGAIN, str(tmp_path / "in"), str(tmp_path / "out")], check=True,
                   env=dict(os.environ, PYTHONHASHSEED="1", PYTHONPATH=str(Path(__file__).resolve().parents[2])))
    time.sleep(max(0.0, 1.0 - (time.time() - began)))  # DICOM times have seconds
    assert pickle.loads((tmp_path / "out").read_bytes()) == first
    assert [o.data for o in render_results(series.assessment, series.files, facts, list(SR_CLASSES), True, series.source)] == first
    today = datetime.now(UTC).strftime("%Y%m%d").encode()
    assert not any(today in data for data in first)
    meta = pydicom.dcmread(BytesIO(first[1])).file_meta
    assert meta.ImplementationVersionName.startswith("MEDIQA") and meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("more", [
    {"made_at": datetime(2025, 1, 1, tzinfo=UTC)}, {"revision": 2}, {"version": "9.9"}, {"node_name": "other"}, {"instance_numbers": {"sr": 7, "sc": 9}},
    {"standard_verdict": True}, {"charset": "utf-8"}, {"series_numbers": {"sr": 1, "sc": 2}},
    {"predecessors": {"sr": (Predecessor("1.2", "1.3", "1.4", "1.5"),)}}], ids=lambda m: next(iter(m)))
def test_what_leaves_uids_alone(scored: dict[str, Scored], more: dict[str, Any]) -> None:
    assert uids(scored["mr"], context(**more)) == uids(scored["mr"], context())


@pytest.mark.parametrize("more, series_too", [({"content_digest": "e" * 64}, False), ({"model_digest": "e" * 64}, False), ({"node_id": "e" * 32}, True)],
                         ids=["instances", "model or policy", "node"])
def test_other_content_has_other_uids(scored: dict[str, Scored], more: dict[str, Any], series_too: bool) -> None:
    before, after = uids(scored["mr"], context()), uids(scored["mr"], context(**more))
    for sop_class in before:
        assert before[sop_class][0] != after[sop_class][0]
        assert (before[sop_class][1] != after[sop_class][1]) == series_too


@pytest.mark.parametrize("keyword, value", [("PatientName", b"SIMULATED^OTHER"), ("PatientID", b"SIM-9"), ("PatientBirthDate", b"19700203"),
                                            ("PatientSex", b"F"), ("AccessionNumber", b"A1"), ("StudyInstanceUID", b"1.2.3.4"),
                                            ("StudyDescription", b"OTHER"), ("IssuerOfPatientID", b"TEST")])
def test_another_identity_is_another_series(scored: dict[str, Scored], keyword: str, value: bytes, tmp_path: Path) -> None:
    """Patient and study attributes are the same in all instances of a series, so a corrected one makes new objects in a new series."""
    before, after = uids(scored["mr"], context()), uids(scored["mr"], context(), lambda ds: put_bytes(ds, keyword, value), tmp_path)
    assert all(before[c][0] != after[c][0] and before[c][1] != after[c][1] for c in before)


def test_what_is_no_identity_leaves_uids_alone(scored: dict[str, Scored], tmp_path: Path) -> None:
    def change(ds: Dataset) -> None:
        ds.InstitutionName, ds.PatientAge, ds.OperatorsName = "TEST", "050Y", "TEST"

    assert uids(scored["mr"], context(), change, tmp_path) == uids(scored["mr"], context())


def test_every_class_and_series_has_uids_of_its_own(scored: dict[str, Scored]) -> None:
    """One SR series per source series, one SC series per study; one SOP Instance UID never has two classes."""
    series = scored["mr"]
    other = dataclasses.replace(series, assessment=dataclasses.replace(series.assessment, series_uid="1.2.3.4.5"))
    made = [o for s in (series, other) for o in render_results(s.assessment, s.files, context(), list(SR_CLASSES), True, s.source)]
    assert len({o.sop_uid for o in made}) == len(made) == 10
    assert all(UID(uid).is_valid and len(uid) <= 44 and uid.startswith("2.25.") for o in made for uid in (o.sop_uid, o.series_uid))
    assert len({o.series_uid for o in made if o.kind == "sc"}) == 1 and len({o.series_uid for o in made if o.kind == "sr"}) == 2
    for o in made:
        ds = pydicom.dcmread(BytesIO(o.data), stop_before_pixels=True)
        assert (ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID) == (o.sop_class_uid, o.sop_uid, o.series_uid, o.study_uid)
        mark = ds.ContributingEquipmentSequence[0]
        assert (mark.Manufacturer, mark.DeviceSerialNumber) == ("MedIQA Node", context().node_id) and UID(mark.DeviceUID).is_valid


def test_series_attributes_are_those_of_the_first_instance(scored: dict[str, Scored]) -> None:
    series = scored["mr"]
    first = render_results(series.assessment, series.files, context(), ["enhanced", "basic-text"])
    fixed = {o.kind: o.series_attributes for o in first}
    later = context(made_at=datetime(2025, 1, 1, tzinfo=UTC), series=fixed, series_numbers={"sr": 1, "sc": 2})
    source = dataclasses.replace(series.source, body_part="CHEST")
    for before, after in zip(first, render_results(series.assessment, series.files, later, ["enhanced", "basic-text"], True, source), strict=True):
        a, b = (pydicom.dcmread(BytesIO(o.data), stop_before_pixels=True) for o in (before, after))
        for keyword in ("SeriesDate", "SeriesTime", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "Laterality", "Modality"):
            assert a.get(keyword) == b.get(keyword), keyword
        assert a.ContentDate != b.ContentDate and after.series_attributes == before.series_attributes


@pytest.mark.peer
def test_a_series_of_a_thousand_images(scored: dict[str, Scored], tmp_path: Path) -> None:
    """All instances are evidence; what it costs grows slowly: compared with twenty images on the same machine."""
    series = scored["mr"]

    def with_instances(count: int) -> Scored:
        evidence = list(series.source.evidence)
        for k in range(count - len(evidence)):
            ds = Dataset()
            for element in evidence[0]:
                setattr(ds, element.keyword, element.value)
            ds.SOPInstanceUID = f"{series.assessment.series_uid}.{1000 + k}"
            evidence.append(ds)
        return dataclasses.replace(series, source=dataclasses.replace(series.source, evidence=evidence))

    small, large = with_instances(20), with_instances(1000)

    def seconds(one: Scored) -> tuple[float, bytes]:
        best = 1e9
        for _ in range(2):
            began = time.process_time()
            data = render_results(one.assessment, one.files, context(), ["comprehensive-3d"], False, one.source)[0].data
            best = min(best, time.process_time() - began)
        return best, data

    (few, _), (many, data) = seconds(small), seconds(large)
    assert len(data) < 200_000 and many < 4 * few
    assert validate(data, "Comprehensive3DSR", tmp_path) == []
    report = pydicom.dcmread(BytesIO(data))
    assert len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence) == 1000


@pytest.mark.peer
def test_every_slice_scored(scored: dict[str, Scored], tmp_path: Path) -> None:
    """With `engine.slices: full` each slice has its group, numbers of the series name the seven lowest: the file stays readable."""
    series = scored["ct"]
    first = series.assessment.slices[0]
    slices = tuple(dataclasses.replace(first, sop_uid=f"{series.assessment.series_uid}.{k}", ordinal=k, score=float(k), weight=1 / 30) for k in range(1, 31))
    evidence = []
    for s in slices:
        ds = Dataset()
        for element in series.source.evidence[0]:
            setattr(ds, element.keyword, element.value)
        ds.SOPInstanceUID = s.sop_uid
        evidence.append(ds)
    a = dataclasses.replace(series.assessment, slices=slices, pictures=())
    made = render_results(a, series.files, context(), ["enhanced"], False, dataclasses.replace(series.source, evidence=evidence))[0]
    assert validate(made.data, "EnhancedSR", tmp_path) == [] and len(made.data) < 160_000
    report = pydicom.dcmread(BytesIO(made.data))
    numbers = [i for i, _ in walk(report) if i.ValueType == "NUM"]
    assert max(len(n.ContentSequence) for n in numbers) == 7
    assert sum(n.ConceptNameCodeSequence[0].CodeMeaning == "Image Quality Rating" for n in numbers) == 30


def test_the_source_of_a_rendering_is_its_files(scored: dict[str, Scored]) -> None:
    """Read again, in another order, the header says the same."""
    files = scored["ct"].files
    one, two = read_source_header(files), read_source_header(files[::-1])
    assert (one.values, one.digest, one.charset, one.body_part) == (two.values, two.digest, two.charset, two.body_part)
    assert {d.SOPInstanceUID for d in one.evidence} == {d.SOPInstanceUID for d in two.evidence}
