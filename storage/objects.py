"""The object store: files complete, synced and renamed into place before anybody is told (DESIGN sections 4 and 8).

Path of an object: 2 hex of sha256(Study UID) / sha256[:16] of study / of series / of SOP Instance UID `.dcm`; another version of a known
SOP Instance UID carries its digest in the name. UIDs are hostile: they are hashed, never used as names.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from storage.file_system import names_follow_files, start_writing

_counter = itertools.count()
_DIRECTORY_MODE, _FILE_MODE = 0o700, 0o600
DURABILITIES = ("default", "full", "os")
WRITE_EVERY = 8 * 2**20
"""Bytes of a large object after which the system is asked to write them, while the rest still comes."""
MAX_PIECES = 512
"""Pieces of one `PartFile.write`; Linux takes 1024 (IOV_MAX)."""


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()


def object_path(study_uid: str, series_uid: str, sop_uid: str, digest: str = "", another_version: bool = False) -> str:
    """Relative path of an object; pure."""
    study = _hash(study_uid)
    name = _hash(sop_uid)[:16] + (f"-{digest[:16]}" if another_version else "")
    return f"{study[:2]}/{study[:16]}/{_hash(series_uid)[:16]}/{name}.dcm"


def sync_directory(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folders(folder: Path, synced: bool) -> None:
    """Make `folder` and its missing parents, for this user alone, each new name durable in its parent where `synced`."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
        if synced:
            sync_directory(path.parent)


