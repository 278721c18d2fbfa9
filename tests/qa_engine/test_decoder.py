"""The decoder process: bit-true decoding by syntax, and what it does with pixel data that is broken, poisonous or a bomb."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from qa_engine import header
from qa_engine.decode import NATIVE, PLUGINS, DecodeError, Decoder
from qa_engine.outcome import Reason
from qa_engine.series import read_series
from tests.support.data import data_folder, find_data_folder
from tests.support.series import axial, write_all
from tests.support.small_objects import write

JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
JPEG_LS, JPEG_LS_NEAR, J2K_LOSSLESS, J2K, RLE = *(f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91)), "1.2.840.10008.1.2.5"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"


def picture(bits: int, signed: bool, rows: int = 96) -> np.ndarray:
    """A smooth picture with noise that uses the whole range."""
    y, x = np.mgrid[:rows, :rows]
    wave = (np.sin(x / 9.0) + np.cos(y / 7.0) + 2) / 4 + 0.02 * np.random.default_rng(bits).standard_normal((rows, rows))
    low = -(1 << (bits - 1)) if signed else 0
    return (low + np.clip(wave, 0, 1) * ((1 << bits) - 1)).astype(np.int16 if signed else np.uint16)


def holding(values: np.ndarray, bits: int) -> Dataset:
    ds = axial(1)[0]
    ds.Rows, ds.Columns, ds.PixelRepresentation = *values.shape, int(values.dtype.kind == "i")
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, bits, bits - 1
    ds.PixelData = values.tobytes()
    return ds


def encapsulated(ds: Dataset, syntax: str, code: bytes, folder: Path) -> Path:
    """`ds` with a compressed frame."""
    ds.PixelData = encapsulate([code])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / "compressed.dcm"
    ds.save_as(path, enforce_file_format=True, **({"implicit_vr": False, "little_endian": True} if ds.file_meta.TransferSyntaxUID.is_private else {}))
    return path


def in_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement in `bits` bits, as codecs see it."""
    return (values.astype(np.int64) & ((1 << bits) - 1)).astype(np.uint16)


def refused(decoder: Decoder, path: Path) -> Reason:
    with pytest.raises(DecodeError) as error:
        decoder.read(path)
    return error.value.reason


# bit-true

@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, "1.2.840.10008.1.2.1", ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [False, True])
def test_uncompressed(decoder: Decoder, tmp_path: Path, syntax: str, signed: bool) -> None:
    values = picture(16, signed)
    ds = holding(values, 16)
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = values.astype(values.dtype.newbyteorder(">")).tobytes()
        ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    found = decoder.read(write(ds, tmp_path / "a.dcm"))
    assert np.array_equal(found.pixels[0], values) and (found.plugin, found.transfer_syntax) == ("pydicom", syntax)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_bare_data_set_without_file_meta(decoder: Decoder, tmp_path: Path, implicit: bool) -> None:
    values = picture(16, True)
    ds = holding(values, 16)
    del ds.file_meta
    ds.save_as(tmp_path / "bare", implicit_vr=implicit, little_endian=True)
    assert (tmp_path / "bare").read_bytes()[128:132] != b"DICM"
    whole = read_series([tmp_path / "bare"], decoder).volume
    assert np.array_equal(decoder.read(tmp_path / "bare").pixels[0], values) and whole is not None and whole.pixels.shape == (1, 96, 96)


