"""The worker process on real rows: completion, revisions, ends, deliveries, repair."""

from __future__ import annotations

import copy
import json
import signal
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from pydicom.uid import RLELossless

from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.scripted_pacs import ScriptedPacs
from tests.support.small_objects import CT, image

ENDED = "select * from revision where outcome is not null order by id"
DELIVERED = "select * from delivery where state = 'delivered'"


def test_a_series_goes_all_the_way(bench: Bench, pacs: ScriptedPacs) -> None:
    sets = bench.put_series()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    revision = bench.rows(ENDED)[0]
    assert (revision["outcome"], revision["completed_by"], revision["instances"], revision["missing"]) == ("assessed", "contiguous", 3, 0) \
        or revision["completed_by"] == "quiet"
    assert revision["score"] == pytest.approx(61.234) and revision["low"] == 55.25 and revision["report_seconds"] >= 0
    assert list(pacs.times.values()) == [1, 1]
    events = [r["event"] for r in bench.rows("select event from audit where series_uid = :u order by seq", u=sets[0].SeriesInstanceUID)]
    assert events == ["completed", "ended", "reported", "delivered", "delivered"]
    assert bench.stop() == 0
    assert bench.audit().verify().ok
    assert [r["event"] for r in bench.rows("select event from audit order by seq desc limit 1")] == ["application-stop"]
    assert bench.config.audit_anchor_path.exists()


def test_late_instance_makes_revision_two_and_duplicates_nothing(bench: Bench, pacs: ScriptedPacs) -> None:
    sets = bench.put_series()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    late = image(CT, study=sets[0].StudyInstanceUID, series=sets[0].SeriesInstanceUID, number=5)
    bench.put(late)
    bench.wait_rows(DELIVERED, 4)
    first, second = bench.rows(ENDED)
    assert (first["instances"], second["instances"], second["number"], second["missing"]) == (3, 4, 2, 1)
    bench.put(late)
    time.sleep(1.5)
    assert len(bench.rows("select id from revision")) == 2 and len(pacs.held) == 4


def test_storm_parks_the_series_until_an_operator_speaks(bench: Bench) -> None:
    sets = bench.put_series(2)
    bench.start()
    for number in range(3, 6):
        bench.wait_rows("select id from revision where outcome is not null", number - 2)
        bench.put(image(CT, study=sets[0].StudyInstanceUID, series=sets[0].SeriesInstanceUID, number=number))
    bench.wait_rows("select id from series where state = 'parked'")
    assert len(bench.rows("select id from revision")) == 3
    assert bench.rows("select seq from audit where event = 'parked'")
    bench.write("update series set operator_word = 'complete'")
    bench.wait_rows("select id from revision where number = 4 and outcome = 'assessed' and completed_by = 'operator'")
    assert bench.rows("select state from series") == [{"state": "complete"}]


def test_corrected_identity_is_rendered_anew_without_scoring(bench: Bench, pacs: ScriptedPacs) -> None:
    sets = bench.put_series()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    for ds in sets:
        again = copy.deepcopy(ds)
        again.PatientName, again.AccessionNumber = "OTHER^NAME", "A7"
        bench.put(again)
    bench.wait_rows(DELIVERED, 4)
    first, second = bench.rows(ENDED)
    assert (second["purpose"], second["outcome"], second["score"]) == ("identity", "assessed", first["score"])
    assert len(bench.assessments()) == 1 and len(pacs.held) == 4
    assert {r["arrival"]: r["n"] for r in bench.rows(
        "select arrival, count(*) as n from instance where current = 1 group by arrival")} == {"update": 3}


def test_changed_acquisition_is_scored_again(bench: Bench) -> None:
    sets = bench.put_series()
    bench.start()
    bench.wait_rows(ENDED)
    again = copy.deepcopy(sets[1])
    again.KVP = 80
    bench.put(again)
    assert bench.wait_rows(ENDED, 2)[1]["purpose"] == "score"
    assert len(bench.assessments()) == 2


