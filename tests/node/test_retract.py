"""`mediqa series retract` on a running worker: what is sent, what is refused in one line, and that nothing is scored again by itself."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from node.cli import app
from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.scripted_pacs import ScriptedPacs
from tests.support.small_objects import CT, image

DELIVERED = "select id from delivery where state = 'delivered'"


def mediqa(bench: Bench, *args: str, code: int = 0) -> str:
    """stdout, or for a failure the one line on stderr."""
    done = CliRunner().invoke(app, [*args, "-c", str(bench.config_file)])
    assert done.exit_code == code, (args, done.output)
    assert code == 0 or done.stderr.count("\n") == 1, done.stderr
    return done.stderr if code else done.stdout


def test_the_life_of_a_retraction(bench: Bench, pacs: ScriptedPacs) -> None:
    sets = bench.put_series()
    uid = str(sets[0].SeriesInstanceUID)
    bench.audit()
    assert "nothing" in mediqa(bench, "series", "retract", uid, code=1) and "no series" in mediqa(bench, "series", "retract", "1.2.3", code=1)
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    mediqa(bench, "series", "retract", uid, "--reason", "x" * 201, code=2)
    assert json.loads(mediqa(bench, "series", "retract", uid, "--reason", "wrong\nprotocol of SIMULATED^NAME", "--json"))["word"] == "retract"
    bench.wait_rows(DELIVERED, 4)
    assert len(pacs.held) == 4 and pacs.other_bytes == []
    [spoken] = bench.rows("select actor, details from audit where event like '%retract%'")
    assert (spoken["actor"], json.loads(spoken["details"])) == ("operator", {"reason_given": True})
    assert not any("SIMULATED" in r["details"] for r in bench.rows("select details from audit"))
    assert "retracted already, by revision 2" in mediqa(bench, "series", "retract", uid, code=1)
    [_, gone] = bench.rows("select * from results where series_uid = :u order by revision", u=uid)
    assert (gone["end"], gone["reason"], gone["completed_by"], gone["score"]) == ("abstained", "retracted", "operator", None)
    assert "wrong protocol" in gone["assessment"] and "withdrawn" in mediqa(bench, "results") and "abstained/retracted" in mediqa(bench, "series", "show", uid)

    # a late slice: kept, and nothing is scored without an operator's word
    bench.put(image(CT, study=sets[0].StudyInstanceUID, series=uid, number=4))
    bench.wait_rows("select id from series where state = 'parked'")
    parked = bench.rows("select details from audit where event = 'parked'")
    assert json.loads(parked[0]["details"]) == {"reason": "retracted"} and len(bench.rows("select id from revision")) == 2
    mediqa(bench, "series", "rescore", uid)
    bench.wait_rows(DELIVERED, 6)
    third = bench.rows("select * from results where revision = 3")[0]
    assert (third["end"], third["instances"], third["retracted_at"]) == ("assessed", 4, None)
    assert len(pacs.held) == 6 and bench.stop() == 0 and bench.audit().verify().ok


def test_a_word_waits_for_the_worker_and_no_other_takes_its_place(bench: Bench, pacs: ScriptedPacs) -> None:
    uid = str(bench.put_series()[0].SeriesInstanceUID)
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.kill()
    mediqa(bench, "series", "retract", uid)
    for word in ("retract", "rescore", "complete"):
        assert "waits for the worker" in mediqa(bench, "series", word, uid, code=1)
    bench.start()
    bench.wait_rows(DELIVERED, 4)
    assert bench.rows("select operator_word, operator_text, state from series") == [{"operator_word": None, "operator_text": None, "state": "complete"}]


def test_what_is_still_to_be_sent_is_not_sent_after_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node", 1)  # nobody listens there
    try:
        uid = str(bench.put_series()[0].SeriesInstanceUID)
        bench.start()
        bench.wait_rows("select id from delivery where state = 'held'")
        mediqa(bench, "series", "retract", uid)
        bench.wait_rows("select id from revision where reason = 'retracted' and report_seconds is not null")
        states = "select r.number, d.state from delivery d join revision r on r.id = d.revision_id"
        wait_for(lambda: {r["state"] for r in bench.rows(states) if r["number"] == 1} == {"dropped"}, 10, bench.tail())
        assert {r["state"] for r in bench.rows(states) if r["number"] == 2} <= {"pending", "held", "sending"}
        drops = [json.loads(r["details"]) for r in bench.rows("select details from audit where event = 'delivery-drop'")]
        assert [d["reason"] for d in drops] == ["retracted"] * 2
    finally:
        bench.kill()
