"""What is told of the file system below a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from storage import file_system


def test_the_type_is_that_of_the_mount(tmp_path: Path) -> None:
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text("24 27 0:6 / /dev rw - devtmpfs dev rw\n"
                      f"27 1 {os.major(device)}:{os.minor(device)} / / rw,relatime shared:1 - ext4 /dev/vda rw,a - b\n")
    assert file_system.kind(tmp_path, mounts) == "ext4"
    mounts.write_text("24 27 0:6 / /dev rw - devtmpfs dev rw\n")
    assert file_system.kind(tmp_path, mounts) == file_system.kind(tmp_path, tmp_path / "absent") == ""


def test_a_file_system_that_promises_nothing_is_not_trusted(tmp_path: Path) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        assert file_system.kind(tmp_path) == "tmpfs" and not file_system.names_follow_files(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
