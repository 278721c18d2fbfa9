"""Results and files over TLS to real peers: DCMTK's storescp and our own receiver; who is refused, and why."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from node.cli import app, check
from node.config import ConfigError, load
from node.deliver.answers import Answer, Kind
from node.deliver.association import VERIFICATION, Association, NoAssociation
from node.deliver.part10 import open_stored
from node.deliver.peer import Peer, TlsFiles, peer_of
from tests.support.certificates import Authority
from tests.support.ports import free_port, listening, wait_for
from tests.support.receiver import ReceiverUnderTest, configuration
from tests.support.small_objects import CT, SC, image, write

SYNTAX = str(ExplicitVRLittleEndian)
ECHO = [(VERIFICATION, (SYNTAX,))]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def storescp(folder: Path, authority: Authority, host: str = "IP:127.0.0.1", mutual: bool = True) -> Iterator[int]:
    """DCMTK's storescp with a certificate for `host`; its port. What it receives lies in `folder`/got."""
    certificate, key = authority.issue("pacs", folder, host=host)
    (folder / "got").mkdir()
    port = free_port()
    asks = ["-rc"] if mutual else ["-ic"]
    with subprocess.Popen(["storescp", "+B", "+xa", "-aet", "PACS", "-od", str(folder / "got"), "+tls", str(key), str(certificate),
                           "+cf", str(authority.certificate), *asks, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: listening(port), 20, "storescp does not listen")
            yield port
        finally:
            process.terminate()


def peer(port: int, authority: Authority, own: Path | None = None, timeout: float = 10, **tls: object) -> Peer:
    return Peer("PACS", "127.0.0.1", port, "MEDIQA", timeout, replace(TlsFiles(authority.certificate, own), **tls))


def refused(where: Peer) -> str:
    """Why there is no association."""
    with pytest.raises(NoAssociation) as caught:
        Association(where, ECHO)
    assert caught.value.answer.kind is Kind.UNREACHABLE
    return caught.value.answer.comment


def test_results_arrive_whole_and_both_sides_show_who_they_are(tmp_path: Path, authority: Authority) -> None:
    own, _ = authority.issue("mediqa", tmp_path)
    files = [write(image(SC, rows=rows, number=rows), tmp_path / "sent" / f"{rows}.dcm") for rows in (8, 200, 2000)]  # 8 MB: many TLS records
    with storescp(tmp_path, authority) as port:
        with Association(peer(port, authority, own), [(SC, (SYNTAX,)), *ECHO]) as association:
            assert association.echo() == Answer(Kind.STATUS, 0)
            for file in files:
                with open_stored(file) as stored:
                    assert association.store(SC, pydicom.dcmread(file).SOPInstanceUID, stored) == Answer(Kind.STATUS, 0)
                assert not association.lost()
        got = {pydicom.dcmread(f).SOPInstanceUID: pydicom.dcmread(f) for f in (tmp_path / "got").iterdir()}
        for file in files:
            ds = pydicom.dcmread(file)
            assert got[ds.SOPInstanceUID] == ds and got[ds.SOPInstanceUID].PixelData == ds.PixelData
        assert len(got) == 3


def test_who_is_refused_and_why(tmp_path: Path, authority: Authority) -> None:
    own, _ = authority.issue("mediqa", tmp_path)
    stranger = Authority(tmp_path / "stranger", "Another Authority")
    foreign, _ = stranger.issue("foreign", tmp_path)
    with storescp(tmp_path, authority, host="DNS:pacs.example") as port:
        good = peer(port, authority, own, check_host=False)
        assert "certificate of the peer is refused" in refused(peer(port, stranger, own, check_host=False))
        assert "IP address mismatch" in refused(peer(port, authority, own))
        for without in (replace(good, tls=replace(good.tls, certificate=None)), replace(good, tls=replace(good.tls, certificate=foreign))):
            assert refused(without).startswith("TLS: no handshake") or refused(without) == "no answer to the association request"
        assert refused(replace(good, tls=replace(good.tls, trust=tmp_path / "none.pem"))).startswith("tls.trust cannot be used")
        assert refused(replace(good, tls=None)) == "no answer to the association request"  # no word of DICOM leaves TLS
        with Association(good, ECHO) as association:
            assert association.echo() == Answer(Kind.STATUS, 0)


def test_the_very_certificate_of_the_peer_may_be_trusted(tmp_path: Path, authority: Authority) -> None:
    with storescp(tmp_path, authority, mutual=False) as port:
        only = tmp_path / "only.pem"
        only.write_text(ssl.get_server_certificate(("127.0.0.1", port)), encoding="ascii")
        with Association(peer(port, authority, trust=only), ECHO) as association:
            assert association.echo() == Answer(Kind.STATUS, 0)


def test_new_files_are_used_for_the_next_association(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path / "stranger", "Another Authority")
    trust = tmp_path / "trust.pem"
    with storescp(tmp_path, authority, mutual=False) as port:
        where = peer(port, authority, trust=trust)
        trust.write_bytes(stranger.certificate.read_bytes())
        assert "certificate of the peer is refused" in refused(where)
        trust.write_bytes(authority.certificate.read_bytes())
        with Association(where, ECHO) as association:
            assert association.echo() == Answer(Kind.STATUS, 0)


@pytest.mark.parametrize("says", [b"", b"\x16\x03\x03\x40\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["silent", "half", "plain"])
def test_a_peer_that_speaks_no_tls_costs_a_bounded_time(authority: Authority, says: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            held.append(listener.accept()[0])
            held[0].sendall(says)

        held: list[socket.socket] = []
        thread = threading.Thread(target=answer)
        thread.start()
        began = time.monotonic()
        assert refused(peer(listener.getsockname()[1], authority, timeout=1))
        assert time.monotonic() - began < 3
        thread.join()
        held[0].close()


def test_our_own_receiver_and_mediqa_send(tmp_path: Path, authority: Authority) -> None:
    own, _ = authority.issue("node", tmp_path, host="IP:127.0.0.1")
    pair, key = authority.issue("modality", tmp_path)
    for k in range(3):
        write(image(CT, number=k), tmp_path / "sent" / f"{k}.dcm")
    with ReceiverUnderTest(configuration(tmp_path, receive={"tls": {"certificate": str(own), "trust": str(authority.certificate)}})) as site:
        target = ["send", str(tmp_path / "sent"), f"MEDIQA@127.0.0.1:{site.port}", "--calling", "SENDER"]
        done = CliRunner().invoke(app, [*target, "--json", "--trust", str(authority.certificate), "--certificate", str(pair), "--key", str(key)])
        assert done.exit_code == 0 and json.loads(done.stdout)["sent"] == 3, done.output
        assert len(site.stored()) == 3
        stranger = Authority(tmp_path / "stranger", "Another Authority")
        done = CliRunner().invoke(app, [*target, "--json", "--trust", str(stranger.certificate)])
        assert done.exit_code == 1 and "certificate of the peer is refused" in json.loads(done.stdout)["failed"][0]["reason"]
        for wrong, words in ((["--certificate", str(pair)], "need --trust"), (["--trust", str(tmp_path / "none.pem")], "--trust cannot be used")):
            done = CliRunner().invoke(app, [*target, *wrong])
            assert done.exit_code == 2 and words in done.output


def test_as_the_configuration_has_it(tmp_path: Path, authority: Authority) -> None:
    authority.issue("node", tmp_path)
    with storescp(tmp_path, authority) as port:
        file = tmp_path / "config.yaml"
        start = f"node: {{data: data}}\nreceive: {{port: {free_port()}}}\ndestinations:\n  - {{name: pacs, ae_title: PACS, host: 127.0.0.1, port: {port}"
        file.write_text(f"{start}, tls: {{trust: {authority.certificate}, certificate: node.pem}}}}\n", encoding="ascii")
        config = load(file)
        found = peer_of(config, config.destinations[0])
        assert found.tls == TlsFiles(authority.certificate, tmp_path / "node.pem", None, True, "destinations.pacs.tls")
        rows = {row.what: row for row in check.destinations(config)}
        assert rows["destination pacs"].state == "ok" and rows["destination pacs"].text.endswith("answers the C-ECHO over TLS")
        told = {row.text.partition(":")[0]: row.state for row in check.tls(config)}
        assert told == {"destinations.pacs.tls.certificate": "note", "destinations.pacs.tls.trust": "note"}  # neither holds for a month
        for wrong, words in (("certificate: node.pem", "has no trust"), ("check_host: false", "has no trust"),
                             (f"trust: {authority.certificate}, key: node.key", "has a key without a certificate")):
            file.write_text(f"{start}, tls: {{{wrong}}}}}\n", encoding="ascii")
            with pytest.raises(ConfigError, match=words):
                load(file)
