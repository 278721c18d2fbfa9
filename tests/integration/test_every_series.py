"""Every series under the real scans, sent through a running node, ends as its expected.csv says."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from tests.support.data import data_folder, find_data_folder
from tests.support.node import NodeUnderTest, send
from tests.support.pacs import SmallPacs

pytestmark = [pytest.mark.data, pytest.mark.model]


def expected() -> list[dict[str, str]]:
    folder = find_data_folder()
    if folder is None:
        return []
    with (folder / "series" / "expected.csv").open(encoding="utf-8") as f:
        return list(csv.DictReader(f))


def uid_of(folder: Path) -> str:
    return str(pydicom.dcmread(next(p for p in sorted(folder.iterdir()) if p.is_file()), stop_before_pixels=True).SeriesInstanceUID)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeUnderTest, SmallPacs]]:
    data = data_folder()
    with SmallPacs() as pacs:
        node = NodeUnderTest(tmp_path_factory.mktemp("node"), [("pacs", "PACS", pacs.port)])
        with node:
            for row in expected():
                files = [p for p in (data / "series" / row["series"]).iterdir() if p.is_file()]
                assert send(files, node.port) == len(files)
            node.wait_for_ends(len(expected()), 400)
            node.wait_delivered()
            yield node, pacs


def test_real_scans_are_listed() -> None:
    data_folder()
    assert len(expected()) >= 9


@pytest.mark.parametrize("row", expected(), ids=lambda row: row["series"])
def test_series_ends_as_expected(outcome: tuple[NodeUnderTest, SmallPacs], row: dict[str, str]) -> None:
    node, _pacs = outcome
    uid = uid_of(data_folder() / "series" / row["series"])
    end = node.ends()[uid]
    assert (end["outcome"], end["reason"] or "") == (row["end"], row["reason"])
    if row["region"]:
        assert (end["region"] or "").split(" ")[0] == row["region"]
    if row["findings_include"]:
        assert row["findings_include"] in end["assessment"]
    kinds = [d["kind"] for d in node.rows("select kind from delivery where revision_id = ?", end["id"])]
    assert sorted(kinds) == (["sc", "sr"] if row["end"] == "assessed" else [])
    assert (end["score"] is not None) == (row["end"] == "assessed")


def test_pacs_holds_exactly_the_result_sets(outcome: tuple[NodeUnderTest, SmallPacs]) -> None:
    _, pacs = outcome
    assessed = sum(row["end"] == "assessed" for row in expected())
    assert len(pacs.of_modality("SR")) == len(pacs.of_modality("OT")) == assessed
    assert set(pacs.times.values()) == {1}
