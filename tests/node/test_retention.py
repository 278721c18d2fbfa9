"""Retention through a running worker and a real receiver: what goes, what stays, what comes again, and kill -9 in the middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from node.cli import app
from node.config import load
from node.receive.indexing import header_reader
from storage.reconcile import reconcile
from tests.support.bench import Bench
from tests.support.ports import wait_for
from tests.support.receiver import ReceiverUnderTest, association
from tests.support.scripted_pacs import ScriptedPacs
from tests.support.small_objects import CT, image
from tests.support.worker import RETENTION_POINTS

HERE, GONE = "select id from instance where deleted_at is null", "select id from instance where deleted_at is not null"
DELIVERED = "select id from delivery where state = 'delivered'"
YESTERDAY = "update series set last_at = '2026-01-01T00:00:00.000000Z'"


def keep(bench: Bench, text: str) -> None:
    bench.config_file.write_text(bench.config_file.read_text().replace("reserve: 1 MiB", f"reserve: 1 MiB, {text}"))
    bench.config = load(bench.config_file)


def send(bench: Bench, *sets: Dataset) -> None:
    with ReceiverUnderTest(bench.config) as site, association(site.port, [(CT, ExplicitVRLittleEndian)]) as assoc:
        assert [assoc.send_c_store(ds).Status for ds in sets] == [0x0000] * len(sets)


def slices(count: int, **more: Any) -> list[Dataset]:
    return [image(CT, study="1.2", series="1.2.3", sop=f"1.2.3.{n}", number=n, rows=16, **more) for n in range(1, count + 1)]


def stored(bench: Bench) -> list[Path]:
    return sorted(bench.config.data_folder.glob("objects/??/*/*/*.dcm"))


def deleted(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(r["details"]) for r in bench.rows("select details from audit where event = 'deleted'")]


def test_files_go_and_everything_else_stays(bench: Bench, pacs: ScriptedPacs) -> None:
    send(bench, *slices(3))
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.stop()
    before = bench.rows("select * from results")
    bench.write(YESTERDAY)
    keep(bench, "keep_free: 900 TiB")
    bench.start()
    bench.wait_rows(GONE, 3)
    wait_for(lambda: stored(bench) == [], 10, bench.tail())
    assert list(bench.config.data_folder.glob("objects/??/*")) == [] == list(bench.config.data_folder.glob("pictures/*"))
    assert bench.rows("select * from results") == before
    kept = [bench.config.data_folder / "results" / r["path"] for r in bench.rows("select path from result_object where kind = 'sr'")]
    assert len(kept) == 4 and all(path.is_file() for path in kept)
    assert bench.rows("select path from result_object where kind = 'sc' and deleted_at is not null")
    assert len(list(bench.config.data_folder.glob("results/??/*/*/*.dcm"))) == 4
    [event] = deleted(bench)
    assert (event["reason"], event["instances"], event["captures"]) == ("space", 3, 1) and event["bytes"] > 0
    done = CliRunner().invoke(app, ["series", "rescore", "1.2.3", "-c", str(bench.config_file)])
    assert done.exit_code == 1 and done.stderr.count("\n") == 1 and "retention" in done.stderr

    # the same instances again: kept anew, and nothing comes of it
    send(bench, *slices(2))
    assert len(bench.rows(HERE)) == 2 == len(stored(bench)) and bench.rows("select state from series") == [{"state": "complete"}]
    received = [json.loads(r["details"]) for r in bench.rows("select details from audit where event = 'received' order by seq")][-1]
    assert (received["instances"], received["duplicates"]) == (2, 0)

    # a late slice opens a revision, which says why it cannot be judged; nothing more reaches the PACS
    sent = dict(pacs.times)
    send(bench, image(CT, study="1.2", series="1.2.3", sop="1.2.3.9", number=9, rows=16))
    [late] = bench.wait_rows("select * from revision where number = 2 and outcome is not null")
    assert (late["outcome"], late["reason"]) == ("abstained", "incomplete-series") and '"files-deleted"' in late["assessment"]
    assert "1 of 4 instances were deleted by retention" in late["assessment"]
    # the third again: the series is whole, and an operator may have it scored
    send(bench, slices(3)[2])
    assert bench.rows(GONE) == [] and pacs.times == sent
    assert CliRunner().invoke(app, ["series", "rescore", "1.2.3", "-c", str(bench.config_file)]).exit_code == 0
    bench.wait_rows("select id from revision where number = 3 and outcome = 'assessed'")
    assert bench.audit().verify().ok


def test_a_corrected_series_after_deletion_is_judged_anew(bench: Bench) -> None:
    send(bench, *slices(3))
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.stop()
    bench.write(YESTERDAY)
    keep(bench, "keep_free: 900 TiB")
    bench.start()
    wait_for(lambda: bench.rows(GONE) and stored(bench) == [], 20, bench.tail())
    send(bench, *slices(3, PatientName="SIMULATED^CORRECTED"))
    [second] = bench.wait_rows("select * from revision where number = 2 and outcome is not null")
    assert (second["outcome"], second["purpose"], second["instances"]) == ("assessed", "score", 3)
    named = bench.rows("select details from audit where event = 'update'")
    assert len(named) == 3 and all(json.loads(r["details"])["compared"] is False for r in named)


def test_what_was_not_delivered_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "node", 1)  # nobody listens there
    try:
        send(bench, *slices(3))
        bench.write(YESTERDAY)
        keep(bench, "keep_free: 900 TiB")
        bench.start()
        bench.wait_rows("select id from delivery where state = 'held'")
        wait_for(lambda: "not-delivered" in bench.tail(), 20, bench.tail())
        assert len(stored(bench)) == 3 and bench.rows(GONE) == []
        CliRunner().invoke(app, ["delivery", "drop", "--destination", "pacs", "-c", str(bench.config_file)])
        wait_for(lambda: stored(bench) == [], 20, bench.tail())
        # what was dropped may be wanted again: its objects stay
        assert len(list(bench.config.data_folder.glob("results/??/*/*/*.dcm"))) == 5
    finally:
        bench.kill()


def test_by_age_and_never_by_default(bench: Bench) -> None:
    from node.build import open_workplace
    from node.retention import Retention

    send(bench, *slices(3))
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.stop()
    bench.write(YESTERDAY)
    idle = Retention(open_workplace(bench.config))
    assert not idle.wanted and idle.look(aging=True) == 0 and len(stored(bench)) == 3
    keep(bench, "keep_days: 30")
    at_work = Retention(open_workplace(bench.config))
    assert at_work.wanted and at_work.look(aging=False) == 0
    bench.write("update series set last_at = '2126-01-01T00:00:00.000000Z'")  # a clock that went back leaves it alone
    assert at_work.look(aging=True) == 0
    bench.write(YESTERDAY)
    assert at_work.look(aging=True) == 1 and stored(bench) == [] and deleted(bench)[0]["reason"] == "age"
    assert at_work.look(aging=True) == 0


@pytest.mark.parametrize("point, power_cut", [*((p, False) for p in RETENTION_POINTS), ("in-delete", True)])
def test_killed_in_the_middle(bench: Bench, tmp_path: Path, point: str, power_cut: bool) -> None:
    """Whatever was done: no file is called lost, nothing comes back as a revision, and in the end all of it is deleted."""
    send(bench, *slices(3))
    bench.start()
    bench.wait_rows(DELIVERED, 2)
    bench.stop()
    bench.write(YESTERDAY)
    keep(bench, "keep_free: 900 TiB")
    (tmp_path / "marks").mkdir()
    process = bench.start(KILL_AT=point, KILL_MARK=str(tmp_path / "marks"))
    assert process.wait(30) == -9
    assert len(stored(bench)) in ({"before-delete": (3,), "in-delete": (2, 3), "after-delete": (0, 3)}[point])
    assert len(bench.rows(GONE)) == 3
    if power_cut:  # whether a file that is there came again, nobody can know any more: it stays, and is looked at anew
        bench.write("update node_fact set value = 'another-boot 1' where name like 'retention %'")
        found = reconcile(bench.engine, bench.store, header_reader(bench.engine), bench.audit())
        assert found.lost == [] and found.adopted == [] and len(found.restored) == len(stored(bench)) == len(bench.rows(HERE)) > 0
    bench.start()
    wait_for(lambda: stored(bench) == [] and len(bench.rows(GONE)) == 3
             and len(list(bench.config.data_folder.glob("results/??/*/*/*.dcm"))) == 4, 20, bench.tail())
    assert reconcile(bench.engine, bench.store, header_reader(bench.engine), bench.audit()).lost == []
    assert len(bench.rows("select id from revision")) == 1 and bench.audit().verify().ok
    assert len(deleted(bench)) == 1 + power_cut
