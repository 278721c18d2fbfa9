"""How series arrive at a running node, waits scaled down: in pieces, interleaved, aborted, on associations that stay open."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context

from tests.support.checkpoint import steady
from tests.support.node import NodeUnderTest
from tests.support.pacs import SmallPacs
from tests.support.ports import wait_for

pytestmark = [pytest.mark.model]

QUIET, CONTIGUOUS = 4.0, 2.5
Site = tuple[NodeUnderTest, SmallPacs]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("node")
    with SmallPacs() as pacs, NodeUnderTest(folder, [("pacs", "PACS", pacs.port)], quiet=QUIET, contiguous=CONTIGUOUS,
                                            announced=1) as node:
        yield node, pacs


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> list[pydicom.Dataset]:
    from qa_engine.simulation.dicom_series import write_sample

    folder = tmp_path_factory.mktemp("patient")
    write_sample("mr", folder, slices=10, size=128, seed=5)
    return [pydicom.dcmread(p) for p in sorted(folder.iterdir())]


@pytest.fixture
def sets(patient: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    """The ten slices as a series of their own."""
    return fresh(patient)


def fresh(patient: list[pydicom.Dataset]) -> list[pydicom.Dataset]:
    study, series = generate_uid(), generate_uid()
    made = [copy.deepcopy(ds) for ds in patient]
    for ds in made:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return made


def associate(port: int, ds: pydicom.Dataset) -> Any:
    ae = AE("SENDER")
    ae.requested_contexts = [build_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)]
    assoc = steady(ae.associate("127.0.0.1", port, ae_title="MEDIQA"))
    assert assoc.is_established
    return assoc


def store(assoc: Any, *sets: pydicom.Dataset, pause: float = 0.0) -> None:
    for ds in sets:
        assert assoc.send_c_store(ds).Status == 0x0000
        time.sleep(pause)


def revisions(node: NodeUnderTest, sets: list[pydicom.Dataset]) -> list[dict[str, Any]]:
    return node.rows("select r.*, s.id as series from revision r join series s on s.id = r.series_id where s.series_uid = ? order by number",
                     sets[0].SeriesInstanceUID)


def wait_ended(node: NodeUnderTest, sets: list[pydicom.Dataset], count: int = 1) -> list[dict[str, Any]]:
    return wait_for(lambda: r if len(r := revisions(node, sets)) >= count and all(x["outcome"] for x in r) else None, 60,
                    f"{count} revisions\n{node.tail()}")


def results(pacs: SmallPacs, sets: list[pydicom.Dataset]) -> list[str]:
    """Modalities of what the PACS got in the study."""
    return sorted(ds.Modality for ds in pacs.datasets() if ds.StudyInstanceUID == sets[0].StudyInstanceUID)


def wait_results(node: NodeUnderTest, pacs: SmallPacs, sets: list[pydicom.Dataset], want: list[str]) -> None:
    wait_for(lambda: results(pacs, sets) == want, 60, f"{want} but {results(pacs, sets)}\n{node.tail()}")


def test_interleaved_series_on_several_associations(site: Site, patient: list[pydicom.Dataset]) -> None:
    """Two series, each spread over three associations at once, slices in any order: one result each, of all slices."""
    node, pacs = site
    both = [fresh(patient), fresh(patient)]
    mixed = [ds for sets in both for ds in sets]
    random.Random(3).shuffle(mixed)

    def send(part: list[pydicom.Dataset]) -> None:
        assoc = associate(node.port, part[0])
        store(assoc, *part, pause=0.05)
        assoc.release()

    threads = [threading.Thread(target=send, args=(mixed[k::3],)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for sets in both:
        [revision] = wait_ended(node, sets)
        assert (revision["instances"], revision["missing"], revision["outcome"]) == (10, 0, "assessed")
        assert revision["completed_by"] in ("contiguous", "quiet")
        wait_results(node, pacs, sets, ["OT", "SR"])
    assert [len(revisions(node, sets)) for sets in both] == [1, 1]


def test_one_slice_per_association_with_pauses_gives_one_result(site: Site, sets: list[pydicom.Dataset]) -> None:
    node, pacs = site
    for ds in sets:  # each prefix is a gap-free run whose association was released
        assoc = associate(node.port, ds)
        store(assoc, ds)
        assoc.release()
        time.sleep(0.5)
    [revision] = wait_ended(node, sets)
    assert (revision["completed_by"], revision["instances"], revision["outcome"]) == ("contiguous", 10, "assessed")
    wait_results(node, pacs, sets, ["OT", "SR"])
    received = node.rows("select seq from audit where event = 'received' and series_uid = ?", sets[0].SeriesInstanceUID)
    assert len(received) == 10 and len(revisions(node, sets)) == 1
    [habit] = node.rows("select * from waits where calling_ae = 'SENDER' and modality = 'MR'")  # learned with fixed waits as well
    assert habit["longest_between_seconds"] >= 0.5 and habit["wait_seconds"] is None


def test_an_association_that_is_never_released_holds_nothing_back(site: Site, sets: list[pydicom.Dataset]) -> None:
    node, pacs = site
    assoc = associate(node.port, sets[0])
    try:
        store(assoc, *sets)
        began = time.monotonic()
        [revision] = wait_ended(node, sets)
        assert time.monotonic() - began >= QUIET - 0.5
        assert (revision["completed_by"], revision["outcome"]) == ("quiet", "assessed")
        wait_results(node, pacs, sets, ["OT", "SR"])
        assert assoc.is_established and assoc.send_c_store(sets[0]).Status == 0x0000  # it is open all the time
    finally:
        assoc.release()
    time.sleep(1)
    assert len(revisions(node, sets)) == 1


def test_an_abort_in_the_middle_then_the_rest_soon_is_one_revision(site: Site, sets: list[pydicom.Dataset]) -> None:
    node, pacs = site
    assoc = associate(node.port, sets[0])
    store(assoc, *sets[:5])
    assoc.abort()
    wait_for(lambda: node.rows("select id from association where how = 'aborted'"), 10, "the abort is recorded")
    time.sleep(CONTIGUOUS)  # an aborted association is no evidence that the run is over: the full wait counts
    assert revisions(node, sets) == []
    assoc = associate(node.port, sets[0])
    store(assoc, *sets[4:])  # the last one again: its answer might have been lost
    assoc.release()
    [revision] = wait_ended(node, sets)
    assert (revision["completed_by"], revision["instances"], revision["missing"]) == ("contiguous", 10, 0)
    wait_results(node, pacs, sets, ["OT", "SR"])


def test_an_abort_then_the_rest_late_is_a_second_revision_with_its_reason(site: Site, sets: list[pydicom.Dataset]) -> None:
    node, pacs = site
    assoc = associate(node.port, sets[0])
    store(assoc, *sets[:3], *sets[4:6])
    assoc.abort()
    [first] = wait_ended(node, sets)
    assert (first["completed_by"], first["instances"], first["missing"]) == ("quiet", 5, 1)
    assoc = associate(node.port, sets[0])
    store(assoc, sets[3], *sets[6:])
    assoc.release()
    _, second = wait_ended(node, sets, 2)
    assert (second["completed_by"], second["instances"], second["missing"], second["outcome"]) == ("contiguous", 10, 0, "assessed")
    told = node.rows("select details from audit where event = 'completed' and series_uid = ? order by seq", sets[0].SeriesInstanceUID)
    assert [('"reason":"quiet"' in t["details"], '"reason":"contiguous"' in t["details"]) for t in told] == [(True, False), (False, True)]
    assessed = [r for r in revisions(node, sets) if r["outcome"] == "assessed"]
    wait_results(node, pacs, sets, ["OT"] * len(assessed) + ["SR"] * len(assessed))


def test_a_missing_slice_is_reported(site: Site, sets: list[pydicom.Dataset]) -> None:
    node, pacs = site
    assoc = associate(node.port, sets[0])
    store(assoc, *sets[:4], *sets[5:])
    assoc.release()
    [revision] = wait_ended(node, sets)
    assert (revision["completed_by"], revision["instances"], revision["missing"]) == ("quiet", 9, 1)
    assert '"missing-slices"' in revision["assessment"]
    shown = node.mediqa_json("series", "show", sets[0].SeriesInstanceUID)["revisions"]
    assert [(r["completed_by"], r["missing"]) for r in shown] == [("quiet", 1)]
    if revision["outcome"] == "assessed":
        wait_results(node, pacs, sets, ["OT", "SR"])
        [report] = [ds for ds in pacs.of_modality("SR") if ds.StudyInstanceUID == sets[0].StudyInstanceUID]
        said = [str(item.TextValue) for item in tree(report) if item.get("ValueType") == "TEXT"]
        assert any("missing" in text for text in said), said


def tree(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """All content items of a report."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from tree(child)


def test_a_second_slice_while_the_first_revision_is_at_work_changes_nothing_of_it(site: Site, sets: list[pydicom.Dataset]) -> None:
    """What an assessment sees is frozen: an instance that comes during it is the next revision's."""
    node, _ = site
    assoc = associate(node.port, sets[0])
    store(assoc, *sets[:9])
    assoc.release()
    wait_for(lambda: revisions(node, sets), 60, "completed", every=0.02)
    assoc = associate(node.port, sets[0])
    store(assoc, sets[9])
    assoc.release()
    first, second = wait_ended(node, sets, 2)
    assert (first["instances"], second["instances"]) == (9, 10) and second["outcome"] == "assessed"
    assert f'"instances": {first["instances"]}' in first["assessment"] or '"superseded"' in first["assessment"]
