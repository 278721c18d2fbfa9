"""DCMTK's storescu and dcmsend as senders, in every transfer syntax that they write; what they send lies in the store unchanged."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEG2000Lossless

from tests.support.receiver import ReceiverUnderTest, configuration
from tests.support.small_objects import CT, image, write

pytestmark = [pytest.mark.peer]

ENCODERS = {"jpeg-lossless": ["dcmcjpeg", "+e1"], "jpeg-ls": ["dcmcjpls", "+el"], "rle": ["dcmcrle"], "deflated": ["dcmconv", "+td"],
            "big-endian": ["dcmconv", "+tb"], "implicit": ["dcmconv", "+ti"], "explicit": ["dcmconv", "+te"]}
SYNTAX = {"jpeg-lossless": ("1.2.840.10008.1.2.4.70", "-xs"), "jpeg-ls": ("1.2.840.10008.1.2.4.80", "-xt"),
          "rle": ("1.2.840.10008.1.2.5", "-xr"), "deflated": ("1.2.840.10008.1.2.1.99", "-xd"),
          "big-endian": ("1.2.840.10008.1.2.2", "-xb"), "implicit": ("1.2.840.10008.1.2", "-xi"),
          "explicit": ("1.2.840.10008.1.2.1", "-xe"), "jpeg-2000": ("1.2.840.10008.1.2.4.90", "-xv")}


@pytest.fixture(scope="module", params=["fast", "stock"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    if shutil.which("storescu") is None:
        pytest.fail("DCMTK is absent: run scripts/peers")
    with ReceiverUnderTest(configuration(tmp_path_factory.mktemp("receiver"), receive={"path": request.param})) as receiver:
        yield receiver


def encode(kind: str, folder: Path) -> Path:
    """A small CT image in the transfer syntax `kind`."""
    ds = image(CT, rows=96)
    plain, out = folder / "plain.dcm", folder / f"{kind}.dcm"
    if kind == "jpeg-2000":
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        return write(ds, out)
    write(ds, plain)
    subprocess.run([*ENCODERS[kind], str(plain), str(out)], check=True, capture_output=True)
    return out


@pytest.mark.parametrize("kind", list(SYNTAX))
@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_dcmtk_sends_what_is_then_stored(site: ReceiverUnderTest, tmp_path: Path, kind: str, sender: str) -> None:
    file = encode(kind, tmp_path)
    syntax, option = SYNTAX[kind]
    if sender == "dcmsend" and kind in ("deflated", "big-endian", "implicit"):
        syntax = SYNTAX["explicit"][0]  # it offers all uncompressed ones in one context and converts to the one that we take
    argv = [sender, "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(site.port), str(file)]
    if sender == "storescu":
        argv[1:1] = [option, "-R"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    sent = pydicom.dcmread(file)
    [row] = site.rows("select path, transfer_syntax, instance_number from instance where sop_uid = :uid", uid=str(sent.SOPInstanceUID))
    stored = pydicom.dcmread(site.store.path(row["path"]))
    assert row["transfer_syntax"] == stored.file_meta.TransferSyntaxUID == syntax
    assert sender == "dcmsend" or syntax == sent.file_meta.TransferSyntaxUID
    assert row["instance_number"] == 1
    assert np.array_equal(stored.pixel_array, sent.pixel_array)
    values = [{e.keyword: e.value for e in ds if e.tag.element and e.keyword != "PixelData"} for ds in (stored, sent)]
    assert values[0] == values[1] and len(values[0]) > 20
    assert stored.PixelData == sent.PixelData or syntax != sent.file_meta.TransferSyntaxUID


@pytest.mark.parametrize(("options", "reason"), [
    (["-aet", "NOBODY", "-aec", "MEDIQA"], "Calling AE Title Not Recognized"),
    (["-aet", "SENDER", "-aec", "OTHER"], "Called AE Title Not Recognized")])
def test_dcmtk_is_told_the_reason_of_a_rejection(site: ReceiverUnderTest, options: list[str], reason: str) -> None:
    done = subprocess.run(["echoscu", *options, "127.0.0.1", str(site.port)], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and reason in done.stderr


def test_dcmtk_echo(site: ReceiverUnderTest) -> None:
    subprocess.run(["echoscu", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(site.port)], check=True, timeout=60)


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_dcmtk_over_tls(tmp_path: Path, path: str, certificate: Path) -> None:
    pair = str(certificate / "key.pem"), str(certificate / "cert.pem")
    tls = {"certificate": pair[1], "key": pair[0], "trust": pair[1]}
    file = write(image(CT, rows=300), tmp_path / "a.dcm")
    with ReceiverUnderTest(configuration(tmp_path, receive={"path": path, "tls": tls})) as site:
        subprocess.run(["storescu", "-aet", "SENDER", "-aec", "MEDIQA", "+tls", *pair, "-ic", "127.0.0.1", str(site.port), str(file)], check=True,
                       timeout=60, capture_output=True)
        done = subprocess.run(["storescu", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(site.port), str(file)], timeout=60,
                              capture_output=True)
        assert done.returncode != 0 and len(site.stored()) == 1
