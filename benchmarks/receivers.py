"""The receivers of the benchmark of reception: our node in its durabilities, DCMTK's storescp, Orthanc, pynetdicom's storescp."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

from benchmarks.receive_work import environment
from storage.database import migrate, open_engine

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300
"""A node compares rows and files first, and ten million rows take a while."""
SAMPLE_SECONDS = 0.02
NODE = """
node: {{data: data}}
database: {database}
receive: {{host: 127.0.0.1, port: {port}, path: {path}, max_associations: 200, max_per_address: 200,
           allow: [{{ae_title: SENDER, networks: [127.0.0.0/8]}}]}}
storage: {{durability: {durability}, reserve: 64 MiB}}
"""


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Receiver(ABC):
    """Context manager: a process with an empty store in `folder`. `cpu` seconds so far; `peak` between `watch` and now.

    Nothing is removed before the end of the benchmark: ext4 passes over inodes that were freed lately one by one, and every new file after a
    large removal would cost a quarter of a millisecond.
    """

    def __init__(self, name: str, folder: Path, stock: bool = False) -> None:
        self.name, self.folder, self.port, self.stock = name, folder, free_port(), stock
        self._process: psutil.Popen | None = None
        self._watch = threading.Event()
        self._most = 0

    @abstractmethod
    def command(self) -> list[str]:
        """Command line; may write what it needs into the folder."""

    @abstractmethod
    def count(self) -> int:
        """Objects in the store."""

    def __enter__(self) -> Receiver:
        self.folder.mkdir(parents=True)
        with (self.folder / "log").open("wb") as log:
            self._process = psutil.Popen(self.command(), cwd=ROOT, env=environment(self.stock), stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._listening():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit(f"receive: {self.name} does not start: {(self.folder / 'log').read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        return self

    def _listening(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        for process in [*self._process.children(recursive=True), self._process]:
            process.send_signal(signal.SIGKILL)
        self._process.wait(30)

    @property
    def cpu(self) -> float:
        """User and system seconds of the process, of its children that have ended and of those that run."""
        assert self._process is not None
        total = sum(self._process.cpu_times()[:4])
        for child in self._process.children(recursive=True):
            try:
                total += sum(child.cpu_times()[:2])
            except psutil.Error:
                pass
        return total

    def watch(self) -> None:
        """Starts to look at memory."""
        self._watch.clear()
        self._most = 0
        threading.Thread(target=self._look, daemon=True).start()

    def peak(self) -> float:
        """Ends `watch`; the most that was resident, in MB, children included."""
        self._watch.set()
        return self._most / 1e6

    def _look(self) -> None:
        assert self._process is not None
        while True:
            total = 0
            try:
                for process in (self._process, *self._process.children()):
                    total += process.memory_info().rss
            except psutil.Error:
                pass  # one ended just now
            self._most = max(self._most, total)
            if self._watch.wait(SAMPLE_SECONDS):
                return


class Node(Receiver):
    """Our receiver process; `path` is receive.path, `database` one that is there already."""

    def __init__(self, name: str, folder: Path, durability: str, path: str = "fast", database: Path | None = None) -> None:
        super().__init__(name, folder)
        self._durability, self._path, self._database = durability, path, database

    def command(self) -> list[str]:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        engine = open_engine(self._database or data / "node.db")  # the tables are there, as at every start but the first
        migrate(engine)
        engine.dispose()
        (self.folder / "config.yaml").write_text(NODE.format(
            port=self.port, durability=self._durability, path=self._path, database=json.dumps(str(self._database or ""))), encoding="utf-8")
        return [sys.executable, "-m", "node.receive", "-c", str(self.folder / "config.yaml")]

    def count(self) -> int:
        return sum(1 for _ in (self.folder / "data" / "objects").rglob("*.dcm"))


class Storescp(Receiver):
    """DCMTK, one process per association."""

    def command(self) -> list[str]:
        return [_found("storescp"), "--fork", "-od", str(self.folder), "-aet", "MEDIQA", str(self.port)]

    def count(self) -> int:
        return sum(1 for file in self.folder.iterdir() if file.name != "log")


class PynetdicomStorescp(Receiver):
    """The application that comes with pynetdicom."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "pynetdicom", "storescp", str(self.port), "-aet", "MEDIQA", "-od", str(self.folder), "-q"]

    def count(self) -> int:
        return sum(1 for file in self.folder.iterdir() if file.name != "log")


class Orthanc(Receiver):
    """Orthanc as it comes: one fdatasync per instance, its index in a write-ahead log."""

    def command(self) -> list[str]:
        (self.folder / "orthanc.json").write_text(json.dumps({
            "Name": "bench", "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"), "DicomPort": self.port,
            "DicomAet": "MEDIQA", "HttpServerEnabled": False, "DicomAlwaysAllowStore": True, "DicomServerEnabled": True, "Plugins": [],
            "SaveJobs": False}), encoding="utf-8")
        return [_found("Orthanc"), str(self.folder / "orthanc.json")]

    def count(self) -> int:
        """Attachments: the data set, and with newer versions a copy of it until the pixel data."""
        return sum(1 for file in (self.folder / "db").glob("??/??/*") if _is_dicom(file))


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(128)
        return opened.read(4) == b"DICM"


def _found(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if path is None:
        raise SystemExit(f"receive: {program} is absent: run scripts/peers")
    return path


def all_receivers(folder: Path, stock: bool = False) -> list[Receiver]:
    """Those that are compared, in the order in which each round asks them."""
    return [Node("node", folder / "node", "default"), Orthanc("orthanc", folder / "orthanc", stock), Node("node full", folder / "full", "full"),
            Storescp("storescp", folder / "storescp", stock), Node("node os", folder / "os", "os"),
            PynetdicomStorescp("pynetdicom", folder / "pynetdicom", stock), Node("node stock path", folder / "stock", "default", "stock")]
