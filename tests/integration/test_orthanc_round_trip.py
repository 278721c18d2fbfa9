"""The main job: Orthanc forwards a study, the node answers with SR and SC in the same study, the audit log tells the story."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.support.data import data_folder
from tests.support.node import NodeUnderTest
from tests.support.orthanc import Orthanc
from tests.support.ports import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.data, pytest.mark.model]

STUDIES = {"ct_abdomen": "CT", "brain-t1-post-siemens-3t": "MR", "brain-t1-enhanced-siemens-3t": "MR"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeUnderTest, Orthanc, dict[str, str]]]:
    """Node and Orthanc after the three studies went round; Orthanc's study identifiers by folder name."""
    data = data_folder()
    folder = tmp_path_factory.mktemp("site")
    orthanc = Orthanc(folder / "orthanc")
    node = NodeUnderTest(folder / "node", [("orthanc", "ORTHANC", orthanc.dicom_port)])
    orthanc.start(node.port)
    try:
        with node:
            studies = {name: orthanc.upload(data / "series" / name) for name in STUDIES}
            for study in studies.values():
                orthanc.forward(study)
            node.wait_for_ends(len(STUDIES), 240)
            node.wait_delivered()
            yield node, orthanc, studies
    finally:
        orthanc.stop()


def results(orthanc: Orthanc, study: str, modality: str) -> list[list[bytes]]:
    """The files of each result series of that modality in the study."""
    return [[orthanc.file(i) for i in series["Instances"]] for series in orthanc.series(study)
            if series["MainDicomTags"].get("Modality") == modality]


@pytest.mark.parametrize("name", STUDIES)
def test_study_gets_one_sr_series_and_one_sc_series(site, name: str) -> None:
    _, orthanc, studies = site
    for modality in ("SR", "OT"):
        found = results(orthanc, studies[name], modality)
        assert [len(files) for files in found] == [1], modality


@pytest.mark.parametrize("name", STUDIES)
def test_validators_and_dump(site, name: str, tmp_path: Path) -> None:
    node, orthanc, studies = site
    for modality in ("SR", "OT"):
        file = tmp_path / f"{modality}.dcm"
        file.write_bytes(results(orthanc, studies[name], modality)[0][0])
        said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
    dump = subprocess.run(["dsrdump", str(tmp_path / "SR.dcm")], capture_output=True, text=True).stdout
    source = next(s for s in orthanc.series(studies[name]) if s["MainDicomTags"]["Modality"] == STUDIES[name])
    end = node.ends()[source["MainDicomTags"]["SeriesInstanceUID"]]
    for word in ("Image Set Quality Rating", "Lower limit of 90% interval", "Upper limit of 90% interval", "Verdict",
                 "Image Quality Rating", "Weight in series score", end["verdict"], f"{end['score']:.1f}"):
        assert word in dump, word


def test_database_row_equals_sr(site) -> None:
    node, orthanc, studies = site
    for name, modality in STUDIES.items():
        report = pydicom.dcmread(BytesIO(results(orthanc, studies[name], "SR")[0][0]))
        source = next(s for s in orthanc.series(studies[name]) if s["MainDicomTags"]["Modality"] == modality)
        end = node.ends()[source["MainDicomTags"]["SeriesInstanceUID"]]
        assert end["outcome"] == "assessed"
        values = numbers(report)
        assert values["Image Set Quality Rating"][0] == round(end["score"], 1)
        assert values["Lower limit of 90% interval"][0] == round(end["low"], 1)
        assert values["Upper limit of 90% interval"][0] == round(end["high"], 1)


def numbers(item: pydicom.Dataset) -> dict[str, list[float]]:
    """All NUM items of a content tree by the meaning of their concept name."""
    found: dict[str, list[float]] = {}
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM":
            value = float(child.MeasuredValueSequence[0].NumericValue)
            found.setdefault(child.ConceptNameCodeSequence[0].CodeMeaning, []).append(value)
        for name, more in numbers(child).items():
            found.setdefault(name, []).extend(more)
    return found


def test_orthanc_reflects_everything_with_new_names_and_nothing_happens(site) -> None:
    """A PACS that routes everything sends our own objects back, with a coerced patient name and new file meta information."""
    node, orthanc, studies = site
    before = node.rows("select count(*) as n from result_object")[0]["n"]
    files = [f for study in studies.values() for modality in ("SR", "OT") for group in results(orthanc, study, modality) for f in group]
    for file in files:
        ds = pydicom.dcmread(BytesIO(file))
        ds.PatientName = "COERCED^NAME"
        ds.file_meta.ImplementationVersionName = "OTHER"
        out = BytesIO()
        ds.save_as(out, enforce_file_format=True)
        orthanc.rest("/instances", out.getvalue())
    for study in studies.values():
        orthanc.forward(study)
    own = [pydicom.dcmread(BytesIO(f)).SeriesInstanceUID for f in files]
    ends = wait_for(lambda: e if all(u in (e := node.ends()) for u in own) else None, 60, f"own results have no end\n{node.tail()}")
    assert {(ends[u]["outcome"], ends[u]["reason"]) for u in own} == {("skipped", "own-result")}
    assert node.rows("select count(*) as n from result_object")[0]["n"] == before


def test_audit_tells_the_story_and_holds(site) -> None:
    node, orthanc, studies = site
    for study in studies.values():
        source = next(s for s in orthanc.series(study) if s["MainDicomTags"]["Modality"] in ("CT", "MR"))
        uid = source["MainDicomTags"]["SeriesInstanceUID"]
        events = [row["event"] for row in node.rows("select event from audit where series_uid = ? order by seq", uid)]
        for step in ("received", "completed", "ended", "reported", "delivered"):
            assert step in events, (step, events)
    node.mediqa("audit", "verify")


def test_no_patient_name_in_log_or_audit(site) -> None:
    node, orthanc, studies = site
    for study in studies.values():
        tags = orthanc.rest(f"/studies/{study}")["PatientMainDicomTags"]
        for value in (tags.get("PatientName", ""), tags.get("PatientID", "")):
            if len(value) >= 5:
                assert value not in node.log.read_text(errors="replace")
                assert not node.rows("select seq from audit_record where details like ?", f"%{value}%")
