"""The key of the audit chain: made once, whole, for this user alone; a wrong, spoiled or missing one is named."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.audit_log import AuditKeyError, AuditLog, load_key
from tests.support.audit import fill, raw


def test_another_key_is_called_that(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> None:
    fill(engine, log)
    report = AuditLog(engine, tmp_path / "other.key", tmp_path / "data" / "audit.anchor").verify()
    assert not report.ok and report.first_bad_seq == 1 and "another key" in report.problem
    raw(engine, "update audit_record set actor = 'x' where seq = 1")
    assert "another key" not in log.verify().problem


def test_the_key_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "audit.key"
    before = os.umask(0)
    try:
        key = load_key(file)
    finally:
        os.umask(before)
    assert len(key) == 32 and load_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [p.name for p in file.parent.iterdir()] == ["audit.key"]


def test_two_processes_that_make_the_key_at_once_have_one(tmp_path: Path) -> None:
    """Receiver and worker start together: neither may see half a key."""
    file, keys, errors = tmp_path / "audit.key", set(), []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        try:
            keys.add(load_key(file))
        except AuditKeyError as error:
            errors.append(error)

    for _ in range(20):
        file.unlink(missing_ok=True)
        keys.clear()
        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 1 and errors == []
    assert [p.name for p in tmp_path.iterdir()] == ["audit.key"]


@pytest.mark.parametrize("content", ["", "abcd", "not hexadecimal", "\xff"])
def test_a_spoiled_key_is_one_line(tmp_path: Path, content: str) -> None:
    file = tmp_path / "audit.key"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(AuditKeyError, match=r"audit\.key.*restore it") as caught:
        load_key(file)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_not_made_by_those_who_only_look(engine: sa.Engine, tmp_path: Path) -> None:
    with pytest.raises(AuditKeyError, match="restore it"):
        AuditLog(engine, tmp_path / "gone.key", tmp_path / "anchor", make_key=False)
    assert not (tmp_path / "gone.key").exists()


def test_a_key_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditKeyError, match=r"storage\.audit_key"):
        load_key(tmp_path / "file" / "audit.key")
