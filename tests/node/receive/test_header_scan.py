"""Hostile header values become None; every syntax that can be read is read, from the beginning of the data set alone."""

from __future__ import annotations

import errno
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_VR
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from node.receive.header_scan import MAX_INFLATED, along_normal, plain_text, scan, scan_file, whole_number
from node.receive.quick_scan import HEAD, quick_scan
from tests.support.receiver import encoded
from tests.support.small_objects import CT, image, write

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_native_syntaxes(syntax: str) -> None:
    ds = image(CT, number=7, SeriesDescription="Thorax", SeriesNumber=3, ImagesInAcquisition=9, AcquisitionNumber=2)
    header = scan(BytesIO(encoded(ds, syntax)), syntax)
    assert header is not None
    assert (header.sop_uid, header.series_uid, header.study_uid) == (ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID)
    assert (header.instance_number, header.series_number, header.images_in_acquisition, header.acquisition_number) == (7, 3, 9, 2)
    assert (header.modality, header.description, header.position_mm, header.number_of_frames) == ("CT", "Thorax", 7.0, None)


def test_deflated_and_a_deflate_bomb() -> None:
    ds = image(CT, number=7)
    plain = encoded(ds, ExplicitVRLittleEndian)
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = engine.compress(plain) + engine.flush()
    assert scan(BytesIO(data), DeflatedExplicitVRLittleEndian).instance_number == 7
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = engine.compress(bytes(8 * MAX_INFLATED)) + engine.flush()
    header = scan(BytesIO(bomb), DeflatedExplicitVRLittleEndian)
    assert header is None or header.sop_uid == ""


def test_pixel_data_is_not_read() -> None:
    class Watched(BytesIO):
        furthest = 0

        def read(self, *size: int) -> bytes:
            data = super().read(*size)
            self.furthest = max(self.furthest, self.tell())
            return data

    data = encoded(image(CT, rows=512), ExplicitVRLittleEndian)
    file = Watched(data)
    assert scan(file, ExplicitVRLittleEndian).sop_uid
    assert file.furthest < 8192 < len(data)


def test_wrong_values() -> None:
    ds = image(CT, Modality=["CT", "MR"], Manufacturer="A\x1b[31m" * 40, NumberOfFrames=1234, number=98765432,
               ImagePositionPatient=["1", "7", "2"])
    data = encoded(ds, ImplicitVRLittleEndian)
    for right, wrong in ((b"1\\7\\2", b"1\\x\\2"), (b"1234", b"12x4"), (b"98765432", b"9876543z")):
        assert data.count(right) == 1
        data = data.replace(right, wrong)
    header = scan(BytesIO(data), ImplicitVRLittleEndian)
    assert header is not None and header.sop_uid == ds.SOPInstanceUID
    assert (header.position_mm, header.number_of_frames, header.instance_number, header.modality) == (None, None, None, "CT")
    assert header.manufacturer.isprintable() and len(header.manufacturer) == 64


@pytest.mark.parametrize(("value", "number"), [
    ("5", 5), (" -3 ", -3), (4.0, 4), (4.5, None), (float("nan"), None), (True, None), (None, None), ("1e3", None), ([7], 7),
    ([1, 2], None), (2**40, None), ("", None)])
def test_whole_number(value: object, number: int | None) -> None:
    assert whole_number(value) == number


def test_position_along_the_normal() -> None:
    axial = [1, 0, 0, 0, 1, 0]
    assert along_normal([10, 20, -3.5], axial) == -3.5
    assert along_normal([10, 20, 30], [0, 1, 0, 0, 0, -1]) == -10
    for bad in (None, [1, 2], ["a", 1, 2], [float("inf"), 0, 0], "123", [1e9, 0, 0]):
        assert along_normal(bad, axial) is None
    assert along_normal([1, 2, 3], [1, 0, 0, 1, 0, 0]) is None and along_normal([1, 2, 3], [0] * 6) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian,
                                                  DeflatedExplicitVRLittleEndian]))
def test_any_bytes_are_survived(data: bytes, syntax: str) -> None:
    full, quick = scan(BytesIO(data), syntax), quick_scan(data, syntax)
    assert quick is None or quick == full


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1500), st.integers(0, 255))
def test_any_changed_byte_is_survived(place: int, value: int) -> None:
    data = bytearray(DATA)
    data[place % len(data)] = value
    full, quick = scan(BytesIO(bytes(data)), ExplicitVRLittleEndian), quick_scan(data, ExplicitVRLittleEndian)
    assert quick is None or quick == full


