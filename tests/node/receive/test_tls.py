"""TLS of the listener with real peers: who is let in, by which versions and ciphers, and certificates that are renewed or expire."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.receive import tls
from node.receive.certificate_watch import CertificateWatch
from node.receive.tls import ListenerTls, TlsError, expiries, listener_context
from tests.support.certificates import Authority, openssl
from tests.support.ports import wait_for
from tests.support.raw_peer import RELEASED, RawPeer
from tests.support.receiver import ReceiverUnderTest, configuration
from tests.support.small_objects import CT, image, write

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def secured(folder: Path, authority: Authority, mutual: bool = True, **receive: object):
    """A configuration with a certificate of `authority` for node.pem in `folder`."""
    authority.issue("node", folder)
    files = {"certificate": str(folder / "node.pem"), "trust": str(authority.certificate) if mutual else ""}
    return configuration(folder, receive={"tls": files, **receive})


@pytest.fixture(params=["fast", "stock"])
def site(request: pytest.FixtureRequest, tmp_path: Path, authority: Authority):
    with ReceiverUnderTest(secured(tmp_path, authority, path=request.param)) as receiver:
        yield receiver


def client(authority: Authority, pair: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.check_hostname = False
    if pair is not None:
        context.load_cert_chain(pair)
    return context


def storescu(site: ReceiverUnderTest, file: Path, options: list[str]) -> bool:
    done = subprocess.run(["storescu", "-aet", "SENDER", "-aec", "MEDIQA", *options, "-ic", "127.0.0.1", str(site.port), str(file)],
                          capture_output=True, timeout=60)
    return done.returncode == 0


def s_client(port: int, *options: str, say: str = "Q\n") -> str:
    """All that `openssl s_client` says."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options], input=say, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


PEERS = {"good": "", "wrong authority": "certificate", "expired": "certificate has expired", "self-signed": "self", "none": "no certificate"}


@pytest.mark.peer
@pytest.mark.parametrize("who", PEERS)
def test_who_is_let_in(site: ReceiverUnderTest, tmp_path: Path, authority: Authority, who: str) -> None:
    if shutil.which("storescu") is None:
        pytest.fail("DCMTK is absent: run scripts/peers")
    pair, key = tmp_path / "peer.pem", tmp_path / "peer.key"
    if who == "self-signed":
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=peer", "-keyout", key, "-out", pair)
        pair.write_text(pair.read_text() + key.read_text())
    elif who != "none":
        signer = Authority(tmp_path / "other", "Other") if who == "wrong authority" else authority
        signer.issue("peer", tmp_path, days=-1 if who == "expired" else 2)
    options = ["+tla"] if who == "none" else ["+tls", str(key), str(pair)]
    file = write(image(CT, rows=300), tmp_path / "a.dcm")
    assert storescu(site, file, options) == (who == "good")
    assert len(site.stored()) == (who == "good")
    told = s_client(site.port, "-tls1_2", *([] if who == "none" else ["-cert", str(pair), "-key", str(key)]))
    assert ("Verify return code" in told and "alert" not in told) == (who == "good"), told[-2000:]
    if who != "good":
        events = wait_for(lambda: site.events("node-authentication"), 10, "recorded")
        assert len(events) == 1 and PEERS[who] in str(events[0]), "the second one is counted"
        assert not site.events("association-rejected") and not site.rows("select id from association")


def test_versions_ciphers_and_what_is_off(tmp_path: Path, authority: Authority) -> None:
    with ReceiverUnderTest(secured(tmp_path, authority, mutual=False)) as site:
        def agreed(change) -> tuple[str, str] | None:
            context = client(authority)
            change(context)
            try:
                with RawPeer(site.port, context) as peer:
                    return peer.sock.version(), peer.sock.cipher()[0]
            except OSError:
                return None

        def only(version: ssl.TLSVersion, ciphers: str):
            def change(context: ssl.SSLContext) -> None:
                context.minimum_version = context.maximum_version = version
                context.set_ciphers(ciphers + ":@SECLEVEL=0")
            return change

        assert agreed(lambda context: None)[0] == "TLSv1.3"
        for suite in ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"):
            assert agreed(only(ssl.TLSVersion.TLSv1_2, suite)) == ("TLSv1.2", suite)
        for suite in ("AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA", "DHE-RSA-AES128-GCM-SHA256", "AES128-SHA", "ALL"):
            old = suite == "ALL"
            assert agreed(only(ssl.TLSVersion.TLSv1_1 if old else ssl.TLSVersion.TLSv1_2, suite)) is None, suite
        assert "Compression: NONE" in s_client(site.port, "-tls1_2")
        told = s_client(site.port, "-tls1_2", say="R\nQ\n")
        assert "RENEGOTIATING" in told and "no renegotiation" in told, told[-2000:]
        assert agreed(lambda context: None) is not None