@pytest.mark.parametrize("syntax", [JPEG_LS, J2K_LOSSLESS, HTJ2K_LOSSLESS, RLE, pytest.param(JPEG_SV1, marks=pytest.mark.peer)])
@pytest.mark.parametrize(("bits", "signed"), [(12, False), (16, False), (12, True), (16, True)])
def test_lossless(decoder: Decoder, tmp_path: Path, syntax: str, bits: int, signed: bool) -> None:
    values = picture(bits, signed)
    ds = holding(values, bits)
    if syntax == RLE:
        ds.compress(UID(RLE), encoding_plugin="pydicom")
        path = write(ds, tmp_path / "a.dcm")
    elif syntax == JPEG_SV1:
        subprocess.run(["dcmcjpeg", "+e1", write(ds, tmp_path / "raw.dcm"), tmp_path / "a.dcm"], check=True, capture_output=True)
        path = tmp_path / "a.dcm"
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEG_SV1
    elif syntax == JPEG_LS:
        path = encapsulated(ds, syntax, imagecodecs.jpegls_encode(in_bits(values, bits)), tmp_path)
    elif syntax == HTJ2K_LOSSLESS:
        path = encapsulated(ds, syntax, imagecodecs.htj2k_encode(values if signed else in_bits(values, bits)), tmp_path)
    else:
        path = encapsulated(ds, syntax, imagecodecs.jpeg2k_encode(values, codecformat="j2k", bitspersample=bits, reversible=True), tmp_path)
    found = decoder.read(path)
    assert np.array_equal(in_bits(found.pixels[0], bits), in_bits(values, bits)) and found.plugin in PLUGINS[syntax]
    whole = read_series([path], decoder).volume
    assert whole is not None
    assert np.array_equal(whole.pixels[0], np.maximum(values.astype(np.float32) - 1024, -1024)), "sign and bits as the header says"


def second_decoder(syntax: str, code: bytes) -> np.ndarray:
    decode = {JPEG_BASELINE: imagecodecs.jpeg8_decode, JPEG_EXTENDED: imagecodecs.jpeg_decode, JPEG_LOSSLESS: imagecodecs.jpegsof3_decode,
              JPEG_SV1: imagecodecs.jpegsof3_decode, JPEG_LS: imagecodecs.jpegls_decode, JPEG_LS_NEAR: imagecodecs.jpegls_decode}
    return decode.get(syntax, imagecodecs.jpeg2k_decode)(code)


def monochrome_files() -> list[Path]:
    folder = find_data_folder()
    found = []
    for path in sorted((folder / "devtest" / "syntaxes").iterdir()) if folder is not None else []:
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        syntax = str(ds.file_meta.get("TransferSyntaxUID"))
        if syntax in PLUGINS and syntax != RLE and str(ds.get("PhotometricInterpretation")).startswith("MONOCHROME"):
            found.append(path)
    return found


@pytest.mark.data
@pytest.mark.parametrize("path", monochrome_files(), ids=lambda p: p.name[-40:])
def test_corpus_is_decoded_as_another_decoder_does(decoder: Decoder, path: Path) -> None:
    ds = pydicom.dcmread(path)
    found, bits, syntax = decoder.read(path), int(ds.BitsStored), str(ds.file_meta.TransferSyntaxUID)
    codes = generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames", 1) or 1))
    other = np.stack([second_decoder(syntax, code) for code in codes]).reshape(found.pixels.shape)
    differ = in_bits(found.pixels, bits) != in_bits(other, bits)
    assert not differ.any()


@pytest.mark.data
@pytest.mark.peer
@pytest.mark.parametrize("name", ["fodicom_D_CLUNIE_CT1_RLE_FRAGS.dcm", "nema_NM1_RLE", "pydicom_MR_small_RLE.dcm"])
def test_rle_is_decoded_as_dcmtk_does(decoder: Decoder, tmp_path: Path, name: str) -> None:
    path = data_folder() / "devtest" / "syntaxes" / name
    subprocess.run(["dcmdrle", path, tmp_path / "plain.dcm"], check=True, capture_output=True)
    assert np.array_equal(decoder.read(path).pixels, decoder.read(tmp_path / "plain.dcm").pixels)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.102", "1.2.3.4.5"])
def test_a_syntax_that_nobody_reads(decoder: Decoder, tmp_path: Path, syntax: str) -> None:
    assert refused(decoder, encapsulated(holding(picture(8, False), 8), syntax, b"\0" * 64, tmp_path)) is Reason.NO_DECODER