class PartFile:
    """A file on its way into the store. `discard` is always allowed and may be called again.

    Where a power cut may leave a final name on half a file (`ObjectStore.names_follow`), the caller's bytes must tell whether they are whole.
    """

    def __init__(self, store: ObjectStore, path: Path) -> None:
        self._store, self.path = store, path
        self._committed = False
        self._size = self._started = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Append `pieces` (at most MAX_PIECES) whole, in one call of the system; OSError when the disk is full."""
        size = sum(map(len, pieces))
        left = size - os.writev(self._handle, pieces)
        if left:  # a short write: the rest, or the reason why not
            rest = memoryview(b"".join(pieces))[-left:]
            while rest:
                rest = rest[os.write(self._handle, rest):]
        self._size += size
        if self._size - self._started >= WRITE_EVERY and self._store.synced:
            start_writing(self._handle, self._started, self._size - self._started)
            self._started = self._size

    def stamp(self, at: int, data: bytes) -> None:
        """Overwrite what was written from byte `at`."""
        if os.pwrite(self._handle, data, at) != len(data):
            raise OSError(errno.EIO, "short write")

    def commit(self, study_uid: str, series_uid: str, sop_uid: str, digest: str, another_version: bool = False) -> str:
        """`place`, and its directory synced: the file is durable when this returns. The relative path."""
        relative = self.place(study_uid, series_uid, sop_uid, digest, another_version)
        self._store.sync_folders([relative])
        return relative

    def place(self, study_uid: str, series_uid: str, sop_uid: str, digest: str, another_version: bool = False) -> str:
        """Rename into place and sync; the relative path. The name is durable after `ObjectStore.sync_folders`.

        One sync does for both where it makes the name durable as well. A file that is there already is only replaced by a durable one; the
        caller sees to it that no two threads place the same object at once.
        """
        relative = object_path(study_uid, series_uid, sop_uid, digest, another_version)
        target = self._store.root / relative
        self._store.make_folder(target.parent)
        now = time.time_ns()
        os.utime(self._handle, ns=(now, now))  # the clock of a file system stands still for milliseconds; order of reception needs more
        if self._store.names_follow and not os.path.lexists(target):
            self._rename(target)
            self.path = target  # until it is synced, `discard` takes it away again
            os.fsync(self._handle)  # fdatasync would not wait for the name
        else:
            if self._store.synced:
                os.fdatasync(self._handle)
            self._rename(target)
            if self._store.names_follow:  # `sync_folders` relies on it
                sync_directory(target.parent)
        self._close()
        self._committed = True
        return relative

    def _rename(self, target: Path) -> None:
        try:
            os.rename(self.path, target)
        except FileNotFoundError:  # retention has just removed the folder, which was empty
            self._store.make_folder(target.parent)
            os.rename(self.path, target)

    def discard(self) -> None:
        """Close and remove what was not committed."""
        self._close()
        if not self._committed:
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)


class ObjectStore:
    """Objects below `root`; parts lie in `root`/parts, on the same file system. durability: default, full or os."""

    def __init__(self, root: Path, durability: str = "default") -> None:
        if durability not in DURABILITIES:
            raise ValueError(f"durability is one of {', '.join(DURABILITIES)}, not {durability}")
        self.root, self.durability, self.synced = Path(root), durability, durability != "os"
        self.parts = self.root / "parts"
        make_folders(self.parts, self.synced)
        self.names_follow = self.synced and names_follow_files(self.parts)
        """Whether the sync of a file makes its name durable."""
        self._random = os.urandom(4).hex()
        self._folders: set[Path] = set()

    def begin(self) -> PartFile:
        """A new part file under a name that nobody else uses."""
        return PartFile(self, self.parts / f"{os.getpid()}-{self._random}-{next(_counter)}.part")

    def make_folder(self, folder: Path) -> None:
        """Make `folder` and its parents below root, each name durable in its parent."""
        if folder in self._folders and folder.is_dir():
            return
        above = [p for p in (folder, *folder.parents) if p.is_relative_to(self.root) and p != self.root]
        for path in reversed(above):
            try:
                path.mkdir(mode=_DIRECTORY_MODE)
                made = True
            except FileExistsError:
                made = False
            # one that was there may have been made by another thread that has not synced it yet
            if self.synced and (made or path not in self._folders):
                sync_directory(path.parent)
        if len(self._folders) > 10_000:
            self._folders.clear()
        self._folders.update(above)

    def sync_folders(self, relatives: Iterable[str]) -> None:
        """Make the names of placed files durable, each directory once; nothing where they are with their files."""
        if self.synced and not self.names_follow:
            for folder in {relative.rpartition("/")[0] for relative in relatives}:
                sync_directory(self.root / folder)

    def remove(self, relatives: Iterable[str]) -> None:
        """Delete stored objects, then their folders where nothing is left in them. What is not there is no error."""
        folders = set()
        for relative in relatives:
            path = self.path(relative)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            try:
                folder.rmdir()
                folder.parent.rmdir()
            except OSError:
                pass  # something else lies there

    def path(self, relative: str) -> Path:
        """Absolute path of a stored object; ValueError when `relative` would leave the store."""
        path = (self.root / relative).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError("path outside the object store")
        return path

    def free_bytes(self) -> int:
        """Free bytes for this user on the file system of the store."""
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize

    def sweep_parts(self) -> int:
        """Remove part files that a killed receiver left; how many. Only when no receiver runs."""
        left = list(self.parts.glob("*.part"))
        for part in left:
            part.unlink(missing_ok=True)
        return len(left)

    def folders(self) -> list[str]:
        """The first folder of the paths that objects can have, and those of two characters that are there besides."""
        return sorted({f"{n:02x}" for n in range(256)} | {entry.name for entry in os.scandir(self.root) if len(entry.name) == 2})

    def walk(self, folder: str = "??") -> Iterator[str]:
        """Relative paths of all stored objects, or of those below one of `folders`."""
        for path in sorted(self.root.glob(f"{folder}/*/*/*.dcm")):
            yield str(path.relative_to(self.root))

    def in_order_of_reception(self, relatives: Iterable[str]) -> list[str]:
        """Stored objects as they came: first versions before other versions, each by the time of their last byte."""
        return sorted(relatives, key=lambda relative: ("-" in Path(relative).name, self.path(relative).stat().st_mtime_ns, relative))
