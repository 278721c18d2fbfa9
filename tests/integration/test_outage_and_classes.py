"""A PACS that is down, PACSs that take few SOP classes, reflected results, a sender that is not on the list."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import BasicTextSRStorage, EnhancedSRStorage, SecondaryCaptureImageStorage, Verification

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


def test_each_pacs_gets_the_class_that_it_takes_and_reflects_it_in_vain(tmp_path: Path, patient: Path) -> None:
    kinds = {"enhanced": SmallPacs(classes=[EnhancedSRStorage, SecondaryCaptureImageStorage]),
             "text": SmallPacs(classes=[BasicTextSRStorage, SecondaryCaptureImageStorage]),
             "pictures": SmallPacs(classes=[SecondaryCaptureImageStorage])}
    with ExitStack() as stack:
        for pacs in kinds.values():
            stack.enter_context(pacs)
        node = stack.enter_context(NodeUnderTest(tmp_path / "node", [(n, "PACS", p.port) for n, p in kinds.items()],
                                                 callers=("SENDER", "SECOND")))
        send(patient, node.port)
        end = next(iter(node.wait_for_ends(1).values()))
        wait_for(lambda: sorted(r["state"] for r in node.rows("select state from delivery")) == ["delivered"] * 5 + ["refused"], 60,
                 f"{node.rows('select * from delivery')}\n{node.tail()}")
        assert [str(ds.SOPClassUID) for ds in kinds["enhanced"].of_modality("SR")] == [EnhancedSRStorage]
        [text] = kinds["text"].of_modality("SR")
        assert text.SOPClassUID == BasicTextSRStorage and f"{end['score']:.1f}" in str([i.get("TextValue") for i in tree(text)])
        assert [str(ds.SOPClassUID) for ds in kinds["pictures"].datasets()] == [SecondaryCaptureImageStorage]
        refused = node.mediqa_json("delivery", "list", "--state", "refused")["deliveries"]
        assert [(r["destination"], r["kind"]) for r in refused] == [("pictures", "sr")]

        # every object comes back through another AE with a new patient and new file meta information
        made = node.rows("select count(*) as n from result_object")
        back = {ds.SOPInstanceUID: ds for pacs in kinds.values() for ds in pacs.datasets()}
        for k, ds in enumerate(back.values()):
            ds.PatientName, ds.PatientID = "REFLECTED^NAME", "SIM-REFLECTED"
            ds.file_meta.ImplementationClassUID, ds.file_meta.ImplementationVersionName = "1.2.3.4", "OTHER"
            ds.file_meta.SourceApplicationEntityTitle = "SECOND"
            ds.save_as(tmp_path / f"back-{k}.dcm", enforce_file_format=True)
        assert send(sorted(tmp_path.glob("back-*.dcm")), node.port, calling="SECOND") == len(back) == 3
        ends = node.wait_for_ends(1 + len({ds.SeriesInstanceUID for ds in back.values()}))
        for ds in back.values():
            assert (ends[ds.SeriesInstanceUID]["outcome"], ends[ds.SeriesInstanceUID]["reason"]) == ("skipped", "own-result")
        time.sleep(2)
        assert node.rows("select count(*) as n from result_object") == made
        assert [sum(pacs.times.values()) for pacs in kinds.values()] == [2, 2, 1]


def tree(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """All content items of a report."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from tree(child)


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
