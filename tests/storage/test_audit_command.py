"""`mediqa audit` as the operator has it: list, verify, export."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

from node.cli import app
from storage.audit_log import AuditLog
from tests.support.audit import TAMPERING, N, fill, raw

ROOT = Path(__file__).resolve().parents[2]
Mediqa = Callable[..., Result]


@pytest.fixture
def config(engine: sa.Engine, log: AuditLog, tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text("node: {data: data}\n", encoding="ascii")
    return file


@pytest.fixture
def mediqa(config: Path) -> Mediqa:
    return lambda *args: CliRunner().invoke(app, ["audit", *args, "-c", str(config)])


def test_the_command_finds_and_names_one_row(engine: sa.Engine, log: AuditLog, config: Path, tmp_path: Path) -> None:
    """As a process, on a database that somebody worked on with sqlite3."""
    command = [sys.executable, "-m", "node", "audit", "verify", "-c", str(config)]
    fill(engine, log)
    raw(engine, "pragma wal_checkpoint(truncate)")
    shutil.copy(tmp_path / "data" / "node.db", tmp_path / "whole.db")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"audit log: {N} records, the chain holds\n", "")
    for name in ("edit details", "delete middle", "swap", "cut off one"):
        statements, bad = TAMPERING[name]
        raw(engine, *statements)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and re.search(rf"\brecord {bad}\b", done.stdout) and done.stderr == "", name
        engine.dispose()
        for left in (tmp_path / "data").glob("node.db*"):
            left.unlink()
        shutil.copy(tmp_path / "whole.db", tmp_path / "data" / "node.db")


def test_the_command_says_so_in_json(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    fill(engine, log)
    assert json.loads(mediqa("verify", "--json").stdout) == {"ok": True, "records": N, "first_bad_seq": None, "problem": "", "restored": []}
    raw(engine, *TAMPERING["insert in between"][0])
    done = mediqa("verify", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == 1 and (said["ok"], said["first_bad_seq"], said["records"]) == (False, 4, 3)


def test_the_command_shows_a_tampered_log(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    """What somebody wrote into the table stops neither list nor export, and drives no terminal."""
    fill(engine, log, 3)
    raw(engine, "update audit_record set details = cast(x'ff' as text) where seq = 1", "update audit_record set details = x'00' where seq = 2",
        "update audit_record set series_uid = char(27) || '[31m' where seq = 3")
    for args in (("list",), ("list", "--json"), ("export",), ("export", "--csv")):
        done = mediqa(*args)
        assert done.exit_code == 0 and done.stderr == "" and "receiver" in done.stdout, args
        assert "\x1b" not in done.stdout or args == ("export", "--csv"), args


def test_the_command_without_log_key_or_database_is_one_line(engine: sa.Engine, log: AuditLog, mediqa: Mediqa, tmp_path: Path) -> None:
    fill(engine, log, 2)
    data = tmp_path / "data"
    (data / "audit.key").rename(tmp_path / "key")
    done = mediqa("verify")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "audit.key" in done.stderr and not (data / "audit.key").exists()
    (tmp_path / "key").rename(data / "audit.key")
    engine.dispose()
    raw(engine, "drop view audit", "drop table audit_record")
    done = mediqa("verify")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "no audit log" in done.stderr
    for left in data.glob("node.db-*"):
        left.unlink()
    (data / "node.db").write_bytes(b"this is no database, " * 100)
    done = mediqa("list")
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "cannot be read" in done.stderr
    (data / "node.db").unlink()
    done = mediqa("verify")
    assert done.exit_code == 1 and "no audit log" in done.stderr and not (data / "node.db").exists()


def test_the_command_lists_and_exports(engine: sa.Engine, log: AuditLog, mediqa: Mediqa) -> None:
    fill(engine, log, 3)
    rows = json.loads(mediqa("list", "--json", "--series", "1.2.1").stdout)["records"]
    assert [(r["seq"], r["event"], r["details"]) for r in rows] == [(2, "received", {"instances": 1, "peer": "127.0.0.1"})]
    lines = [json.loads(line) for line in mediqa("export").stdout.splitlines()]
    assert [r["seq"] for r in lines] == [1, 2, 3] and all(len(r["mac"]) == 64 for r in lines)
    table = mediqa("export", "--csv", "--event", "received").stdout.splitlines()
    assert table[0] == "seq,at,event,actor,study_uid,series_uid,sop_uid,details,mac" and len(table) == 4
