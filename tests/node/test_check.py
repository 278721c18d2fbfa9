"""`mediqa check` against real peers: what it says, its exit code, and that it sends nothing."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from node.cli import app, check
from node.config import Config, Tls
from node.receive.__main__ import open_storage
from storage.schema import delivery, revision, series
from storage.senders import keep_habit
from tests.support.pacs import SmallPacs
from tests.support.ports import free_port
from tests.support.receiver import ReceiverUnderTest, configuration

BASIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.22"


def write_config(folder: Path, destinations: str = "[]", more: str = "", port: int | None = None) -> Path:
    file = folder / "config.yaml"
    file.write_text(f"""
node: {{data: data}}
receive: {{host: 127.0.0.1, port: {port or free_port()}, allow: [{{ae_title: PACS, networks: [127.0.0.0/8]}},
           {{ae_title: CT1, networks: [127.0.0.0/8]}}]}}
storage: {{reserve: 1 MiB}}
destinations: {destinations}
{more}
""", encoding="utf-8")
    return file


def run(config: Path, *more: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["check", "-c", str(config), "--json", *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {row["check"]: row["state"] for row in answer["checks"]}


def text(answer: dict[str, Any], what: str) -> str:
    return next(row["text"] for row in answer["checks"] if row["check"] == what)


@pytest.fixture(autouse=True)
def with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "model", lambda settings: check.Row("model", check.OK, "test"))


def test_all_is_well(tmp_path: Path) -> None:
    with SmallPacs() as pacs:
        code, answer = run(write_config(tmp_path, f"[{{name: pacs, ae_title: PACS, host: 127.0.0.1, port: {pacs.port}}}]"))
        assert (code, answer["ok"]) == (0, True), answer
        assert "comprehensive-3d is sent" in text(answer, "destination pacs: SR")
        assert not pacs.encoded
    assert not (tmp_path / "data").exists()  # nothing was changed


def test_a_destination_with_fewer_classes(tmp_path: Path) -> None:
    with SmallPacs(classes=[ENHANCED, BASIC]) as pacs:
        code, answer = run(write_config(tmp_path, f"[{{name: pacs, ae_title: PACS, host: 127.0.0.1, port: {pacs.port}}}]"))
    assert code == 1
    assert text(answer, "destination pacs: SR") == "takes enhanced, basic-text; enhanced is sent"
    assert states(answer)["destination pacs: SR"] == "ok"
    assert states(answer)["destination pacs: Secondary Capture"] == "failed"


def test_destinations_that_cannot_be_reached(tmp_path: Path) -> None:
    with ReceiverUnderTest(configuration(tmp_path / "other")) as other:  # a real node that does not know us
        code, answer = run(write_config(tmp_path, f"""
  - {{name: gone, ae_title: PACS, host: 127.0.0.1, port: {free_port()}, serves: [PACS]}}
  - {{name: strict, ae_title: MEDIQA, host: 127.0.0.1, port: {other.port}, serves: [PACS]}}
  - {{name: wrong, ae_title: ELSE, host: 127.0.0.1, port: {other.port}, serves: [PACS]}}"""))
    assert code == 1
    assert "nobody answers" in text(answer, "destination gone")
    assert "1/1/3: add the AE title MEDIQA" in text(answer, "destination strict")
    assert "1/1/7" in text(answer, "destination wrong") and "does not call itself ELSE" in text(answer, "destination wrong")
    assert text(answer, "routing").startswith("no destination serves CT1:")


def test_ports(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        config = write_config(tmp_path, port=number)
        code, answer = run(config)
        assert code == 1 and "stop the other program" in text(answer, "port")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "receiver.ready").write_text(json.dumps({"port": number, "pid": 1}), encoding="ascii")
        assert "this node is running" in text(run(config)[1], "port")
        (tmp_path / "data" / "receiver.ready").write_text(json.dumps({"port": number, "pid": 2**22 + 1}), encoding="ascii")
        assert run(config)[0] == 1


def test_disk_and_database(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace("reserve: 1 MiB", "reserve: 9000 TiB"), encoding="utf-8")
    code, answer = run(config)
    assert code == 1 and "0xA700" in text(answer, "disk")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "node.db").write_bytes(b"no database at all" * 100)
    assert states(run(config)[1])["database"] == "failed"


def test_wrong_configuration(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "-c", str(write_config(tmp_path, port=99999))])
    assert done.exit_code == 2 and ": receive.port: is 99999, write" in done.stderr and done.stdout == ""


def test_shadow_mode_lists_what_it_kept_back(tmp_path: Path) -> None:
    config = write_config(tmp_path, more="deliver: {mode: shadow}")
    assert run(config, "--go-live") == (0, {"kept_back": []})
    engine, _, _ = open_storage(configuration(tmp_path))
    with engine.begin() as conn:
        conn.execute(series.insert().values(id=1, study_uid="1", series_uid="1.2", first_at="", last_at="", first_mono=0, last_mono=0,
                                            boot_id="", modality="CT", description="Thorax", calling_ae="UNKNOWN"))
        conn.execute(revision.insert().values(id=1, series_id=1, number=1, changes=1, completed_at="", completed_by="quiet", instances=1,
                                              content_digest="", outcome="assessed", score=71.5, verdict="Good"))
        for kind, due, state in (("sr", None, "pending"), ("sc", "2026-01-01T00:00:00Z", "held"), ("xx", None, "delivered")):
            conn.execute(delivery.insert().values(revision_id=1, kind=kind, destination="pacs", made_at="", next_try_at=due, state=state))
    code, answer = run(config, "--go-live")
    row = {"destination": "pacs", "kind": "sr", "modality": "CT", "description": "Thorax", "end": "assessed", "score": 71.5,
           "verdict": "Good", "series_uid": "1.2"}
    assert code == 0 and answer == {"kept_back": [row, row | {"kind": "sc"}]}
    live = write_config(tmp_path)
    assert run(live, "--go-live") == (0, {"kept_back": [row]})  # what is due goes by itself
    config = write_config(tmp_path, more="deliver: {mode: shadow}")
    assert states(run(config)[1])["delivery"] == "note"


def test_learned_waits(tmp_path: Path) -> None:
    fixed, auto = "completion: {quiet: 20}", "completion: {quiet: auto}"
    assert text(run(write_config(tmp_path, more=auto))[1], "waits").startswith("completion.quiet: auto: 5 to 60 s")
    engine, _, _ = open_storage(configuration(tmp_path))
    with engine.begin() as conn:
        for modality, wait, contiguous, split in (("CT", 7.0, 5.0, 0), ("MR", None, None, 2), ("PT", 9.0, None, 0)):
            keep_habit(conn, "PACS", modality, wait=wait, contiguous=contiguous, longest=4.25, between=0.0, seen=150 if wait else 8, split=split,
                       history="[]")
    answer = run(write_config(tmp_path, more=auto))[1]
    assert text(answer, "wait PACS CT") == "7 s, 5 s after a gap-free run whose association ended; longest gap 4.2 s, 0 of the last 150 series came in parts"
    assert text(answer, "wait PACS MR") == "60 s until 20 series were seen; longest gap 4.2 s, 2 of the last 8 series came in parts"
    assert text(answer, "wait PACS PT").startswith("9 s; longest gap")
    assert {states(answer)[name] for name in ("waits", "wait PACS CT", "wait PACS MR")} == {"ok"}
    code, answer = run(write_config(tmp_path, more=fixed))
    assert code == 0 and text(answer, "waits") == "completion.quiet: 20 s for every sender"
    assert (states(answer)["wait PACS CT"], states(answer)["wait PACS MR"]) == ("ok", "note")
    assert text(answer, "wait PACS MR").endswith("write a longer completion.quiet, or auto")
    with engine.begin() as conn:
        for k in range(30):
            keep_habit(conn, f"X{k:02}", "CT", wait=50.0, contiguous=5.0, longest=1.0, between=0.0, seen=20, split=0, history="[]")
    rows = run(write_config(tmp_path, more=auto))[1]["checks"]
    assert len([r for r in rows if r["check"].startswith("wait ")]) == check.WAIT_ROWS
    assert [r["text"] for r in rows if r["check"] == "waits"][1:] == ["13 more in the view waits"]


def test_the_table(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "-c", str(write_config(tmp_path))])
    assert done.exit_code == 0 and "MEDIQA on 127.0.0.1" in done.stdout


def test_the_model_row_is_about_installed_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    import qa_engine

    monkeypatch.setattr(qa_engine, "__path__", [str(tmp_path)])
    row = check.model(Config())
    assert row.state == check.BAD and "abstained/no-model" in row.text and "mediqa model import" in row.text
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mediqa-compact.safetensors").write_bytes(b"")
    assert check.model(Config()) == row  # without its card it is of no use
    (tmp_path / "weights" / "mediqa-compact.json").write_text('{"version": "7"}', encoding="utf-8")
    assert check.model(Config()) == check.Row("model", check.OK, "engine.profile is mediqa-compact 7")
    assert check.model(Config(engine={"profile": "mediqa-other"})).state == check.BAD


def test_tls_files(tmp_path: Path) -> None:
    settings = configuration(tmp_path)
    assert check.tls(settings) == []
    broken = settings.model_copy(update={"receive": settings.receive.model_copy(update={"tls": Tls(certificate="absent.pem")})})
    [row] = check.tls(broken)
    assert (row.state, "receive.tls.certificate" in row.text) == (check.BAD, True)


def test_retention_and_backups_are_told(tmp_path: Path) -> None:
    def rows(storage: str) -> dict[str, tuple[str, str]]:
        config = tmp_path / "config.yaml"
        config.write_text(f"node: {{data: data}}\nreceive: {{host: 127.0.0.1, port: 0}}\nstorage: {{reserve: 1 KiB, {storage}}}\ndestinations: []\n")
        done = CliRunner().invoke(app, ["check", "--json", "-c", str(config)])
        return {c["check"]: (c["state"], c["text"]) for c in json.loads(done.stdout)["checks"]}

    told = rows("durability: os")
    assert told["retention"] == ("ok", "received files are never deleted") and "backup" not in told
    told = rows("keep_days: 30, keep_free: 5 GiB, backup: copies")
    assert "30 days after" in told["retention"][1] and "oldest series first until 5 GiB are free" in told["retention"][1]
    assert told["backup"][0] == "note" and "no copy yet" in told["backup"][1]
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "node-20260101T011700Z.db"
    copy.write_text("")
    assert rows("backup: copies")["backup"] == ("ok", f"{tmp_path / 'copies'}: 1 of its copies, the newest is 0.0 days old")
    os.utime(copy, (0, 0))
    assert rows("backup: copies")["backup"][0] == "note"
    assert rows("backup: config.yaml")["backup"][0] == "failed"
