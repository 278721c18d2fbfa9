"""`mediqa series` and `mediqa delivery`: what they show, and words that the running worker takes up through rows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import app
from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.scripted_pacs import ScriptedPacs

runner = CliRunner()


def mediqa(bench: Bench, *args: str, code: int = 0) -> str:
    done = runner.invoke(app, [*args, "-c", str(bench.config_file)])
    assert done.exit_code == code, (args, done.output)
    return done.stdout


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "node", 1)
    bench.audit()
    yield bench
    bench.kill()


def test_series_before_the_worker_runs(bench: Bench) -> None:
    uid = bench.put_series()[0].SeriesInstanceUID
    rows = json.loads(mediqa(bench, "series", "list", "--json"))["series"]
    assert [(r["series_uid"], r["state"], r["instances"], r["revision"], r["end"]) for r in rows] == [(uid, "open", 3, 0, None)]
    assert uid in mediqa(bench, "series", "list")
    assert json.loads(mediqa(bench, "series", "show", uid, "--json"))["revisions"] == []
    mediqa(bench, "series", "show", uid)
    assert "noted" in mediqa(bench, "series", "complete", uid)
    assert bench.rows("select operator_word from series") == [{"operator_word": "complete"}]
    assert [r["event"] for r in bench.rows("select event from audit")] == ["operator-complete"]
    mediqa(bench, "series", "rescore", "1.2.3.4.5", code=1)
    mediqa(bench, "series", "show", "1.2.3.4.5", code=1)


def test_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("node: {data: nowhere}\n")
    for args in (["series", "list"], ["delivery", "list"], ["delivery", "retry", "1"]):
        done = runner.invoke(app, [*args, "-c", str(tmp_path / "config.yaml")])
        assert done.exit_code == 1 and len(done.stderr.strip().splitlines()) == 1 and "mediqa serve" in done.stderr


def test_retry_needs_to_know_which(bench: Bench) -> None:
    mediqa(bench, "delivery", "retry", code=2)
    mediqa(bench, "delivery", "retry", "77", code=1)


def test_operator_on_a_running_worker(tmp_path: Path) -> None:
    with ScriptedPacs([0xA900]) as pacs:
        bench = Bench(tmp_path / "node", pacs.port)
        uid = bench.put_series()[0].SeriesInstanceUID
        try:
            bench.start()
            bench.wait_rows("select id from delivery where state = 'delivered' and kind = 'sr'")
            row = json.loads(mediqa(bench, "delivery", "list", "--json", "--state", "refused"))["deliveries"][0]
            assert (row["kind"], row["state"], row["last_answer"][:6]) == ("sc", "refused", "0xA900")
            asked = time.monotonic()
            mediqa(bench, "delivery", "retry", str(row["delivery_id"]))
            wait_for(lambda: len(bench.rows("select id from delivery where state = 'delivered'")) == 2, 10, bench.tail())
            assert time.monotonic() - asked < 4
            mediqa(bench, "delivery", "drop", str(row["delivery_id"]), code=1)
            mediqa(bench, "series", "rescore", uid)
            bench.wait_rows("select id from revision where number = 2 and completed_by = 'operator' and outcome is not null")
            assert "delivered" in mediqa(bench, "delivery", "list", "--series", uid)
            assert len(json.loads(mediqa(bench, "series", "show", uid, "--json"))["revisions"]) == 2
        finally:
            bench.kill()


def test_drop_and_bring_back(bench: Bench) -> None:
    bench.put_series()
    bench.start()
    bench.wait_rows("select name from destination where failures > 0")
    bench.kill()
    bench.write("update delivery set state = 'held'")
    assert "does not answer" in mediqa(bench, "delivery", "list")
    assert json.loads(mediqa(bench, "delivery", "drop", "--destination", "pacs", "--json"))["drop"] == [1, 2]
    assert {r["state"] for r in bench.rows("select state from delivery")} == {"dropped"}
    mediqa(bench, "delivery", "retry", "--destination", "pacs")
    assert {r["state"] for r in bench.rows("select state from delivery")} == {"pending"}
