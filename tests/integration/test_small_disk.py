"""A disk that fills while objects come, on both receive paths: 0xA700 before the reserve is touched, and everything again when there is room."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from tests.support.node import ROOT
from tests.support.ports import free_port, listening, wait_for
from tests.support.receiver import association
from tests.support.small_objects import CT, image

MIB = 2**20
SIZE = 160 * MIB
CONFIG = """
node: {{data: {data}}}
receive: {{host: 127.0.0.1, port: {port}, path: {path}, allow: [{{ae_title: SENDER, networks: [127.0.0.0/8]}}]}}
storage: {{reserve: {reserve}}}
"""


class SmallDisk:
    """A receiver whose data folder is a tmpfs of SIZE bytes, in a mount namespace of its own; `folder` is the way into it from here."""

    def __init__(self, folder: Path, path: str, reserve: str) -> None:
        if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
            pytest.skip("no mount namespaces here")
        data, self.port, self.log = folder / "data", free_port(), folder / "log"
        data.mkdir()
        (folder / "config.yaml").write_text(CONFIG.format(data=data, port=self.port, path=path, reserve=reserve), encoding="utf-8")
        script = f'mount -t tmpfs -o size={SIZE} none "$0" && exec "$1" -m node.receive -c "$2"'
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script, str(data), sys.executable, str(folder / "config.yaml")],
                                            cwd=ROOT, stdout=log, stderr=log)
        self.folder = Path(f"/proc/{self.process.pid}/root{data}")
        wait_for(lambda: listening(self.port) or self.process.poll() is not None, 60, "listening")
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0 and "Traceback" not in self.log.read_text(errors="replace")

    def free(self) -> int:
        stat = os.statvfs(self.folder)
        return stat.f_bavail * stat.f_frsize

    def leave(self, free: int) -> None:
        """Fill the disk until so many bytes are free."""
        ballast = self.folder / "ballast"
        ballast.unlink(missing_ok=True)
        with ballast.open("wb") as file:
            while (more := self.free() - free) > 0:
                file.write(bytes(min(more, MIB)))
                file.flush()

    def events(self, name: str) -> list[str]:
        copy = self.log.with_name("copy.db")  # SQLite would follow the way into the namespace to where nothing is
        for suffix in ("", "-wal"):
            Path(f"{copy}{suffix}").write_bytes((self.folder / f"node.db{suffix}").read_bytes())
        con = sqlite3.connect(copy)
        try:
            return [row[0] for row in con.execute("select details from audit where event = ? order by seq", (name,))]
        finally:
            con.close()

    def parts(self) -> list[str]:
        return os.listdir(self.folder / "objects" / "parts")


class Lowest:
    """The least free space while the block runs, as often as one can look."""

    def __init__(self, disk: SmallDisk) -> None:
        self._disk, self._over, self.free = disk, threading.Event(), disk.free()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.is_set():
            self.free = min(self.free, self._disk.free())
            time.sleep(0.001)

    def __enter__(self) -> Lowest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    found = SmallDisk(tmp_path, *request.param)
    yield found
    if found.process.poll() is None:
        found.stop()


def of_size(mib: int, number: int) -> Dataset:
    ds = image(CT, number=number)
    ds.Rows, ds.Columns = 1024, mib * 512
    ds.PixelData = bytes(mib * MIB)
    return ds


def stored(assoc: Any, *sets: Dataset) -> list[int]:
    return [int(assoc.send_c_store(ds).get("Status", -1)) for ds in sets]


@pytest.mark.parametrize("disk", [("fast", "96 MiB"), ("stock", "96 MiB")], indirect=True, ids=["fast", "stock"])
def test_the_reserve_is_never_touched(disk: SmallDisk) -> None:
    reserve = 96 * MIB
    with association(disk.port, [(CT, ExplicitVRLittleEndian)]) as assoc:
        assert stored(assoc, of_size(4, 1)) == [0x0000]
        disk.leave(reserve + 6 * MIB)
        with Lowest(disk) as lowest:
            assert stored(assoc, of_size(20, 2), of_size(20, 3)) == [0xA700] * 2  # refused in the middle of the data set
        assert reserve <= lowest.free < reserve + 3 * MIB and disk.parts() == []
        assert stored(assoc, of_size(1, 4)) == [0x0000]  # what fits is taken
        disk.leave(reserve - MIB)
        assert stored(assoc, image(CT, number=5), image(CT, number=6)) == [0xA700] * 2
        (disk.folder / "ballast").unlink()
        assert stored(assoc, of_size(8, 2), image(CT, number=5)) == [0x0000] * 2  # by itself, on the same association
    wait_for(lambda: disk.events("received"), 10, "the association has ended")
    first, counted = disk.events("store-refused")
    assert '"status":"0xA700"' in first and '{"0xA700 free space is below the reserve":4}' in counted
    assert len(list(disk.folder.glob("objects/??/*/*/*.dcm"))) == 4 and disk.parts() == []
    disk.stop()


@pytest.mark.parametrize("disk", [("fast", "0 B"), ("stock", "0 B")], indirect=True, ids=["fast", "stock"])
def test_without_a_reserve_a_full_disk_is_told_the_same_way(disk: SmallDisk) -> None:
    with association(disk.port, [(CT, ExplicitVRLittleEndian)]) as assoc:
        disk.leave(4 * MIB)
        assert stored(assoc, of_size(20, 1)) == [0xA700] and disk.parts() == []
        (disk.folder / "ballast").unlink()
        assert stored(assoc, of_size(20, 1)) == [0x0000]
    disk.stop()