def test_every_syntax_has_a_plugin_by_name() -> None:
    assert NATIVE.isdisjoint(PLUGINS) and all(PLUGINS.values())
    for syntax, plugins in PLUGINS.items():
        available = pydicom.pixels.get_decoder(syntax).available_plugins
        assert set(plugins) <= set(available), syntax


# broken

@pytest.mark.parametrize(("change", "reason"), [
    ({"Rows": 0}, Reason.INCONSISTENT_PIXEL_DESCRIPTION), ({"SamplesPerPixel": 2}, Reason.INCONSISTENT_PIXEL_DESCRIPTION),
    ({"BitsAllocated": 7}, Reason.INCONSISTENT_PIXEL_DESCRIPTION), ({"BitsStored": 17}, Reason.INCONSISTENT_PIXEL_DESCRIPTION),
    ({"NumberOfFrames": 2}, Reason.INCONSISTENT_PIXEL_DESCRIPTION), ({"NumberOfFrames": 10 ** 9}, Reason.OVER_LIMIT),
    ({"NumberOfFrames": -1}, Reason.INCONSISTENT_PIXEL_DESCRIPTION), ({"Rows": 65535, "Columns": 65535}, Reason.OVER_LIMIT),
    ({"PixelData": None}, Reason.INCONSISTENT_PIXEL_DESCRIPTION),
], ids=str)
def test_headers_that_describe_other_pixels(decoder: Decoder, tmp_path: Path, change: dict[str, object], reason: Reason) -> None:
    ds = axial(1)[0]
    for keyword, value in change.items():
        setattr(ds, keyword, value) if value is not None else delattr(ds, keyword)
    assert refused(decoder, write(ds, tmp_path / "a.dcm")) is reason


@pytest.mark.parametrize("cut", [2, 10, 200, 4000])
@pytest.mark.parametrize("syntax", [JPEG_LS, J2K_LOSSLESS])
def test_truncated_streams_never_yield_a_wrong_size(decoder: Decoder, tmp_path: Path, syntax: str, cut: int) -> None:
    values = picture(12, False)
    code = imagecodecs.jpegls_encode(values) if syntax == JPEG_LS else imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True)
    path = encapsulated(holding(values, 12), syntax, code[:cut], tmp_path)
    try:
        assert decoder.read(path).pixels.shape == (1, 96, 96)  # OpenJPEG fills what is missing
    except DecodeError as error:
        assert error.reason in (Reason.CORRUPT_PIXEL_DATA, Reason.INCONSISTENT_PIXEL_DESCRIPTION)