def test_the_quick_look_says_the_same_or_nothing() -> None:
    ds = image(CT, number=7, SeriesDescription="Thorax\\x", SeriesNumber=3, ImagesInAcquisition=9, Manufacturer=" A  ", AcquisitionNumber=None,
               StationName="", ImagePositionPatient=[1.5, -2, 30.25])
    data = encoded(ds, ExplicitVRLittleEndian)
    assert quick_scan(data, ExplicitVRLittleEndian) == scan(BytesIO(data), ExplicitVRLittleEndian)
    assert quick_scan(data, JPEG2000Lossless).sop_uid == ds.SOPInstanceUID
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        assert quick_scan(data, syntax) is None
    for odd in ({"SeriesDescription": "T\u00e4"}, {"SOPInstanceUID": "1.2.x"},
                {"ContributingEquipmentSequence": [pydicom.Dataset()]}, {"ImageComments": "x" * 5, "StudyDescription": "x" * 64, "Manufacturer": "\t"}):
        ds = image(CT)
        for name, value in odd.items():
            ds[name] = pydicom.DataElement(name, dictionary_VR(name), value, validation_mode=0)
        ds.SpecificCharacterSet = "ISO_IR 100"
        assert quick_scan(encoded(ds, ExplicitVRLittleEndian), ExplicitVRLittleEndian) is None
    data = encoded(image(CT, number=98765432, ImagePositionPatient=["1", "7", "2"]), ExplicitVRLittleEndian)
    for right, wrong in ((b"98765432", b"9876543z"), (b"1\\7\\2", b"1\\x\\2")):
        assert data.count(right) == 1 and quick_scan(data.replace(right, wrong), ExplicitVRLittleEndian) is None
    ds = image(CT)
    ds.SpecificCharacterSet = "ISO_IR 100"
    latin = encoded(ds, ExplicitVRLittleEndian)
    assert quick_scan(latin, ExplicitVRLittleEndian) == scan(BytesIO(latin), ExplicitVRLittleEndian)
    assert quick_scan(latin.replace(b"ISO_IR 100", b"ISO\0IR 100"), ExplicitVRLittleEndian) is None
    assert quick_scan(latin.replace(b"\x05\x00CS", b"\x05\x00PN"), ExplicitVRLittleEndian) is None
    rows = b"\x28\x00\x10\x00US"  # the first element behind what is wanted
    assert data.count(rows) == 1 and quick_scan(data.replace(rows, rows[:4] + b"4."), ExplicitVRLittleEndian) is None
    assert quick_scan(data[:400], ExplicitVRLittleEndian) is None and quick_scan(b"", ExplicitVRLittleEndian) is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120), st.integers(0, 700))
def test_the_quick_look_never_says_something_else(change: bytes, place: int) -> None:
    data = bytearray(DATA)
    data[place:place + len(change)] = change
    quick = quick_scan(data, ExplicitVRLittleEndian)
    assert quick is None or quick == scan(BytesIO(bytes(data)), ExplicitVRLittleEndian)


DATA = encoded(image(CT, rows=8), ExplicitVRLittleEndian)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "JPEG2000.dcm",
                                  "MR_small_RLE.dcm", "rtplan.dcm", "reportsi.dcm"])
def test_files(name: str) -> None:
    path = Path(get_testdata_file(name))
    found, ds = scan_file(path), pydicom.dcmread(path)
    assert found is not None
    assert (found.header.sop_uid, found.header.study_uid) == (ds.SOPInstanceUID, ds.StudyInstanceUID)
    assert found.transfer_syntax == ds.file_meta.TransferSyntaxUID
    quick = quick_scan(path.read_bytes()[found.offset:][:HEAD], found.transfer_syntax)
    assert quick is None or quick == found.header


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing")
    assert scan_file(tmp_path / "a") is None
    assert scan_file(write(image(CT), tmp_path / "b.dcm")).offset > 132
    with pytest.raises(FileNotFoundError):
        scan_file(tmp_path / "c")


def test_texts() -> None:
    assert plain_text("  a\0b\n") == "ab" and plain_text(["x", "y"]) == "x" and plain_text(5) == "" and plain_text([]) == ""


def test_data_that_end_inside_a_sequence_are_unreadable_and_no_failure_of_the_disk() -> None:
    """Found by fuzzing: the parser says OSError of them, which would ask the sender to try again for ever."""
    begun = b"\x18\x00\x01\xa0SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    assert scan(BytesIO(begun[:12]), ExplicitVRLittleEndian) is None
    assert scan(BytesIO(begun[:14]), ExplicitVRLittleEndian) is None

    class Broken(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "a bad sector")

    with pytest.raises(OSError, match="bad sector"):
        scan(Broken(begun), ExplicitVRLittleEndian)
