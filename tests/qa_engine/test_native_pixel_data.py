"""Uncompressed pixel data against the size that the header describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from qa_engine.decode import DecodeError, Decoder
from qa_engine.outcome import Reason
from tests.support.small_objects import CT, image, write


@pytest.mark.parametrize(("change", "fits"), [
    ({}, True), ({"more": 1}, True), ({"more": 126}, True), ({"more": -2}, False), ({"more": 128}, False), ({"Columns": 63}, False),
    ({"Rows": 63}, False), ({"Rows": 65}, False), ({"NumberOfFrames": 2}, False), ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, False),
    ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, False),
], ids=str)
def test_padding_fits_another_size_does_not(tmp_path: Path, change: dict[str, int], fits: bool) -> None:
    ds = image(CT, rows=64)
    more = change.pop("more", 0)
    ds.PixelData = ds.PixelData + bytes(more) if more >= 0 else ds.PixelData[:more]
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    write(ds, tmp_path / "a.dcm")
    with Decoder(20) as decoder:
        if fits:
            assert decoder.read(tmp_path / "a.dcm").pixels.shape == (1, 64, 64)
            return
        with pytest.raises(DecodeError) as refused:
            decoder.read(tmp_path / "a.dcm")
        assert refused.value.reason is Reason.INCONSISTENT_PIXEL_DESCRIPTION