def test_conflict_and_transcoded_change_nothing_that_is_current(bench: Bench) -> None:
    sets = bench.put_series()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    other = copy.deepcopy(sets[0])
    other.PixelData = bytes(len(other.PixelData))
    bench.put(other)
    again = copy.deepcopy(sets[1])
    again.compress(RLELossless, generate_instance_uid=False)
    bench.put(again)
    bench.wait_rows("select id from instance where arrival in ('conflict', 'transcoded')", 2)
    bench.wait_rows("select id from series where state = 'complete'")
    assert len(bench.rows("select id from revision")) == 1
    assert sorted(r["event"] for r in bench.rows("select event from audit where event in ('conflict', 'transcoded')")) == \
        ["conflict", "transcoded"]
    assert bench.rows("select count(*) as n from instance where current = 1") == [{"n": 3}]
    # the next revision says so
    bench.put(image(CT, study=sets[0].StudyInstanceUID, series=sets[0].SeriesInstanceUID, number=4))
    assert "uid-conflict" in bench.wait_rows(ENDED, 2)[1]["assessment"]


def test_a_series_of_nothing_but_conflicts_closes_without_a_revision(bench: Bench) -> None:
    sets = bench.put_series()
    elsewhere = copy.deepcopy(sets[0])
    elsewhere.SeriesInstanceUID = "2.25.4711"
    bench.put(elsewhere)
    bench.start()
    bench.wait_rows("select id from series where state = 'complete'", 2)
    assert bench.rows("select s.revision, i.arrival, i.current from series s join instance i on i.series_id = s.id "
                      "where s.series_uid = '2.25.4711'") == [{"revision": 0, "arrival": "conflict", "current": 0}]
    assert len(bench.wait_rows(ENDED)) == 1


def test_what_names_no_study_is_scored_and_not_planned_again(bench: Bench, pacs: ScriptedPacs) -> None:
    from node.receive.admission import STAND_IN

    bench.put(image(CT, study=f"{STAND_IN}0123456789abcdef"))
    bench.start()
    bench.wait_rows(ENDED)
    bench.stop()
    bench.start()  # the first thing a worker does is a round of repair
    bench.wait_rows("select seq from audit where event = 'application-start'", 2)
    time.sleep(2)
    assert [r["attempt"] for r in bench.rows(ENDED)] == [1] and pacs.held == {} and "planned again" not in bench.tail()


def test_own_results_end_without_the_engine(bench: Bench, pacs: ScriptedPacs) -> None:
    bench.put_series(1, own=True)
    bench.start()
    row = bench.wait_rows(ENDED)[0]
    assert (row["outcome"], row["reason"]) == ("skipped", "own-result")
    time.sleep(1)
    assert bench.assessments() == [] and pacs.held == {} and bench.rows("select id from delivery") == []


def test_rescore_is_a_revision_and_the_same_content_no_second_object(bench: Bench, pacs: ScriptedPacs) -> None:
    bench.put_series()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.write("update series set operator_word = 'rescore'")
    bench.wait_rows("select id from revision where number = 2 and report_seconds is not null")
    time.sleep(1)
    assert len(bench.assessments()) == 2 and list(pacs.times.values()) == [1, 1]


def test_engine_that_fails_ends_as_internal_error_and_tells_no_names(bench: Bench) -> None:
    bench.put_series()
    bench.start(ASSESS_FAILS="error")
    row = bench.wait_rows(ENDED)[0]
    assert (row["outcome"], row["reason"]) == ("failed", "internal-error")
    assert bench.stop() == 0
    everything = bench.log.read_bytes() + bench.config.data_folder.joinpath("node.db").read_bytes()
    assert b"SIMULATED^NAME" not in everything


def test_shadow_plans_and_sends_nothing(tmp_path: Path, pacs: ScriptedPacs) -> None:
    bench = Bench(tmp_path / "node", pacs.port, mode="shadow")
    bench.put_series()
    bench.start()
    try:
        bench.wait_rows("select id from delivery", 2)
        time.sleep(1.5)
        assert {r["state"] for r in bench.rows("select state from delivery")} == {"pending"} and pacs.held == {}
    finally:
        bench.kill()