def test_a_short_key_is_not_taken(tmp_path: Path, authority: Authority) -> None:
    config = secured(tmp_path, authority)
    authority.issue("node", tmp_path, bits=1024)
    with pytest.raises(TlsError, match="KEY_TOO_SMALL"):
        listener_context(config)


def shown(site: ReceiverUnderTest, authority: Authority) -> bytes:
    """The certificate that a new connection gets; the connection works."""
    with RawPeer(site.port, client(authority)) as peer:
        assert peer.associate()[:1] == b"\x02" and peer.echo() == 0 and peer.release() == RELEASED
        return peer.sock.getpeercert(binary_form=True)


@pytest.mark.parametrize("path", ["fast", "stock"])
def test_a_certificate_is_renewed_while_it_runs(tmp_path: Path, authority: Authority, path: str, monkeypatch: pytest.MonkeyPatch,
                                                caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    with ReceiverUnderTest(secured(tmp_path, authority, mutual=False, path=path)) as site:
        site.tls.tell = CertificateWatch(site.config, site.engine, site.audit).told
        first = shown(site, authority)
        assert shown(site, authority) == first
        with RawPeer(site.port, client(authority)) as open_before:
            open_before.associate()
            authority.issue("node", tmp_path)
            second = shown(site, authority)
            assert second != first
            assert open_before.echo() == 0 and open_before.release() == RELEASED
        good = (tmp_path / "node.pem").read_text()
        for broken in ("nothing", good[:200], good.replace("PRIVATE", "PUBLIC")):
            (tmp_path / "node.pem").write_text(broken)
            for _ in range(4):
                assert shown(site, authority) == second
        (tmp_path / "node.pem").unlink()
        assert [shown(site, authority) for _ in range(3)] == [second] * 3
        authority.issue("node", tmp_path)
        assert shown(site, authority) not in (first, second)
        assert len(site.events("certificate-changed")) == 2
        assert len(site.events("certificate-refused")) == 4, "each broken file once"
        lines = [r.getMessage() for r in caplog.records if "old certificate stays" in r.getMessage()]
        assert len(lines) == 4 and all("receive.tls.certificate" in line for line in lines)
        assert site.audit.verify().ok


def test_key_and_certificate_in_two_files_change_one_after_the_other(tmp_path: Path, authority: Authority) -> None:
    pem, key = authority.issue("node", tmp_path)
    config = configuration(tmp_path, receive={"tls": {"certificate": str(pem), "key": str(key)}})
    now, told = [100.0], []
    listener = ListenerTls(config, lambda: now[0])
    listener.tell = lambda what, words: told.append(what)
    before = listener.context()
    (tmp_path / "later").mkdir()
    new_pem, new_key = authority.issue("node", tmp_path / "later")
    shutil.copy(new_key, key)
    assert listener.context() is before, "not looked at so soon"
    now[0] += tls.LOOK_SECONDS
    assert listener.context() is before and told == [], "half of a pair is waited for"
    shutil.copy(new_pem, pem)
    now[0] += tls.LOOK_SECONDS
    assert listener.context() is not before and told == ["changed"]


def test_expiry_is_told(tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    config = secured(tmp_path, authority)
    with ReceiverUnderTest(config) as site:
        watch, now = CertificateWatch(config, site.engine, site.audit), time.time()
        rows = {e.key: e for e in expiries(config, now)}
        assert 1.9 < rows["receive.tls.certificate"].days < 2.1 and 29.9 < rows["receive.tls.trust"].days < 30.1
        assert "node expires in 2 days" in rows["receive.tls.certificate"].text and "renew it" in rows["receive.tls.certificate"].text
        for hours in (0, 1, 23, 25, 72):
            watch.warn(now + hours * 3600)
        assert [r.levelname for r in caplog.records if "receive.tls.certificate" in r.getMessage()] == ["WARNING", "WARNING", "ERROR"]
        assert [e["event"] for e in site.events("certificate-expires")].count("certificate-expires") >= 3
    check = [sys.executable, "-m", "node", "check", "--json", "-c", str(tmp_path / "config.yaml")]
    (tmp_path / "config.yaml").write_text(f"node: {{data: data}}\nreceive: {{port: 11999, tls: {{certificate: {tmp_path}/node.pem}}}}\ndestinations: []\n")
    for days, state, word in ((300, '"ok"', "expires in 300 days"), (2, '"note"', "renew it"), (-1, '"failed"', "expired on")):
        authority.issue("node", tmp_path, days=days)
        text = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}).stdout
        line = text[:text.index(word)].rpartition('"state"')[2]
        assert state in line, text
