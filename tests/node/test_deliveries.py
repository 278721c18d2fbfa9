"""Deliveries of a running worker: every kind of answer and of destination at once, shadow, routing, an operator's word."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from node.cli import app
from node.deliver.retry import later, moment
from storage.clock import utc_now
from tests.support.bench import Bench
from tests.support.scripted_pacs import LOSE_RESPONSE, STORE, ScriptedPacs
from tests.support.small_objects import SC

BASIC_TEXT, ENHANCED = STORE[1], STORE[2]
ENDS = ("delivered", "refused")


def mediqa(bench: Bench, *args: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*args, "--json", "-c", str(bench.config_file)])
    assert done.exit_code == code, (args, done.output)
    return json.loads(done.stdout) if done.stdout else None


def rows(bench: Bench, name: str) -> dict[str, dict[str, Any]]:
    """Rows of a destination by kind."""
    return {r["kind"]: r for r in bench.rows("select * from delivery where destination = :n", n=name)}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., tuple[Bench, dict[str, ScriptedPacs]]]]:
    """Makes a bench with a PACS of each given kind, all serving SENDER unless said otherwise."""
    with ExitStack() as stack:
        def make(kinds: dict[str, ScriptedPacs], serves: dict[str, str] | None = None, mode: str = "live") -> tuple[Bench, Any]:
            for pacs in kinds.values():
                stack.enter_context(pacs)
            bench = Bench(tmp_path / "node", [(name, p.port, (serves or {}).get(name, "SENDER")) for name, p in kinds.items()], mode,
                          last_retry=60)  # an SR waits so long for its SC, also where a try takes its time
            bench.audit()
            stack.callback(bench.kill)
            return bench, kinds
        yield make


def test_every_kind_of_destination_at_once(make: Callable[..., Any]) -> None:
    bench, pacs = make({
        "full": ScriptedPacs([0xA700]), "cannot": ScriptedPacs([0xC000] * 3, classes=(SC,)), "warns": ScriptedPacs([0xB000, 0xB007]),
        "lost": ScriptedPacs([LOSE_RESPONSE]), "mismatch": ScriptedPacs([0xA900]), "enhanced": ScriptedPacs(classes=(SC, ENHANCED)),
        "text": ScriptedPacs(classes=(SC, BASIC_TEXT)), "pictures": ScriptedPacs(classes=(SC,)), "nothing": ScriptedPacs(classes=())})
    bench.put_series()
    bench.start()
    quick = ("warns", "lost", "enhanced", "text", "pictures", "nothing")
    bench.wait_rows(f"select id from delivery where destination in {quick} and state in {ENDS}", 2 * len(quick), 60)
    states = {name: tuple(rows(bench, name)[kind]["state"] for kind in ("sc", "sr")) for name in quick}
    assert states == {"warns": ("delivered", "delivered"), "lost": ("delivered", "delivered"), "enhanced": ("delivered", "delivered"),
                      "text": ("delivered", "delivered"), "pictures": ("delivered", "refused"), "nothing": ("refused", "refused")}
    assert all(r["warning"] for r in rows(bench, "warns").values()) and not any(r["warning"] for r in rows(bench, "lost").values())
    assert sorted(pacs["lost"].times.values()) == [1, 2] and pacs["lost"].other_bytes == []
    classes = {r["destination"]: r["sop_class_uid"] for r in bench.rows(
        "select d.destination, o.sop_class_uid from delivery d join result_object o on o.id = d.object_id where d.kind = 'sr'")}
    assert (classes["enhanced"], classes["text"], classes["warns"]) == (ENHANCED, BASIC_TEXT, STORE[4])
    assert [len(pacs[name].held) for name in quick] == [2, 2, 2, 2, 1, 0]
    nothing = rows(bench, "nothing")["sc"]
    # answers against the item are what ends it; a try that a busy machine lost is none
    assert nothing["final_answers"] == 3 <= nothing["tries"] and nothing["last_answer"].startswith("no-context")

    # a full destination is held as a whole for five minutes and more
    assert {r["state"] for r in rows(bench, "full").values()} == {"held"} and pacs["full"].held == {}
    held = {h["name"]: h for h in mediqa(bench, "delivery", "list")["held_destinations"]}
    assert set(held) == {"full"} and held["full"]["last_answer"] == "0xA700"
    assert moment(held["full"]["held_until"]) - moment(utc_now()) > timedelta(seconds=290 - 60)

    # 'cannot understand' is asked again half an hour later, three times in all
    for tries in (1, 2, 3):
        bench.wait_rows("select id from delivery where destination = 'cannot' and kind = 'sc' and tries = :t and state != 'sending'", t=tries)
        row = rows(bench, "cannot")["sc"]
        assert row["last_status"] == 0xC000
        if tries < 3:
            assert row["state"] == "pending" and row["next_try_at"] > later(utc_now(), 1700)
            bench.write("update delivery set next_try_at = :now where id = :id", now=utc_now(), id=row["id"])
    assert row["state"] == "refused"

    # what is refused stays refused and visible until an operator speaks
    bench.kill()
    bench.start()
    time.sleep(3)
    refused = {(r["destination"], r["kind"]): r for r in mediqa(bench, "delivery", "list", "--state", "refused")["deliveries"]}
    assert {("mismatch", "sc"), ("cannot", "sc"), ("nothing", "sc"), ("nothing", "sr"), ("pictures", "sr")} <= set(refused)
    assert refused["mismatch", "sc"]["tries"] == 1 and refused["cannot", "sc"]["tries"] == 3
    for name in ("mismatch", "cannot", "full"):
        mediqa(bench, "delivery", "retry", "--destination", name)
    bench.wait_rows("select id from delivery where destination in ('mismatch', 'cannot', 'full') and kind = 'sc' and state = 'delivered'", 3)
    bench.wait_rows("select id from delivery where destination in ('mismatch', 'full') and kind = 'sr' and state = 'delivered'", 2)
    assert list(pacs["full"].times.values()) == [1, 1] and list(pacs["mismatch"].times.values()) == [1, 1]
    told = [r["event"] for r in bench.rows("select event from audit where event like 'deliver%'")]
    assert told.count("delivery-retry") >= 3 and "delivery-refused" in told and "delivery-failed" in told
    assert bench.audit().verify().ok


def test_each_caller_s_results_go_where_it_is_served(make: Callable[..., Any]) -> None:
    bench, pacs = make({"one": ScriptedPacs(), "two": ScriptedPacs()}, {"one": "SENDER", "two": "OTHER"})
    for caller in ("SENDER", "OTHER", "THIRD"):
        bench.put_series(calling_ae=caller)
    bench.start()
    bench.wait_rows("select id from revision where report_seconds is not null", 3)
    bench.wait_rows("select id from delivery where state = 'delivered'", 4)
    went = {(r["calling_ae"], r["destination"]) for r in bench.rows(
        "select s.calling_ae, d.destination from delivery d join revision r on r.id = d.revision_id join series s on s.id = r.series_id")}
    assert went == {("SENDER", "one"), ("OTHER", "two")}  # what came from THIRD is scored and sent nowhere
    assert len(pacs["one"].held) == len(pacs["two"].held) == 2 and not set(pacs["one"].held) & set(pacs["two"].held)
    checks = CliRunner().invoke(app, ["check", "--json", "-c", str(bench.config_file)])
    [said] = [c for c in json.loads(checks.stdout)["checks"] if c["check"] == "routing"]
    assert "no destination serves THIRD" in said["text"]


def test_shadow_keeps_back_and_live_sends_on_an_operator_s_word(make: Callable[..., Any]) -> None:
    bench, pacs = make({"pacs": ScriptedPacs()}, mode="shadow")
    bench.put_series()
    bench.start()
    bench.wait_rows("select id from revision where report_seconds is not null")
    kept = mediqa(bench, "check", "--go-live")["kept_back"]
    assert {(k["destination"], k["kind"], k["end"], k["verdict"]) for k in kept} == \
        {("pacs", "sr", "assessed", "Usable"), ("pacs", "sc", "assessed", "Usable")}
    mediqa(bench, "delivery", "retry", "--destination", "pacs", code=1)  # not in this mode
    bench.kill()
    bench.configure("live")
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'", 2)
    time.sleep(1.5)
    assert pacs["pacs"].held == {}  # a week's results do not flood a PACS by themselves
    assert len(bench.rows("select seq from audit where event = 'configuration-changed'")) == 1
    mediqa(bench, "delivery", "retry", "--destination", "pacs")
    bench.wait_rows("select id from delivery where state = 'delivered'", 2)
    assert list(pacs["pacs"].times.values()) == [1, 1]


def test_what_was_on_its_way_waits_while_the_mode_is_shadow(make: Callable[..., Any], tmp_path: Path) -> None:
    bench, pacs = make({"pacs": ScriptedPacs()})
    bench.put_series()
    (tmp_path / "marks").mkdir()
    bench.start(KILL_AT="first-byte", KILL_MARK=str(tmp_path / "marks"))
    bench.process.wait(30)
    assert [r["state"] for r in rows(bench, "pacs").values()].count("sending") == 1 and pacs["pacs"].held == {}
    bench.configure("shadow")
    bench.start()
    bench.wait_rows("select seq from audit where event = 'application-start'", 2)
    time.sleep(2)
    assert pacs["pacs"].held == {} and len(mediqa(bench, "check", "--go-live")["kept_back"]) == 2
    bench.kill()
    bench.configure("live")
    bench.start()
    bench.wait_rows("select id from delivery where state = 'delivered'", 2)
    assert list(pacs["pacs"].times.values()) == [1, 1]
