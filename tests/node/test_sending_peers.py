"""`mediqa send` to real receivers: DCMTK's storescp in either environment, Orthanc, our node; what arrives is what lies on disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from node.cli import app
from node.deliver.answers import Answer, Kind
from node.deliver.association import VERIFICATION, Association
from node.deliver.part10 import EXPLICIT, IMPLICIT, open_stored
from node.deliver.peer import Peer
from node.deliver.scu import Item, connect, offer
from tests.node.receive.test_peers import SYNTAX, encode
from tests.support.orthanc import Orthanc
from tests.support.ports import free_port, listening, wait_for
from tests.support.receiver import ReceiverUnderTest, configuration
from tests.support.small_objects import CT, SC, image, write

pytestmark = [pytest.mark.peer]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object in each transfer syntax, then ten more CT slices and one that is larger than all buffers."""
    if shutil.which("storescp") is None:
        pytest.fail("DCMTK is absent: run scripts/peers")
    out = tmp_path_factory.mktemp("out")
    for kind in SYNTAX:
        (scratch := tmp_path_factory.mktemp(kind)).mkdir(exist_ok=True)
        shutil.move(encode(kind, scratch), out / f"{kind}.dcm")
    for number in range(10):
        write(image(CT, number=number), out / f"{number}.dcm")
    write(image(CT, rows=700), out / "large.dcm")
    return out


def by_uid(files: Iterator[Path] | list[Path]) -> dict[str, tuple[str, bytes]]:
    """Transfer syntax and data set of files by SOP Instance UID."""
    found = {}
    for file in files:
        with open_stored(file) as stored:
            found[stored.sop_uid] = stored.transfer_syntax, os.pread(stored.handle, stored.length, stored.offset)
    return found


def same(sent: dict[str, tuple[str, bytes]], arrived: dict[str, tuple[str, bytes]]) -> None:
    assert sent.keys() == arrived.keys()
    for uid, (syntax, data) in sent.items():
        padded = data + b"\0" * (len(data) % 2 if syntax == SYNTAX["deflated"][0] else 0)
        assert arrived[uid] == (syntax, padded), (uid, syntax)


def send(folder: Path, title: str, port: int, calling: str = "SENDER") -> dict[str, object]:
    done = CliRunner().invoke(app, ["send", str(folder), f"{title}@127.0.0.1:{port}", "--calling", calling, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("environment", [{"TCP_NODELAY": "1"}, {}], ids=["no-delay", "stock"])
def test_storescp_writes_what_lies_on_disk(folder: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    port, kept = free_port(), {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    with subprocess.Popen(["storescp", "+B", "+xa", "-aet", "PACS", "-od", str(tmp_path), str(port)], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, env=kept | environment) as process:
        try:
            wait_for(lambda: listening(port), 20, "storescp does not listen")
            sent = by_uid(list(folder.iterdir()))
            assert send(folder, "PACS", port) == {"sent": len(sent), "warnings": 0, "skipped": [], "failed": []}
            same(sent, by_uid(list(tmp_path.iterdir())))
        finally:
            process.terminate()


def test_our_node_stores_what_lies_on_disk(folder: Path, tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_pdu": 4096})) as site:
        sent = by_uid(list(folder.iterdir()))
        assert send(folder, "MEDIQA", site.port)["sent"] == len(sent)
        same(sent, by_uid([site.store.path(path) for path in site.stored()]))
        assert [r["how"] for r in site.rows("select how from association")] == ["released"]


def test_orthanc(folder: Path, tmp_path: Path) -> None:
    """It keeps what it is sent, takes a result in Explicit VR as it lies on disk, answers a C-ECHO."""
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.start(free_port())
    try:
        plain = tmp_path / "plain"
        plain.mkdir()
        for name in ("explicit", "rle", "jpeg-2000", "large"):
            shutil.copy(folder / f"{name}.dcm", plain)
        assert send(plain, "ORTHANC", orthanc.dicom_port)["sent"] == 4
        ds = image(SC, rows=200)
        item = Item(1, write(ds, tmp_path / "sc.dcm"), SC, str(ds.SOPInstanceUID))
        peer = Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port, "MEDIQA", 20)
        with connect(peer, [(SC, item.path)]) as association:
            assert set(association.accepted) == {(SC, EXPLICIT), (SC, IMPLICIT)}
            assert offer(association, [item]).answer == offer(association, [item]).answer == Answer(Kind.STATUS, 0)
        with Association(peer, [(VERIFICATION, (IMPLICIT,))]) as association:
            assert association.echo() == Answer(Kind.STATUS, 0)
        held = [pydicom.dcmread(BytesIO(orthanc.file(i))) for i in orthanc.rest("/instances")]
        for file in [*plain.iterdir(), item.path]:
            ours = pydicom.dcmread(file)
            [theirs] = [d for d in held if d.SOPInstanceUID == ours.SOPInstanceUID]
            assert theirs.PixelData == ours.PixelData and theirs.file_meta.TransferSyntaxUID == ours.file_meta.TransferSyntaxUID
        assert len(held) == 5
    finally:
        orthanc.stop()
