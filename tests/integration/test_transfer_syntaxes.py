"""One real series in every transfer syntax that DCMTK writes, sent by its own tools: stored bit-true, decoded, and scored the same."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, generate_uid

from qa_engine.decode import Decoder
from tests.support.data import data_folder
from tests.support.node import NodeUnderTest
from tests.support.ports import free_port, listening, wait_for
from tests.support.receiver import association, raw_store
from tests.support.sweep import raw_object

pytestmark = [pytest.mark.data, pytest.mark.peer, pytest.mark.model]

EVERY, COUNT = 12, 4
"""Slices of the series that are taken: 4 of 41, 60 mm apart."""
PLAIN, AS_FOUND, HIGH_THROUGHPUT = "explicit", "jpeg-2000", "htj2k"
ENCODERS = {
    "big-endian": ("1.2.840.10008.1.2.2", ["dcmconv", "+tb"], "-xb"), "implicit": ("1.2.840.10008.1.2", ["dcmconv", "+ti"], "-xi"),
    "deflated": ("1.2.840.10008.1.2.1.99", ["dcmconv", "+td"], "-xd"), PLAIN: ("1.2.840.10008.1.2.1", ["dcmconv", "+te"], "-xe"),
    "jpeg-lossless-p14": ("1.2.840.10008.1.2.4.57", ["dcmcjpeg", "+el"], None), "jpeg-lossless": ("1.2.840.10008.1.2.4.70", ["dcmcjpeg", "+e1"], "-xs"),
    "jpeg-ls": ("1.2.840.10008.1.2.4.80", ["dcmcjpls", "+el"], "-xt"), "rle": ("1.2.840.10008.1.2.5", ["dcmcrle"], "-xr"),
    AS_FOUND: ("1.2.840.10008.1.2.4.90", ["dcmconv", "+t="], "-xv"), HIGH_THROUGHPUT: (str(HTJ2KLossless), [], None)}
"""Name -> transfer syntax, program that writes it, option of storescu that proposes it (None: a profile of its own, or another sender).
What stands later is taken rather than what stands earlier."""
CONVERTED = ("implicit", "big-endian", "deflated")
"""dcmsend offers the uncompressed syntaxes in one context and converts to the one that is taken."""
PROFILE = r"""
[[TransferSyntaxes]]
[One]
{syntaxes}
[[PresentationContexts]]
[One]
PresentationContext1 = CTImageStorage\One
[[Profiles]]
[One]
PresentationContexts = One
"""
CASES = [(kind, sender) for kind in ENCODERS for sender in (("pynetdicom",) if kind == HIGH_THROUGHPUT else ("storescu", "dcmsend"))]


def write_profile(file: Path, syntaxes: list[str]) -> list[str]:
    """Options of storescu or storescp that offer or take CT images in these transfer syntaxes, the first one rather than the others."""
    file.write_text(PROFILE.format(syntaxes="\n".join(f"TransferSyntax{n} = {uid}" for n, uid in enumerate(syntaxes, 1))))
    return ["-xf", str(file), "One"]


@dataclass(frozen=True)
class Sent:
    """A series as it went: its files, and what a bit-preserving storescp got of it (DCMTK's senders only)."""

    series_uid: str
    files: list[Path]
    reference: Path | None


def data_set(file: Path) -> bytes:
    return raw_object(file).data


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=dict(os.environ, TCP_NODELAY="1"))
    assert done.returncode == 0, f"{argv[:4]}: {done.stdout[-2000:]} {done.stderr[-2000:]}"


def slices_as_found() -> list[pydicom.Dataset]:
    """A subset of the abdomen series with consistent Instance Numbers."""
    headers = [pydicom.dcmread(p) for p in (data_folder() / "series" / "ct_abdomen").glob("*.dcm")]
    taken = sorted(headers, key=lambda ds: ds.InstanceNumber)[::EVERY]
    for number, ds in enumerate(taken, 1):
        ds.InstanceNumber = number
    return taken


