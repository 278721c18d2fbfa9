"""A PACS that is down, one that takes only Enhanced SR, a sender that is not on the list."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import EnhancedSRStorage, SecondaryCaptureImageStorage, Verification

from tests.support.node import NodeUnderTest, send
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from qa_engine.simulation.dicom_series import write_sample

    folder = tmp_path_factory.mktemp("patient")
    write_sample("mr", folder, slices=10, size=128, seed=5)
    return folder


def test_destination_down_for_three_tries_holds_one_copy_in_the_end(tmp_path: Path, patient: Path) -> None:
    pacs = SmallPacs()
    node = NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)])
    with node:
        send(patient, node.port)
        node.wait_for_ends(1)
        wait_for(lambda: sum(r["tries"] for r in node.rows("select tries from delivery")) >= 3
                 or node.rows("select failures from destination where failures >= 3"), 90, f"three tries\n{node.tail()}")
        pacs.start()
        try:
            rows = node.wait_delivered()
            time.sleep(3)
            assert {r["kind"] for r in rows} == {"sr", "sc"}
            assert set(pacs.times.values()) == {1} and len(pacs.times) == 2
        finally:
            pacs.stop()


def test_a_pacs_that_takes_only_enhanced_sr_gets_that(tmp_path: Path, patient: Path) -> None:
    with (SmallPacs(classes=[EnhancedSRStorage, SecondaryCaptureImageStorage]) as pacs,
          NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)]) as node):
        send(patient, node.port)
        node.wait_for_ends(1)
        node.wait_delivered()
        assert [ds.SOPClassUID for ds in pacs.of_modality("SR")] == [EnhancedSRStorage]


def test_strangers_are_rejected_with_the_dicom_reason(tmp_path: Path) -> None:
    with NodeUnderTest(tmp_path / "node", []) as node:
        for calling, called, reason in (("STRANGER", "MEDIQA", (1, 1, 3)), ("SENDER", "OTHER", (1, 1, 7))):
            ae = AE(calling)
            ae.add_requested_context(Verification)
            assoc = ae.associate("127.0.0.1", node.port, ae_title=called)
            assert assoc.is_rejected
            primitive = assoc.acceptor.primitive
            assert (primitive.result, primitive.result_source, primitive.diagnostic) == reason
        assert wait_for(lambda: node.rows("select * from audit where event like '%reject%' or event like '%refus%'"), 10, "audited")


def test_revision_two_names_the_first_as_predecessor(tmp_path: Path, patient: Path) -> None:
    files = sorted(p for p in patient.iterdir() if p.is_file())
    with SmallPacs() as pacs, NodeUnderTest(tmp_path / "node", [("pacs", "PACS", pacs.port)]) as node:
        send(files[:-1], node.port)
        node.wait_for_ends(1)
        node.wait_delivered()
        first = pacs.of_modality("SR")[0].SOPInstanceUID
        send(files[-1:], node.port)
        wait_for(lambda: node.rows("select id from revision where number = 2 and outcome is not null"), 60, f"revision 2\n{node.tail()}")
        wait_for(lambda: len(pacs.of_modality("SR")) == 2 and len(pacs.of_modality("OT")) == 2, 60, "new results")
        second = next(ds for ds in pacs.of_modality("SR") if ds.SOPInstanceUID != first)
        named = [item.ReferencedSOPInstanceUID for study in second.PredecessorDocumentsSequence
                 for series in study.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
        assert named == [first]
        assert len({ds.SeriesInstanceUID for ds in pacs.of_modality("SR")}) == 1
        send(files, node.port)  # duplicates change nothing
        time.sleep(5)
        assert node.rows("select max(number) as n from revision")[0]["n"] == 2
