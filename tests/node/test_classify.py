"""A second version of a SOP instance gets its name from the data sets and the decoded pixels."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless, generate_uid

from node.classify import Arrival, classify, identity_only
from tests.support.small_objects import CT, image, write


def pixels(path: Path) -> Any:
    return pydicom.dcmread(path).pixel_array


@pytest.fixture
def first() -> Dataset:
    return image(CT)


def versions(tmp_path: Path, one: Dataset, two: Dataset) -> tuple[Path, Path]:
    return write(one, tmp_path / "1.dcm"), write(two, tmp_path / "2.dcm")


def another(ds: Dataset, **changes: object) -> Dataset:
    ds = copy.deepcopy(ds)
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def test_compressed_again_is_transcoded(tmp_path: Path, first: Dataset) -> None:
    second = another(first)
    second.compress(RLELossless, generate_instance_uid=False)
    assert classify(*versions(tmp_path, first, second), pixels) is Arrival.TRANSCODED


def test_implicit_is_transcoded(tmp_path: Path, first: Dataset) -> None:
    one, two = versions(tmp_path, first, first)
    ds = pydicom.dcmread(two)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(two, implicit_vr=True, little_endian=True)
    assert classify(one, two, pixels) is Arrival.TRANSCODED


def test_corrected_name_is_an_update_of_the_identity(tmp_path: Path, first: Dataset) -> None:
    files = versions(tmp_path, first, another(first, PatientName="CORRECTED^NAME", AccessionNumber="A2"))
    assert classify(*files, pixels) is Arrival.UPDATE
    assert identity_only(*files)


@pytest.mark.parametrize("change", [{"RescaleSlope": 2}, {"KVP": 80}, {"SeriesDescription": "lung"}, {"SliceThickness": 5}])
def test_what_the_engine_reads_makes_a_scored_update(tmp_path: Path, first: Dataset, change: dict[str, object]) -> None:
    files = versions(tmp_path, first, another(first, **change))
    assert classify(*files, pixels) is Arrival.UPDATE
    assert not identity_only(*files)


def test_private_element_counts_as_read(tmp_path: Path, first: Dataset) -> None:
    second = another(first)
    second.private_block(0x0019, "ANY MAKER", create=True).add_new(0x0C, "IS", "1000")
    assert not identity_only(*versions(tmp_path, first, second))


def test_update_in_another_transfer_syntax_is_an_update(tmp_path: Path, first: Dataset) -> None:
    second = another(first, PatientName="CORRECTED^NAME")
    second.compress(RLELossless, generate_instance_uid=False)
    assert classify(*versions(tmp_path, first, second), pixels) is Arrival.UPDATE


@pytest.mark.parametrize("change", [{"PixelData": b"\1\0" * 64 * 64}, {"SeriesInstanceUID": generate_uid()},
                                    {"StudyInstanceUID": generate_uid()}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}])
def test_conflicts(tmp_path: Path, first: Dataset, change: dict[str, object]) -> None:
    assert classify(*versions(tmp_path, first, another(first, **change)), pixels) is Arrival.CONFLICT


def test_rows_and_columns_exchanged_are_other_pixels(tmp_path: Path, first: Dataset) -> None:
    assert classify(*versions(tmp_path, first, another(first, Rows=32, Columns=128)), pixels) is Arrival.CONFLICT


def test_undecodable_pixels_that_differ_conflict(tmp_path: Path, first: Dataset) -> None:
    second = another(first)
    second.compress(RLELossless, generate_instance_uid=False)
    files = versions(tmp_path, first, second)

    def refuses(path: Path) -> Any:
        raise RuntimeError("no decoder")

    assert classify(*files, refuses) is Arrival.CONFLICT


def test_garbage_is_a_conflict(tmp_path: Path, first: Dataset) -> None:
    one, two = versions(tmp_path, first, first)
    two.write_bytes(two.read_bytes()[:300])
    assert classify(one, two, pixels) is Arrival.CONFLICT
    two.write_bytes(b"\xff" * 5000)
    assert classify(one, two, pixels) is Arrival.CONFLICT


def test_report_without_pixels_is_an_update(tmp_path: Path, first: Dataset) -> None:
    one = another(first, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    del one.PixelData
    assert classify(*versions(tmp_path, one, another(one, CompletionFlag="COMPLETE")), pixels) is Arrival.UPDATE


def test_a_value_of_an_impossible_length_is_a_conflict_and_never_raises(tmp_path: Path, first: Dataset) -> None:
    one, two = versions(tmp_path, first, first)
    two.write_bytes(two.read_bytes().replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00FD\x02\x00"))
    assert classify(one, two, pixels) is Arrival.CONFLICT
    assert not identity_only(one, two)
