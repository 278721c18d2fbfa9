"""A real receiver process to be attacked, and what an observer from outside sees of it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from tests.support.certificates import Authority
from tests.support.ports import wait_for
from tests.support.raw_peer import RELEASED, RawPeer
from tests.support.receiver import encoded
from tests.support.small_objects import CT, image

ROOT = Path(__file__).resolve().parents[2]
HONEST = "127.0.0.2"
MAX_PER_ADDRESS = 8
CONFIG = """
node: {{data: data}}
receive:
  host: 127.0.0.1
  port: 0
  allow: [{{ae_title: SENDER, networks: [127.0.0.0/8]}}]
  path: {path}
  max_per_address: 8
  max_object_mb: 64
  acse_timeout: {timeout}
  dimse_timeout: {timeout}
  network_timeout: {timeout}
  tls: {{certificate: "{certificate}"}}
storage: {{reserve: 64 MiB, durability: default}}
"""


class Site:
    """Context manager: `python -m node.receive` in `folder`. timeout: seconds of each receive.*_timeout."""

    def __init__(self, folder: Path, tls: bool, timeout: float, path: str = "fast") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.timeout, self.is_tls = folder, timeout, tls
        self.tls: ssl.SSLContext | None = None
        if tls:
            authority = Authority(folder / "authority")
            authority.issue("node", folder)
            self.tls = ssl.create_default_context(cafile=str(authority.certificate))
            self.tls.check_hostname = False
        (folder / "config.yaml").write_text(CONFIG.format(timeout=timeout, path=path, certificate="node.pem" if tls else ""), encoding="utf-8")

    def __enter__(self) -> Site:
        self._log = (self.folder / "receiver.log").open("wb")
        self.running = subprocess.Popen([sys.executable, "-m", "node.receive", "-c", str(self.folder / "config.yaml")], cwd=ROOT,
                                        stderr=self._log, stdout=self._log)
        ready = self.folder / "data" / "receiver.ready"
        wait_for(lambda: ready.exists() or self.running.poll() is not None, 60, "ready", every=0.02)
        assert self.running.poll() is None, self.log()
        self.port = int(json.loads(ready.read_text())["port"])
        self._process = psutil.Process(self.running.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.running.terminate()
        try:
            self.running.wait(30)
        finally:
            self.running.kill()
            self._log.close()

    def log(self) -> str:
        return (self.folder / "receiver.log").read_text(errors="replace")

    def resident(self) -> int:
        """Bytes of the receiver in memory."""
        return int(self._process.memory_info().rss)

    def threads(self) -> int:
        return int(self._process.num_threads())

    def strangers(self) -> int:
        """Connections that it holds with others than the honest peer."""
        return sum(1 for c in self._process.net_connections("tcp") if c.raddr and c.raddr.ip != HONEST)

    def places(self, address: str) -> bool:
        """Whether `address` gets all the associations that one address may have."""
        peers = [RawPeer(self.port, self.tls, address) for _ in range(MAX_PER_ADDRESS)]
        try:
            return all(peer.associate()[:1] == b"\x02" for peer in peers) and all(peer.release() == RELEASED for peer in peers)
        finally:
            for peer in peers:
                peer.sock.close()


class HonestPeer:
    """A modality: each second an association, C-ECHO and C-STORE of one CT slice, release. `worst`: seconds from connect to accepted."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.accepted: list[float] = []
        self.served: list[float] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> HonestPeer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    @property
    def worst(self) -> float:
        """Infinite when it was ever refused, or never served."""
        return float("inf") if self.failures or not self.accepted else max(self.accepted)

    def _run(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.once()
            except (OSError, AssertionError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self._stop.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    def once(self) -> None:
        """One association."""
        ds = image(CT, rows=512)
        data = encoded(ds, "1.2.840.10008.1.2.1")
        began = time.monotonic()
        with RawPeer(self._site.port, self._site.tls, HONEST) as peer:
            assert peer.associate()[:1] == b"\x02", "not accepted"
            self.accepted.append(time.monotonic() - began)
            assert peer.echo() == 0 and peer.store(data, str(ds.SOPInstanceUID)) == 0, "not served"
            assert peer.release() == RELEASED
        self.served.append(time.monotonic() - began)
