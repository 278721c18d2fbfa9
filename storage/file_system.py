"""What is known of the file system below the object store, for syncing no more and no later than durability needs (docs/decisions/0012)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NAMES_FOLLOW_FILES = frozenset({"ext4"})
"""Types on which fsync of a file makes the name durable, too, that it was renamed to before.

With a journal the rename changes the file's inode (its change time), so fsync waits for the transaction that holds both; without one
ext4 syncs the directory of a new name itself (ext4_sync_parent). `tests/crash/test_power_cut.py` shows it on images of both. Others may
behave alike and are not listed before they have been seen to.
"""
_WRITE = 2
"""SYNC_FILE_RANGE_WRITE of sync_file_range(2)."""
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
MOUNTS = Path("/proc/self/mountinfo")


def kind(folder: Path, mounts: Path = MOUNTS) -> str:
    """Type of the file system that holds `folder`, "" where the system does not tell."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [wanted]:
            return after.split(" ")[0]
    return ""


def names_follow_files(folder: Path) -> bool:
    """Whether a synced file has a durable name; False where that is not known, and then the directory is synced as well."""
    return kind(folder) in NAMES_FOLLOW_FILES


def start_writing(handle: int, at: int, size: int) -> None:
    """Asks the system to write these bytes of a file to the disk now, without waiting: less is left to do for the sync at its end.

    Nothing where the system has no such call. What fails here, the sync will tell.
    """
    if _sync_file_range is not None:
        _sync_file_range(handle, ctypes.c_int64(at), ctypes.c_int64(size), _WRITE)