def test_second_worker_is_refused_in_one_line(bench: Bench) -> None:
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    second = Bench(bench.folder, 1)
    second.log = bench.folder / "second.log"
    assert second.start().wait(20) == 1
    said = [line for line in second.log.read_text().splitlines() if line.startswith("mediqa:")]
    assert len(said) == 1 and "already running" in said[0]


def test_a_database_that_cannot_be_used_is_one_line(bench: Bench) -> None:
    bench.engine.dispose()
    bench.config.database_target.write_bytes(b"no database " * 1000)
    assert bench.start().wait(20) == 1
    [line] = bench.log.read_text().splitlines()
    assert "check the key database" in json.loads(line)["message"]


def test_lost_engine_rows_are_planned_anew(bench: Bench, pacs: ScriptedPacs) -> None:
    bench.put_series()
    bench.start(ASSESS_SECONDS="30")
    bench.wait_rows("select seq from audit where event = 'application-start'")
    bench.wait_rows("select workflow_uuid from workflow_status where status = 'PENDING'")
    bench.kill()
    bench.write("delete from operation_outputs")
    bench.write("delete from workflow_status")
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    assert [r["outcome"] for r in bench.rows(ENDED)] == ["assessed"] and list(pacs.times.values()) == [1, 1]


def test_lost_delivery_rows_are_tried_anew(bench: Bench, pacs: ScriptedPacs) -> None:
    pacs.stop()
    bench.put_series()
    bench.start()
    bench.wait_rows("select id from delivery where tries >= 1")
    bench.kill()
    bench.write("delete from workflow_status")
    bench.write("update delivery set state = 'sending'")
    pacs.start()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    assert list(pacs.times.values()) == [1, 1]


def test_destination_down_for_three_tries_ends_with_one_copy(bench: Bench, pacs: ScriptedPacs) -> None:
    pacs.stop()
    bench.put_series()
    bench.start()
    bench.wait_rows("select name from destination where failures >= 3")
    assert {r["state"] for r in bench.rows("select state from delivery")} <= {"held", "sending"}
    pacs.start()
    bench.wait_rows(DELIVERED, 2)
    assert list(pacs.times.values()) == [1, 1]


def test_a_backlog_goes_on_one_association(bench: Bench, pacs: ScriptedPacs) -> None:
    pacs.stop()
    for _ in range(4):
        bench.put_series(2)
    bench.start()
    bench.wait_rows("select id from revision where report_seconds is not null", 4)
    bench.wait_rows("select name from destination where failures >= 1")
    pacs.start()
    bench.wait_rows(DELIVERED, 8)
    assert sorted(pacs.times.values()) == [1] * 8 and len(pacs.proposed) <= 2  # of the second one only where the machine was slow


@pytest.mark.slow
def test_poison_series_is_set_aside_and_the_next_one_done(bench: Bench) -> None:
    """An assessment that kills its process, started again and again as the supervisor does."""
    bench.put_series()

    def ended() -> bool:
        if bench.process is None or bench.process.poll() is not None:
            bench.start(ASSESS_FAILS="die")
        return bool(bench.rows(ENDED))

    wait_for(ended, 240, "set aside", every=0.2)
    row = bench.rows(ENDED)[0]
    assert (row["outcome"], row["reason"], row["attempt"]) == ("failed", "set-aside", 3)
    assert ["set-aside" in r["details"] for r in bench.rows("select details from audit where event = 'ended'")] == [True]
    assert bench.stop() == 0
    bench.put_series()
    bench.start()
    assert bench.wait_rows(ENDED, 2)[1]["outcome"] == "assessed"


