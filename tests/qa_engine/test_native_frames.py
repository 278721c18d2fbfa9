"""What is read without a decoder is what the decoder gives, to the last bit; what is in doubt goes to the decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from qa_engine import pixels
from qa_engine.decode import Decoder
from qa_engine.series import read_series
from qa_engine.volume import Reading
from tests.support.series import ENHANCED_CT, MR, axial, enhanced, item, write_all
from tests.support.small_objects import CT

Both = Callable[[list[Path]], tuple[Reading, Reading, bool]]


def _stored(dtype: str, bits: int, low: int, high: int) -> object:
    """A change that gives a slice other stored values."""
    def change(k: int, ds: Dataset) -> None:
        values = np.random.default_rng(k).integers(low, high, (int(ds.Rows), int(ds.Columns)), np.int64).astype(dtype)
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * values.itemsize, bits, bits - 1
        ds.PixelRepresentation, ds.PixelData = int(values.dtype.kind == "i"), values.tobytes()
        ds["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"

    return change


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(20) as one:
        yield one


@pytest.fixture
def both(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> Both:
    """The series as it is read, as the decoder alone gives it, and whether the first needed no decoder."""
    def read(files: list[Path]) -> tuple[Reading, Reading, bool]:
        asked: list[Path] = []
        with monkeypatch.context() as patch:
            patch.setattr(decoder, "read", lambda path: asked.append(path) or Decoder.read(decoder, path))
            found = read_series(files, decoder)
            alone = not asked
            patch.setattr(pixels, "native_frames", lambda path, ds, most: None)
            expected = read_series(files, decoder)
        assert asked
        return found, expected, alone

    return read


def _same(found: Reading, expected: Reading) -> None:
    assert (found.reason, found.findings) == (expected.reason, expected.findings)
    if expected.volume is None:
        assert found.volume is None
        return
    assert found.volume is not None and found.volume.pixels.dtype == np.float32
    assert np.array_equal(found.volume.pixels, expected.volume.pixels) and found.volume.pixels.std() > 0
    assert (found.volume.valid is None) == (expected.volume.valid is None)
    assert found.volume.valid is None or np.array_equal(found.volume.valid, expected.volume.valid)


@pytest.mark.parametrize("sop_class", [CT, MR], ids=["ct", "mr"])
@pytest.mark.parametrize(("dtype", "bits", "low", "high"), [
    ("u2", 12, 0, 4096), ("u2", 12, 0, 65536), ("i2", 16, -3000, 3000), ("i2", 12, -32768, 32768), ("u1", 8, 0, 256), ("i1", 7, -128, 128),
    ("u4", 20, 0, 2 ** 32), ("i4", 32, -2 ** 31, 2 ** 31), ("i4", 25, -2 ** 31, 2 ** 31), ("u2", 16, 0, 65536),
])
@pytest.mark.parametrize("more", [
    {}, {"RescaleSlope": 0.37, "RescaleIntercept": -1024.6}, {"PixelPaddingValue": 17, "PixelPaddingRangeLimit": 63},
    {"RescaleSlope": 1, "RescaleIntercept": -1050, "PhotometricInterpretation": "MONOCHROME1"},
], ids=["plain", "rescaled", "padded", "below-air"])
def test_same_values_as_the_decoder(tmp_path: Path, both: Both, sop_class: str, dtype: str, bits: int, low: int, high: int,
                                    more: dict[str, object]) -> None:
    """Overlay bits, signs, padding that is hit, values below air, in 64 x 61 pixels."""
    def change(k: int, ds: Dataset) -> None:
        ds.Columns = 61
        _stored(dtype, bits, low, high)(k, ds)  # type: ignore[operator]
        for keyword, value in more.items():
            if keyword.startswith("PixelPadding"):
                ds.add_new(keyword, "SS" if ds.PixelRepresentation else "US", value)
            else:
                setattr(ds, keyword, value)

    found, expected, alone = both(write_all(axial(4, change, sop_class=sop_class), tmp_path))
    _same(found, expected)
    assert alone and expected.volume is not None


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_other_encodings(tmp_path: Path, both: Both, syntax: str) -> None:
    objects = axial(4)
    for ds in objects:
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    files = [tmp_path / f"{k}.dcm" for k in range(4)]
    for ds, file in zip(objects, files, strict=True):
        ds.save_as(file, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian, enforce_file_format=True)
    found, expected, alone = both(files)
    _same(found, expected)
    assert alone is (syntax == ImplicitVRLittleEndian) and expected.volume is not None


def test_enhanced_frames(tmp_path: Path, both: Both) -> None:
    shared = item(PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness=5)],
                  PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    ds = enhanced(ENHANCED_CT, 6, shared, lambda k: item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, -5 * k])],
                                                         PixelValueTransformationSequence=[item(RescaleSlope=1 + k, RescaleIntercept=-1024)]))
    found, expected, alone = both(write_all([ds], tmp_path))
    _same(found, expected)
    assert alone and found.volume is not None and found.volume.pixels.shape[0] == 6


@pytest.mark.parametrize("change", [
    {"BitsStored": 17}, {"HighBit": 16}, {"BitsAllocated": 12}, {"Rows": 63}, {"Rows": 65}, {"Rows": 0}, {"PixelRepresentation": 2},
    {"PhotometricInterpretation": "PALETTE COLOR"}, {"NumberOfFrames": 2}, {"PixelData": b"\0\0"}, {"SamplesPerPixel": 2}, {"cut": 100}, {"cut": 9000},
], ids=str)
def test_doubts_end_as_the_decoder_ends_them(tmp_path: Path, both: Both, change: dict[str, object]) -> None:
    """In the second of four files, so that threads are at work."""
    cut = int(change.pop("cut", 0))  # type: ignore[call-overload]
    objects = axial(4)
    for keyword, value in change.items():
        setattr(objects[1], keyword, value)
    files = write_all(objects, tmp_path)
    if cut:
        files[1].write_bytes(files[1].read_bytes()[:-cut])
    found, expected, alone = both(files)
    _same(found, expected)
    assert not alone or expected.volume is not None
