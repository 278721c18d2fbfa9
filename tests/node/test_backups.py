"""Scheduled copies of the database, and what follows a restore in the data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.backups import follow
from node.build import daily_jobs, open_workplace
from node.cli import app
from node.config import load
from storage.backup import BackupError
from storage.database import node_id
from storage.objects import ObjectStore
from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.small_objects import image


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "node", 1)
    node_id(bench.engine)
    with bench.engine.begin() as conn:
        bench.audit().append(conn, "application-start", "worker")
    return bench


def configure(bench: Bench, text: str) -> None:
    bench.config_file.write_text(bench.config_file.read_text().replace("reserve: 1 MiB", f"reserve: 1 MiB, {text}"))
    bench.config = load(bench.config_file)


def mediqa(bench: Bench, *args: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*args, "-c", str(bench.config_file)])
    assert done.exit_code == code, (args, done.output)
    assert code == 0 or done.stderr.count("\n") == 1, done.stderr
    return done.stderr if code else done.stdout


def test_a_copy_a_day_and_the_oldest_go(bench: Bench, tmp_path: Path) -> None:
    assert [job.name for job in daily_jobs(open_workplace(bench.config))] == ["checkpoint"]
    assert "storage.backup names no folder" in mediqa(bench, "backup", "list")
    configure(bench, "backup: copies, backup_keep: 2")
    assert "no copies in" in mediqa(bench, "backup", "list")
    folder = bench.config_file.parent / "copies"
    folder.mkdir()
    others = ["notes.txt", "node-1.db", "node-20250101T000000Z.db.part"]
    for name in ("node-20250101T000000Z.db", "node-20250102T000000Z.db", *others):
        (folder / name).write_text("")
    (folder / "node-20250101T000000Z.db.anchor").write_text("")
    job = next(job for job in daily_jobs(open_workplace(bench.config)) if job.name == "backup")
    job.run()
    left = sorted(p.name for p in folder.iterdir() if p.name not in others)
    assert left[0] == "node-20250102T000000Z.db" and len(left) == 3 and left[2] == left[1] + ".anchor"
    [event] = bench.rows("select actor, details from audit where event = 'backup'")
    assert event["actor"] == "worker" and json.loads(event["details"])["file"] == left[1]
    listed = json.loads(mediqa(bench, "backup", "list", "--json"))["backups"]
    assert [(Path(b["file"]).name, b["anchored"]) for b in listed] == [(left[0], False), (left[1], True)]
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("a file in the way")
    with pytest.raises(BackupError, match="cannot be written"):
        job.run()


def test_the_command_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    assert "storage.backup" in mediqa(bench, "backup", "create", code=2)
    target = tmp_path / "copy.db"
    assert json.loads(mediqa(bench, "backup", "create", str(target), "--json"))["file"] == str(target)
    assert "exists already" in mediqa(bench, "backup", "create", str(target), code=1)
    assert "no file" in mediqa(bench, "backup", "restore", str(tmp_path / "none.db"), code=1)
    assert "audit.key" in mediqa(bench, "backup", "create", str(tmp_path / "2.db"))
    bench.start()
    try:
        wait_for(lambda: b"worker runs" in bench.log.read_bytes(), 60, bench.tail())
        assert "already running" in mediqa(bench, "backup", "restore", str(target), code=1)
    finally:
        bench.kill()
    assert json.loads(mediqa(bench, "backup", "restore", str(target), "--json"))["replaced"].startswith(str(bench.config.data_folder / "node.db.replaced-"))
    assert "put a backup in the place" in mediqa(bench, "audit", "verify")


def test_what_follows_a_restore(bench: Bench) -> None:
    results, pictures = ObjectStore(bench.config.data_folder / "results"), bench.config.data_folder / "pictures"
    pictures.mkdir()
    for name in ("3.npz", "4.npz", "12.npz", "12.npz.part"):
        (pictures / name).write_text("")
    for number, modality in ((4, "OT"), (7, "OT"), (2, "SR")):
        ds = image(study="1.2", series="1.2.1" if modality == "SR" else "1.2.0", number=number, Modality=modality, SeriesNumber=9902, SeriesDate="20260301",
                   SeriesTime="101112", SeriesDescription="MedIQA image quality")
        part = results.begin()
        with part.path.open("wb") as file:
            ds.save_as(file, enforce_file_format=True)
        part.commit("1.2", ds.SeriesInstanceUID, ds.SOPInstanceUID, "")
    torn = results.begin()
    torn.write(b"no DICOM")
    torn.commit("1.2", "1.2.0", "1.2.9", "")
    follow(bench.engine, results, pictures, 3)
    assert [p.name for p in pictures.iterdir()] == ["3.npz"]
    rows = {r["kind"]: r for r in bench.rows("select * from result_series")}
    assert {k: r["next_instance_number"] for k, r in rows.items()} == {"sc": 8, "sr": 3}
    assert json.loads(rows["sc"]["attributes"]) == {"SeriesDate": "20260301", "SeriesTime": "101112", "SeriesNumber": 9902, "BodyPartExamined": "",
                                                    "SeriesDescription": "MedIQA image quality"}