def test_a_clock_that_stepped_while_no_worker_ran_moves_due_times(bench: Bench, pacs: ScriptedPacs) -> None:
    """Killed, then the clock went back nine hours: what was due in a second must not wait for nine hours."""
    pacs.stop()
    bench.put_series()
    bench.start()
    bench.wait_rows("select * from destination where failures > 0")
    bench.kill()
    [kept] = bench.rows("select value from node_fact where name like 'clock-offset %'")
    boot_id, offset = kept["value"].split(" ")
    bench.write("update node_fact set value = :v where name like 'clock-offset %'", v=f"{boot_id} {float(offset) + 9 * 3600:.3f}")
    ledger_times = (("delivery", "next_try_at"), ("delivery", "made_at"), ("destination", "held_until"))
    for table, column in ledger_times:  # as the worker wrote them by the clock of then
        bench.write(f"update {table} set {column} = strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '+9 hours')")
    pacs.start()
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    [step] = bench.rows("select details from audit where event = 'clock-step'")
    assert json.loads(step["details"])["seconds"] == pytest.approx(-9 * 3600, abs=5)
    assert all(r["made_at"] <= r["ended_at"] for r in bench.rows(DELIVERED))


def test_a_step_that_a_locked_database_did_not_take_is_told_again(bench: Bench) -> None:
    from node.build import open_workplace
    from node.retention import Retention
    from node.timers import ClockWatch, KeptClock
    from node.worker import Worker

    wall, rearmed = [5_000.0], []
    worker = Worker.__new__(Worker)  # the parts that look at the clock, without the engine
    worker.place, worker.kept_clock = open_workplace(bench.config), KeptClock("mediqa", "boot")
    worker.clock, worker.retention = ClockWatch(lambda: wall[0], lambda: 1_000.0), Retention(worker.place)
    sa.event.listen(worker.place.engine, "checkout", lambda raw, *_: raw.execute("pragma busy_timeout = 0"))
    foreign = sqlite3.connect(bench.config.database_target, isolation_level=None)
    foreign.execute("begin exclusive")
    wall[0] += 3_600
    for _ in range(2):
        with pytest.raises(sa.exc.OperationalError):
            worker._watch_clock(SimpleNamespace(rearm=lambda: rearmed.append(1)))
    foreign.execute("rollback")
    for _ in range(2):
        worker._watch_clock(SimpleNamespace(rearm=lambda: rearmed.append(1)))
    assert [json.loads(r["details"])["seconds"] for r in bench.rows("select details from audit where event = 'clock-step'")] == [3_600]
    assert rearmed == [1]
    with worker.place.reader.connect() as conn:
        assert worker.kept_clock.read(conn) == 7_600.0 and KeptClock("mediqa", "another boot").read(conn) is None


def test_due_times_beyond_every_wait_are_due_now(bench: Bench, pacs: ScriptedPacs) -> None:
    """The clock was wrong before a boot: no offset tells how far, but no rule sets such times."""
    pacs.stop()
    bench.put_series()
    bench.start()
    bench.wait_rows("select * from destination where failures > 0")
    bench.kill()
    bench.write("delete from node_fact where name like 'clock-offset %'")
    bench.write("update delivery set next_try_at = '2199-01-01T00:00:00.000000Z'")
    bench.write("update destination set held_until = '2199-01-01T00:00:00.000000Z'")
    pacs.start()
    bench.start()
    bench.wait_rows(DELIVERED, 2)


def test_what_a_killed_worker_left_half_written_is_swept(bench: Bench, pacs: ScriptedPacs) -> None:
    data = bench.config.data_folder
    left = [data / "results" / "parts" / "1-0-aa.part", data / "pictures" / "9.npz.part"]
    for part in left:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(b"half")
    bench.start()
    wait_for(lambda: not any(part.exists() for part in left), 30, bench.tail())


def test_sigterm_drains(bench: Bench) -> None:
    bench.put_series()
    bench.start(ASSESS_SECONDS="2")
    bench.wait_rows("select seq from audit where event = 'application-start'")
    bench.wait_rows("select workflow_uuid from workflow_status where status = 'PENDING'")
    bench.process.send_signal(signal.SIGTERM)
    assert bench.process.wait(40) == 0
    assert [r["outcome"] for r in bench.rows(ENDED)] == ["assessed"]


