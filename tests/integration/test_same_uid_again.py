"""The same SOP Instance UID again, through a running node: each row of the table of DESIGN section 5, one after the other."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from pydicom.uid import JPEGLSLossless, generate_uid
from pynetdicom import AE, build_context

from tests.support.checkpoint import steady
from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model]

COUNT = 10


class Story:
    """One series at a running node: `send` some versions, look at its revisions and at what the PACS holds."""

    def __init__(self, node: NodeUnderTest, pacs: SmallPacs, sets: list[pydicom.Dataset]) -> None:
        self.node, self.pacs, self.sets = node, pacs, sets

    def send(self, *sets: pydicom.Dataset) -> None:
        ae = AE("SENDER")
        ae.requested_contexts = [build_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID) for ds in sets[:1]]
        assoc = steady(ae.associate("127.0.0.1", self.node.port, ae_title="MEDIQA"))
        assert assoc.is_established
        assert [assoc.send_c_store(ds).Status for ds in sets] == [0x0000] * len(sets)  # whatever came, the answer is SUCCESS
        assoc.release()

    def another(self, k: int, **values: Any) -> pydicom.Dataset:
        ds = copy.deepcopy(self.sets[k])
        for name, value in values.items():
            setattr(ds, name, value)
        return ds

    def revisions(self) -> list[dict[str, Any]]:
        return self.node.rows("select r.* from revision r join series s on s.id = r.series_id where s.series_uid = ? order by number",
                              self.sets[0].SeriesInstanceUID)

    def delivered(self, count: int) -> list[dict[str, Any]]:
        """Revisions, once there are `count`, all ended and delivered."""
        return wait_for(lambda: self.revisions() if len([r for r in self.revisions() if r["outcome"]]) == count
                        and len(self.pacs.of_modality("SR")) == len(self.pacs.of_modality("OT")) == count else None, 60,
                        f"{count} revisions: {self.revisions()}\n{self.node.tail()}")

    def settled(self) -> None:
        """Everything that came has its name, and the series is closed again."""
        wait_for(lambda: not self.node.rows("select id from instance where arrival = 'unclassified'")
                 and not self.node.rows("select id from series where state = 'open'"), 30, self.node.tail())
        time.sleep(0.5)

    def versions(self, k: int) -> list[tuple[str, int]]:
        rows = self.node.rows("select arrival, current from instance where sop_uid = ? order by id", self.sets[k].SOPInstanceUID)
        return [(r["arrival"], r["current"]) for r in rows]

    def events(self, name: str) -> int:
        return len(self.node.rows("select seq from audit where event = ?", name))


@pytest.fixture
def story(tmp_path: Any) -> Iterator[Story]:
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", tmp_path / "patient", slices=COUNT, size=128, seed=5)
    sets = [pydicom.dcmread(p) for p in sorted((tmp_path / "patient").iterdir())]
    with SmallPacs() as pacs, NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)]) as node:
        yield Story(node, pacs, sets)


def test_the_table(story: Story) -> None:
    story.send(*story.sets)
    [first] = story.delivered(1)
    assert first["outcome"] == "assessed"
    begun = story.events("ended")

    # identical: nothing changes
    story.send(*story.sets)
    story.settled()
    assert story.versions(0) == [("new", 1)] and len(story.revisions()) == 1

    # the same pixels in another transfer syntax: the first stays current
    again = [story.another(k) for k in range(3)]
    for ds in again:
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
    story.send(*again)
    story.settled()
    assert story.versions(1) == [("new", 1), ("transcoded", 0)] and len(story.revisions()) == 1
    assert story.events("transcoded") == 3 and story.events("ended") == begun

    # another identity: rendered anew as the next revision, without scoring
    corrected = {"PatientName": "SIMULATED^CORRECTED", "PatientID": "SIM-CORRECTED", "AccessionNumber": "A7"}
    story.send(*(story.another(k, **corrected) for k in range(COUNT)))
    _, second = story.delivered(2)
    assert (second["purpose"], second["outcome"], second["instances"]) == ("identity", "assessed", COUNT)
    assert (second["score"], second["low"], second["verdict"]) == (first["score"], first["low"], first["verdict"])
    assert story.versions(3) == [("new", 0), ("update", 1)] and story.events("update") == COUNT
    reports = story.pacs.of_modality("SR")
    one, two = (next(ds for ds in reports if str(ds.PatientID) == p) for p in (story.sets[0].PatientID, "SIM-CORRECTED"))
    assert str(two.PatientName) == "SIMULATED^CORRECTED" and two.AccessionNumber == "A7"
    assert numbers(one) == numbers(two) != []
    assert [str(r.ReferencedSOPInstanceUID) for r in predecessors(two)] == [str(one.SOPInstanceUID)]
    assert one.SeriesInstanceUID != two.SeriesInstanceUID  # the identity is part of the result series
    assert {str(ds.PatientID) for ds in story.pacs.of_modality("OT")} == {str(story.sets[0].PatientID), "SIM-CORRECTED"}

    # an attribute that the engine reads: a scored revision
    story.send(story.another(4, **corrected, EchoTime=float(story.sets[4].EchoTime) + 7))
    third = story.delivered(3)[2]
    assert (third["purpose"], third["outcome"]) == ("score", "assessed") and third["total_seconds"] > 0
    assert story.versions(4) == [("new", 0), ("update", 0), ("update", 1)]

    # other pixels: both are kept, the first stays current, the series and the audit log say so
    other = story.another(5, **corrected)
    other.PixelData = bytes(len(other.PixelData))
    story.send(other)
    story.settled()
    assert story.versions(5) == [("new", 0), ("update", 1), ("conflict", 0)]
    assert len(story.revisions()) == 3 and story.events("conflict") == 1
    uid = story.sets[0].SeriesInstanceUID
    assert story.node.mediqa_json("series", "show", uid)["series"][0]["conflicts"] == 1
    files = story.node.rows("select path from instance where sop_uid = ?", story.sets[5].SOPInstanceUID)
    assert all((story.node.folder / "data" / "objects" / f["path"]).is_file() for f in files) and len(files) == 3

    # the same UID in another series: as a conflict, and no work for a series that has nothing of its own
    stray = story.another(6, SeriesInstanceUID=generate_uid())
    story.send(stray)
    story.settled()
    assert story.versions(6)[-1] == ("conflict", 0) and story.versions(6)[-2][1] == 1 and story.events("conflict") == 2
    assert story.node.rows("select r.id from revision r join series s on s.id = r.series_id where s.series_uid = ?",
                           stray.SeriesInstanceUID) == []

    # what is scored next tells of the conflict; three automatic revisions are the day's measure, so an operator speaks
    story.node.mediqa("series", "rescore", uid)
    fourth = wait_for(lambda: r[3] if len(r := story.revisions()) == 4 and r[3]["outcome"] else None, 60, story.node.tail())
    assert (fourth["completed_by"], fourth["outcome"]) == ("operator", "assessed") and '"uid-conflict"' in fourth["assessment"]
    story.node.mediqa("audit", "verify")
    assert "Traceback" not in story.node.log.read_text(errors="replace")


def numbers(item: pydicom.Dataset) -> list[tuple[str, float]]:
    """All numbers of a report with their names, in order."""
    found = []
    for child in item.get("ContentSequence", []):
        if child.ValueType == "NUM":
            found.append((str(child.ConceptNameCodeSequence[0].CodeMeaning), float(child.MeasuredValueSequence[0].NumericValue)))
        found += numbers(child)
    return found


def predecessors(report: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [item for study in report.PredecessorDocumentsSequence for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence]
