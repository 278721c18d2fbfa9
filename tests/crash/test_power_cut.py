"""The power goes: what the disk holds at that moment is copied and mounted anew, on ext4 with and without a journal.

The disk is a file behind a loop device. A copy of it holds what was written through to it and nothing that the system still keeps in
memory, so it is what a power cut leaves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from blake3 import blake3
from pydicom.uid import ExplicitVRLittleEndian

from node.receive.file_meta import file_meta, proof_at
from node.receive.indexing import header_reader
from storage import objects
from storage.audit_log import AuditLog
from storage.database import migrate, open_engine
from storage.objects import ObjectStore
from storage.reconcile import reconcile
from storage.schema import instance
from tests.support.receiver import encoded
from tests.support.small_objects import CT, image

FEATURES = {"journal": "has_journal", "no journal": "^has_journal"}


def run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


@contextmanager
def mounted(disk: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if not run("mount", "-o", "loop", disk, folder):
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        assert run("umount", folder) or run("umount", "-l", folder)


@pytest.fixture(params=list(FEATURES))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The file behind an empty ext4."""
    made = tmp_path / "disk"
    with made.open("wb") as file:
        file.truncate(64 * 2**20)
    if shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
        pytest.skip("mkfs.ext4 is absent")
    assert run("/usr/sbin/mkfs.ext4", "-q", "-F", "-O", FEATURES[request.param], made)
    return made


def power_cut(disk: Path) -> Path:
    """What the disk holds now, checked as at the start of a machine (without a journal ext4 needs it)."""
    left = disk.with_name("left")
    run("cp", "--sparse=always", disk, left)
    run("/usr/sbin/e2fsck", "-f", "-y", left)
    return left


def received(store: ObjectStore, number: int) -> tuple[str, bytes]:
    """An object on its way, as reception writes it; where it lies and its bytes."""
    ds = image(CT, study="1.2", series="1.2.3", sop=f"1.2.3.{number}", number=number, rows=256)
    meta, body = file_meta(CT, ds.SOPInstanceUID, ExplicitVRLittleEndian, "SENDER"), encoded(ds, ExplicitVRLittleEndian)
    proof = blake3(body).digest()
    part = store.begin()
    part.write(meta, body)
    part.stamp(proof_at(meta), proof)
    return part.commit("1.2", "1.2.3", ds.SOPInstanceUID, proof.hex()), meta[:proof_at(meta)] + proof + body


def test_what_was_acknowledged_is_there_whole(disk: Path, tmp_path: Path) -> None:
    kept = {}
    with mounted(disk, tmp_path / "before") as folder:
        store = ObjectStore(folder / "objects")
        assert store.names_follow  # one sync for data and name
        for number in range(1, 6):
            path, content = received(store, number)
            kept[path] = content
            with mounted(power_cut(disk), tmp_path / f"after-{number}") as after:
                assert {path: (after / "objects" / path).read_bytes() for path in kept} == kept
        unsynced, _ = received(ObjectStore(folder / "objects", "os"), 6)
        with mounted(power_cut(disk), tmp_path / "after-6") as after:  # else this test shows nothing
            assert not (after / "objects" / unsynced).exists() or not (after / "objects" / unsynced).stat().st_size


@pytest.mark.parametrize("moment", ["before the sync", "inside the sync"])
def test_half_a_file_is_never_indexed(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """The name was durable before the bytes: another file's sync took it along, or the data had not all been written."""
    with mounted(disk, tmp_path / "before") as folder:
        store = ObjectStore(folder / "objects")
        whole, _ = received(store, 1)
        sync = os.fsync

        def cut(handle: int) -> None:
            if moment == "inside the sync":
                os.truncate(handle, 40_000)
                sync(handle)
            else:
                directory = os.open((folder / "objects" / whole).parent, os.O_RDONLY)
                sync(directory)
                os.close(directory)
            power_cut(disk)
            sync(handle)

        monkeypatch.setattr(objects.os, "fsync", cut)
        half, _ = received(store, 2)
        monkeypatch.undo()
    with mounted(tmp_path / "left", tmp_path / "after") as after:
        assert moment != "inside the sync" or (after / "objects" / half).stat().st_size == 40_000
        engine = open_engine(tmp_path / "node.db")
        migrate(engine)
        found = reconcile(engine, ObjectStore(after / "objects"), header_reader(engine), AuditLog(engine, tmp_path / "key", tmp_path / "anchor"))
        assert found.adopted == [whole] and set(found.unreadable) <= {half}
        with engine.connect() as conn:
            assert conn.execute(sa.select(instance.c.sop_uid)).scalars().all() == ["1.2.3.1"]
        engine.dispose()