def make_series(kind: str, slices: list[pydicom.Dataset], folder: Path) -> list[Path]:
    """The slices under UIDs of their own in the transfer syntax `kind`."""
    syntax, argv, _ = ENCODERS[kind]
    folder.mkdir()
    series, files = generate_uid(), []
    for source in slices:
        ds = copy.deepcopy(source)
        ds.SeriesInstanceUID, ds.SOPInstanceUID = series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        if kind == HIGH_THROUGHPUT:
            ds.PixelData = encapsulate([imagecodecs.htj2k_encode(ds.pixel_array, reversible=True)])
            ds["PixelData"].is_undefined_length = True
            ds.file_meta.TransferSyntaxUID = HTJ2KLossless
        files.append(folder / f"{ds.InstanceNumber:02}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
        if argv:
            plain = files[-1].rename(folder / "plain")
            run(*argv, str(plain), str(files[-1]))
            plain.unlink()
    assert {str(pydicom.dcmread(f, stop_before_pixels=True).file_meta.TransferSyntaxUID) for f in files} == {syntax}
    return files


def copy_series(files: list[Path], folder: Path) -> list[Path]:
    """The same encoded pixels under new UIDs."""
    folder.mkdir()
    copies = [Path(shutil.copy(file, folder / file.name)) for file in files]
    run("dcmodify", "-nb", "-gin", "-m", f"SeriesInstanceUID={generate_uid()}", *map(str, copies))
    return copies


def send(sender: str, kind: str, files: list[Path], port: int, scratch: Path) -> None:
    syntax, _, option = ENCODERS[kind]
    if sender == "pynetdicom":
        what = [raw_object(file) for file in files]
        with association(port, [(what[0].sop_class, syntax)]) as assoc:
            assert [raw_store(assoc, w.data, w.sop_class, w.sop_uid).get("Status") for w in what] == [0] * len(what)
        return
    options = []
    if sender == "storescu":
        options = [option, "-R"] if option else write_profile(scratch / "profile.cfg", [syntax])
    run(sender, *options, "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(port), *map(str, files))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory):
    """DCMTK's storescp that writes what it reads: (port, folder)."""
    folder, port = tmp_path_factory.mktemp("reference"), free_port()
    profile = write_profile(folder.with_suffix(".cfg"), [syntax for syntax, *_ in reversed(ENCODERS.values())])
    process = subprocess.Popen(["storescp", "+B", *profile, "-aet", "MEDIQA", "-od", str(folder), str(port)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=dict(os.environ, TCP_NODELAY="1"))
    wait_for(lambda: listening(port), 20, "storescp does not listen")
    yield port, folder
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory):
    data_folder()
    with NodeUnderTest(tmp_path_factory.mktemp("syntaxes") / "node", [], quiet=6, contiguous=3, extra="report: {on: []}") as node:
        yield node


@pytest.fixture(scope="module")
def sent(node: NodeUnderTest, reference: tuple[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Sent]:
    """Every series sent to the node, and to storescp, before anything is looked at."""
    port, received = reference
    work = tmp_path_factory.mktemp("series")
    made: dict[tuple[str, str], Sent] = {}
    found, plain = slices_as_found(), slices_as_found()
    for ds in plain:
        ds.decompress(generate_instance_uid=False)
    for kind, sender in CASES:
        first = next((s.files for (k, _), s in made.items() if k == kind), None)
        files = make_series(kind, found if kind == AS_FOUND else plain, work / kind) if first is None else copy_series(first, work / f"{kind}-{sender}")
        send(sender, kind, files, node.port, work)
        if sender != "pynetdicom":
            send(sender, kind, files, port, work)
        uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
        made[kind, sender] = Sent(uid, files, None if sender == "pynetdicom" else received)
    node.wait_for_ends(len(made), 120)
    return made


@pytest.mark.parametrize(("kind", "sender"), CASES)
def test_stored_bit_true_decoded_and_scored_the_same(node: NodeUnderTest, sent: dict[tuple[str, str], Sent], kind: str, sender: str) -> None:
    series = sent[kind, sender]
    syntax = ENCODERS[PLAIN if sender == "dcmsend" and kind in CONVERTED else kind][0]
    rows = node.rows("select i.* from instance i join series s on s.id = i.series_id where s.series_uid = ?", series.series_uid)
    stored = {row["sop_uid"]: node.folder / "data" / "objects" / row["path"] for row in rows}
    originals = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): f for f in series.files}
    assert stored.keys() == originals.keys() and len(stored) == COUNT
    assert {row["transfer_syntax"] for row in rows} == {syntax} and {row["arrival"] for row in rows} == {"new"}
    for uid, path in stored.items():
        if series.reference is not None:
            [twin] = series.reference.glob(f"*.{uid}")
            assert data_set(path) == data_set(twin), "storescp, which writes what it reads, got other bytes"
        if sender != "dcmsend":
            original = data_set(originals[uid])
            # storescu pads a deflated stream to an even length
            assert data_set(path) in ((original, original + b"\0") if kind == "deflated" else (original,))
    end, plain = node.ends()[series.series_uid], node.ends()[sent[PLAIN, "storescu"].series_uid]
    assert (end["outcome"], end["number"], end["instances"], end["missing"]) == ("assessed", 1, COUNT, 0)
    assert [end[n] for n in ("score", "low", "high", "noise", "sharpness", "artefact")] == pytest.approx(
        [plain[n] for n in ("score", "low", "high", "noise", "sharpness", "artefact")], abs=1e-6)


def test_what_no_decoder_reads_ends_as_undecodable(node: NodeUnderTest) -> None:
    """Spectral selection and full progression, 12 bit (1.2.840.10008.1.2.4.53 and .55)."""
    files = sorted((data_folder() / "devtest" / "syntaxes").glob("cornerstone_CTImage_JPEGProcess[16]*_8_*")) \
        + sorted((data_folder() / "devtest" / "syntaxes").glob("cornerstone_CTImage_JPEGProcess10_12*"))
    assert len(files) == 2
    run("dcmsend", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(node.port), *map(str, files))
    uid = str(pydicom.dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID)
    end = wait_for(lambda: node.ends().get(uid), 60, "the series does not end")
    assert (end["outcome"], end["reason"], end["score"]) == ("undecodable", "no-decoder", None)


def test_twelve_bit_jpeg_is_decoded_as_dcmtk_decodes_it(tmp_path: Path) -> None:
    """1.2.840.10008.1.2.4.51, which the plugins refuse."""
    file = data_folder() / "devtest" / "syntaxes" / "nema_MR1_JPLY"
    run("dcmdjpeg", str(file), str(tmp_path / "plain.dcm"))
    with Decoder(30) as decoder:
        decoded = decoder.read(file)
    assert decoded.transfer_syntax == "1.2.840.10008.1.2.4.51" and decoded.pixels.max() > 255
    assert np.array_equal(decoded.pixels[0], pydicom.dcmread(tmp_path / "plain.dcm").pixel_array)