def test_files_that_are_none(decoder: Decoder, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no DICOM")
    assert {refused(decoder, tmp_path / name) for name in ("text", "gone", ".")} == {Reason.CORRUPT_PIXEL_DATA}


def test_names_that_are_no_text(decoder: Decoder, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff \n\xe7\x94\xbb.dcm"))
    write_all(axial(1), tmp_path)
    (tmp_path / "0000.dcm").rename(path)
    assert decoder.read(path).pixels.shape == (1, 64, 64)


# limits

def test_more_pixels_than_allowed(tmp_path: Path) -> None:
    path = write(axial(1)[0], tmp_path / "a.dcm")
    with Decoder(20, max_pixels=64 * 64 - 1) as small:
        assert refused(small, path) is Reason.OVER_LIMIT
    with Decoder(20, max_pixels=64 * 64) as enough:
        assert enough.read(path).pixels.size == 64 * 64


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    path = write(axial(1)[0], tmp_path / "a.dcm")
    with Decoder(2) as impatient:
        impatient.read(path)
        began = time.monotonic()
        assert refused(impatient, tmp_path / "never") is Reason.OVER_LIMIT
        assert 1.9 < time.monotonic() - began < 10
        impatient.seconds = 30
        assert impatient.read(path).pixels.shape == (1, 64, 64)


def test_a_decoder_that_does_not_start_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is too busy: an OSError, so that the node tries the series again, and no end of the series."""
    path = write(axial(1)[0], tmp_path / "a.dcm")
    with Decoder(20) as decoder:
        monkeypatch.setattr("qa_engine.decode.START_SECONDS", 0.001)
        with pytest.raises(OSError, match="does not start within"):
            decoder.read(path)
        monkeypatch.undo()
        assert decoder.read(path).pixels.shape == (1, 64, 64)


def test_pixel_data_that_kills_every_decoder_is_corrupt_and_takes_nothing_with_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "poison")
    path = write(axial(1)[0], tmp_path / "a.dcm")
    with Decoder(60) as mortal:
        mortal.read(path)
        over, killed = threading.Event(), set()

        def kill() -> None:
            while not over.wait(0.2):
                process = mortal._process
                if process is not None and process.pid not in killed:
                    killed.add(process.pid)
                    os.kill(process.pid, signal.SIGSEGV)

        killer = threading.Thread(target=kill)
        killer.start()
        assert refused(mortal, tmp_path / "poison") is Reason.CORRUPT_PIXEL_DATA
        over.set()
        killer.join()
        assert len(killed) == 2  # one that dies may have been killed from outside, two are killed by the file
        assert mortal.read(path).pixels.shape == (1, 64, 64)


def resized(code: bytes, syntax: str) -> bytes:
    """A stream that claims 65000 x 65000 pixels."""
    if syntax == J2K_LOSSLESS:
        at = code.index(b"\xff\x51") + 6  # SIZ: size, offset, tile size of the image (ISO 15444-1 A.5.1)
        return code[:at] + struct.pack(">II", 65000, 65000) + code[at + 8:at + 16] + struct.pack(">II", 65000, 65000) + code[at + 24:]
    at = code.index(b"\xff\xf7" if syntax == JPEG_LS else b"\xff\xc0") + 5  # start of frame: height and width
    return code[:at] + struct.pack(">HH", 65000, 65000) + code[at + 4:]


@pytest.mark.parametrize("syntax", [J2K_LOSSLESS, JPEG_LS, JPEG_BASELINE])
def test_streams_that_claim_more_than_the_header(decoder: Decoder, tmp_path: Path, syntax: str) -> None:
    values = picture(8, False)
    code = {J2K_LOSSLESS: lambda: imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True), JPEG_LS: lambda: imagecodecs.jpegls_encode(values),
            JPEG_BASELINE: lambda: imagecodecs.jpeg8_encode(values.astype(np.uint8))}[syntax]()
    ds = holding(values, 8)
    if syntax == JPEG_BASELINE:
        ds.BitsAllocated = 8
    began = time.monotonic()
    assert refused(decoder, encapsulated(ds, syntax, resized(code, syntax), tmp_path)) in (
        Reason.CORRUPT_PIXEL_DATA, Reason.OVER_LIMIT, Reason.INCONSISTENT_PIXEL_DESCRIPTION)
    assert time.monotonic() - began < 15
    assert decoder.read(write(axial(1)[0], tmp_path / "next.dcm")).pixels.shape == (1, 64, 64)


def deflated(ds: Dataset, tail: bytes, path: Path) -> Path:
    """`ds` deflated, with `tail` behind its last element."""
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = write(ds, path).read_bytes()
    start = 144 + struct.unpack("<I", whole[140:144])[0]
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    path.write_bytes(whole[:start] + squeeze.compress(zlib.decompress(whole[start:], -zlib.MAX_WBITS) + tail) + squeeze.flush())
    return path


def test_a_deflated_bomb_is_not_inflated(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = header.read_header(write(axial(1)[0], tmp_path / "plain.dcm"))
    bomb = deflated(axial(1)[0], b"\0" * 10 ** 7, tmp_path / "a.dcm")
    assert bomb.stat().st_size < 10 ** 5
    monkeypatch.setattr(header, "MAX_INFLATED", 10 ** 6)
    tracemalloc.start()
    found = header.read_header(bomb)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None and [e.tag for e in found] == [e.tag for e in plain] and most < 5 * 10 ** 6
    assert "PixelData" not in found and found.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    ds = axial(1)[0]
    ds.add_new(0x00204001, "UT", "x" * 2_000_000)
    assert header.read_header(deflated(ds, b"", tmp_path / "b.dcm")) is None, "its header ends behind the limit"


def test_a_header_of_any_size_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(axial(1)[0], tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\x28\x00\x02\x00US")  # Samples per Pixel
    for name, length in (("text", 3 * 10 ** 9), ("claim", 2 ** 32 - 2)):
        file = tmp_path / name
        file.write_bytes(whole[:at] + struct.pack("<HH2s2xL", 0x0020, 0x9999, b"UT", length))
        os.truncate(file, 3 * 10 ** 9 if name == "text" else 5 * 10 ** 6)  # a file with a hole: 3 GB of zeros that lie nowhere
        tracemalloc.start()
        assert header.read_header(file) is None
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 10 ** 8
    monkeypatch.setattr(header, "SURELY_SMALL", 0)
    monkeypatch.setattr(header, "MAX_READS", 5000)
    assert header.read_header(tmp_path / "a.dcm") is not None
    (tmp_path / "wide").write_bytes(whole[:at] + b"".join(struct.pack("<HH2sH", 0x0021, k, b"LO", 0) for k in range(5000)) + whole[at:])
    assert header.read_header(tmp_path / "wide") is None


@pytest.mark.parametrize("known_length", [False, True])
def test_ten_thousand_levels(tmp_path: Path, known_length: bool) -> None:
    whole = write(axial(1)[0], tmp_path / "a.dcm").read_bytes()
    at = whole.index(b"\xe0\x7f\x10\x00")
    if known_length:
        deep = b""
        for _ in range(10_000):
            item = struct.pack("<HHL", 0xFFFE, 0xE000, len(deep)) + deep
            deep = struct.pack("<HH2s2xL", 0x0040, 0x0275, b"SQ", len(item)) + item
    else:
        deep = struct.pack("<HH2s2xLHHL", 0x0040, 0x0275, b"SQ", 2 ** 32 - 1, 0xFFFE, 0xE000, 2 ** 32 - 1) * 10_000
    (tmp_path / "deep").write_bytes(whole[:at] + deep + whole[at:])
    found = header.read_header(tmp_path / "deep")
    assert (found is not None) == known_length
    if found is not None:
        assert header.items(found, "RequestAttributesSequence") is not None


# what is left behind

def test_no_pixels_lie_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    with Decoder(20) as tidy:
        tidy.read(write(axial(1)[0], tmp_path / "a.dcm"))
        assert list(scratch.iterdir()) == [] and tidy._scratch is not None and os.fstat(tidy._scratch.fileno()).st_size == 0


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    path = write(axial(1)[0], tmp_path / "a.dcm")
    code = ("import os, signal, sys; from pathlib import Path; from qa_engine.decode import Decoder; d = Decoder(20); d.read(Path(sys.argv[1])); "
            "print(d._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    process = Path("/proc") / out.strip()
    deadline = time.monotonic() + 5
    while process.exists() and "Z" not in (process / "stat").read_text().split()[2] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists() or "Z" in (process / "stat").read_text().split()[2]


def test_an_orphan_that_hangs_is_ended_by_its_alarm(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    with tempfile.TemporaryFile() as scratch:
        process = subprocess.Popen([sys.executable, "-m", "qa_engine.decoder_process", str(scratch.fileno())], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, pass_fds=(scratch.fileno(),), cwd=Path(__file__).parents[2])
        process.communicate(json.dumps({"path": str(tmp_path / "never"), "max_pixels": 1, "alarm": 1}).encode() + b"\n", timeout=20)
    assert process.returncode == -signal.SIGALRM
