"""When a running worker takes a series for complete: an operator's word, the longest wait, late instances, restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from node.cli import app
from node.quiet import ENOUGH, FLOOR, Seen, from_text, to_text
from storage.index import close_association, open_association
from storage.senders import keep_habit
from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.scripted_pacs import ScriptedPacs
from tests.support.small_objects import CT, image

ENDED = "select * from revision where outcome is not null order by id"
LONG = "quiet: 600, contiguous: 600, announced: 600"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Bench]]:
    """Makes a bench with these waits; killed at the end."""
    made: list[Bench] = []
    with ScriptedPacs() as pacs:
        def make(completion: str) -> Bench:
            made.append(Bench(tmp_path / f"node-{len(made)}", pacs.port, completion=completion))
            return made[-1]
        yield make
        for bench in made:
            bench.kill()


def another(first: Dataset, number: int) -> Dataset:
    return image(CT, study=first.StudyInstanceUID, series=first.SeriesInstanceUID, number=number)


def reasons(bench: Bench) -> list[tuple[str, int]]:
    return [(r["completed_by"], r["instances"]) for r in bench.rows("select * from revision order by id")]


def test_operator_completes_what_would_wait_and_the_reason_is_kept(make: Callable[[str], Bench]) -> None:
    bench = make(LONG)
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    sets = bench.put_series(3)
    time.sleep(1)
    assert reasons(bench) == []
    done = CliRunner().invoke(app, ["series", "complete", sets[0].SeriesInstanceUID, "-c", str(bench.config_file)])
    assert done.exit_code == 0, done.output
    bench.wait_rows(ENDED)
    assert reasons(bench) == [("operator", 3)]
    completed = bench.rows("select details from audit where event = 'completed'")
    assert '"reason":"operator"' in completed[0]["details"]
    bench.put(another(sets[0], 4))  # the word was for what was here: what comes later waits again
    time.sleep(1)
    assert reasons(bench) == [("operator", 3)]


def test_a_drip_without_end_is_forced_and_the_rest_waits_anew(make: Callable[[str], Bench]) -> None:
    bench = make("quiet: 4, contiguous: 4, announced: 4, forced: 6")
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    first = image(CT)
    began = time.monotonic()
    number = 1
    while not bench.rows("select id from revision") and time.monotonic() - began < 30:
        bench.put(another(first, number))
        number += 1
        time.sleep(0.3)
    assert time.monotonic() - began >= 6
    assert [by for by, _ in reasons(bench)] == ["forced"]
    # more of them: not one revision each, although the first instance came longer ago than `forced`
    for k in range(3):
        bench.put(another(first, number + k))
        time.sleep(0.4)
    bench.wait_rows("select id from revision", 2)
    assert reasons(bench)[1:] == [("quiet", number + 2)]


def test_a_restart_waits_the_full_time_again(make: Callable[[str], Bench]) -> None:
    bench = make("quiet: 2.5, contiguous: 2.5, announced: 2.5")
    bench.put_series(3)
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    time.sleep(1)
    bench.kill()
    assert reasons(bench) == []
    began = time.monotonic()
    bench.start()
    bench.wait_rows("select id from revision")
    assert time.monotonic() - began >= 2.5
    assert reasons(bench) == [("quiet", 3)]


def test_times_of_another_boot_mean_nothing(make: Callable[[str], Bench]) -> None:
    """After a reboot the monotonic clock begins anew: what came before is neither complete at once nor held for ever."""
    bench = make("quiet: 1.5, contiguous: 1.5, announced: 1.5")
    bench.put_series(3)
    bench.put_series(3)
    bench.write("update series set boot_id = 'before', first_mono = 1e9, last_mono = 1e9 where id = 1")
    bench.write("update series set boot_id = 'before', first_mono = 0.1, last_mono = 0.2 where id = 2")
    began = time.monotonic()
    bench.start()
    bench.wait_rows("select id from revision", 2)
    assert 1.5 <= time.monotonic() - began < 10
    assert reasons(bench) == [("quiet", 3)] * 2


def association(bench: Bench) -> int:
    """An open association of a receiver that runs."""
    with bench.engine.begin() as conn:
        return open_association(conn, "receiver-1", "SENDER", "MEDIQA", "127.0.0.1")


def waits(bench: Bench) -> list[tuple[float | None, int, int]]:
    return [(w["wait_seconds"], w["series_seen"], w["series_split"]) for w in bench.rows("select * from waits")]


def test_the_wait_of_a_known_sender_is_learned_and_kept(make: Callable[[str], Bench]) -> None:
    """19 quick series were seen; the 20th still waits as configured, the next 5 s, also after kill -9; then the sender pauses."""
    bench = make("quiet: auto, contiguous: 600, announced: 600")
    with bench.engine.begin() as conn:
        keep_habit(conn, "SENDER", "CT", wait=None, contiguous=None, longest=0.5, between=0.0, seen=ENOUGH - 1, split=0,
                   history=to_text(tuple(Seen(-k, 0.5) for k in range(1, ENOUGH))))
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    facts = {"modality": "CT"}
    sets = bench.put_series(2, association_id=association(bench), facts=facts)
    time.sleep(FLOOR + 1)
    assert reasons(bench) == []
    assert CliRunner().invoke(app, ["series", "complete", sets[0].SeriesInstanceUID, "-c", str(bench.config_file)]).exit_code == 0
    wait_for(lambda: waits(bench) == [(FLOOR, ENOUGH, 0)], 20, str(waits(bench)))
    bench.kill()
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'", 2)
    brought_by = association(bench)
    second, began = bench.put_series(2, association_id=brought_by, facts=facts), time.monotonic()
    bench.wait_rows("select id from revision", 2)
    assert FLOOR - 0.5 <= time.monotonic() - began < 30
    assert reasons(bench) == [("operator", 2), ("quiet", 2)]
    bench.put(another(second[0], 3), association_id=brought_by, facts=facts)
    pause = time.monotonic() - began
    bench.wait_rows("select id from revision", 3)
    wait_for(lambda: waits(bench)[0][1:] == (ENOUGH + 1, 1), 20, str(waits(bench)))
    [(longer, _, _)] = waits(bench)
    assert longer is not None and longer >= 2 * (pause - 1) >= 2 * (FLOOR - 1)
    told = [json.loads(r["details"]) for r in bench.rows("select details from audit where event = 'wait-learned' order by seq")]
    assert [(t["calling_ae"], t["modality"], t["before"], t["quiet"], t["contiguous"], t["series"]) for t in told] == [
        ("SENDER", "CT", [60, 600], FLOOR, 600, ENOUGH), ("SENDER", "CT", [FLOOR, 600], longer, 600, ENOUGH + 1)]
    completed = [json.loads(r["details"])["waited"] for r in bench.rows("select details from audit where event = 'completed' order by seq")]
    assert completed == [0, FLOOR, FLOOR]


def test_a_known_sender_is_done_soon_after_its_association_ends(make: Callable[[str], Bench]) -> None:
    """It pauses 40 s with its association open, never between two; fixed waits would take a minute."""
    bench = make("quiet: auto, contiguous: 600, announced: 600")
    with bench.engine.begin() as conn:
        keep_habit(conn, "SENDER", "CT", wait=54, contiguous=FLOOR, longest=40, between=0.0, seen=ENOUGH, split=0,
                   history=to_text(tuple(Seen(-k, 40, 0.0) for k in range(ENOUGH))))
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'")
    brought_by, facts = association(bench), {"modality": "CT"}
    bench.put_series(2, association_id=brought_by, facts=facts)
    time.sleep(FLOOR + 1)
    assert reasons(bench) == []
    with bench.engine.begin() as conn:
        close_association(conn, brought_by, "released", 2, 1)
    bench.wait_rows("select id from revision", seconds=10)
    assert reasons(bench) == [("contiguous", 2)]
    wait_for(lambda: waits(bench)[0][1] == ENOUGH + 1, 20, "learned")
    seen = from_text(bench.rows("select history from sender_habit")[0]["history"])[-1]
    assert seen.series_id == 1 and seen.between == 0.0


def known_sender(bench: Bench) -> None:
    """The learned wait is FLOOR, with or without the end of an association."""
    with bench.engine.begin() as conn:
        keep_habit(conn, "SENDER", "CT", wait=FLOOR, contiguous=FLOOR, longest=1, between=1, seen=ENOUGH, split=0,
                   history=to_text(tuple(Seen(-k, 1, 1) for k in range(ENOUGH))))


def test_the_engine_works_before_the_wait_is_over_and_never_on_other_files(make: Callable[[str], Bench]) -> None:
    bench = make("quiet: auto, contiguous: 600, announced: 600")
    known_sender(bench)
    bench.start(ASSESS_SECONDS="1")
    bench.wait_rows("select seq from audit where event = 'application-start'")
    facts = {"modality": "CT"}
    sets = bench.put_series(2, association_id=association(bench), facts=facts)
    wait_for(lambda: len(bench.assessments()) == 1, 20, "early work")
    assert reasons(bench) == [] and bench.rows("select id from result_object") == []
    bench.put(another(sets[0], 3), association_id=association(bench), facts=facts)  # what was made early is worth nothing now
    wait_for(lambda: len(bench.assessments()) == 2, 20, "early work again")
    assert reasons(bench) == []
    [revision] = bench.wait_rows(ENDED)
    assert (revision["completed_by"], revision["instances"], revision["outcome"]) == ("quiet", 3, "assessed")
    assert len(json.loads(revision["assessment"])["slices"]) == 3
    assert bench.assessments() == [sets[0].SeriesInstanceUID] * 2  # the step did not ask the engine again
    assert bench.rows("select name from node_fact where name like 'early-work%'") == []
    assert bench.stop() == 0


def test_a_series_that_kills_the_worker_in_early_work_is_completed_all_the_same(make: Callable[[str], Bench]) -> None:
    bench = make("quiet: auto, contiguous: 600, announced: 600")
    known_sender(bench)
    bench.put_series(2, association_id=association(bench), facts={"modality": "CT"})
    process = bench.start(ASSESS_FAILS="die")
    assert process.wait(30) != 0 and reasons(bench) == []
    process = bench.start(ASSESS_FAILS="die")
    assert process.wait(30) != 0 and reasons(bench) == [("quiet", 2)]  # it died in the step, which counts its tries


def test_a_damaged_habit_holds_up_no_series(make: Callable[[str], Bench]) -> None:
    bench = make("quiet: auto, contiguous: 1, announced: 1")
    with bench.engine.begin() as conn:
        keep_habit(conn, "SENDER", "CT", wait=-1e9, contiguous=None, longest=0, between=0.0, seen=1, split=0, history="no JSON")
    bench.put_series(2, association_id=association(bench), facts={"modality": "CT"})
    began = time.monotonic()
    bench.start()
    bench.wait_rows("select id from revision")
    assert time.monotonic() - began >= FLOOR
    wait_for(lambda: waits(bench) == [(None, 1, 0)], 20, str(waits(bench)))
