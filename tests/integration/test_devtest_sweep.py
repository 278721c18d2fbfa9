"""Every file of the conformance corpus is sent once; each ends in a documented state (devtest_states.csv, reviewed by hand).

`MEDIQA_WRITE_STATES=1` writes the table anew; read the difference before committing it.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.sop_class import Verification

from qa_engine.outcome import Reason, end_of
from tests.support.data import data_folder
from tests.support.node import NodeUnderTest
from tests.support.ports import wait_for
from tests.support.receiver import association
from tests.support.sweep import raw_object, send_raw

TABLE = Path(__file__).with_name("devtest_states.csv")
COLUMNS = ["file", "answer", "arrival", "end", "reason"]
NEWEST_END = ("select i.arrival, r.outcome, r.reason from instance i left join revision r on r.series_id = i.series_id "
              "where i.id = ? order by r.number desc limit 1")
SUCCESS = "0000"


def documented() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sweep(node: NodeUnderTest, corpus: Path) -> list[dict[str, str]]:
    """Each file of `corpus` in an association of its own, in the order of names; what became of it once every series has its end."""
    sent: list[tuple[str, str, int | None, bool]] = []
    newest = 0
    for file in sorted(p for p in corpus.rglob("*") if p.is_file() and p.name != "manifest.csv"):
        what = raw_object(file)
        answer = send_raw(what, node.port)
        made = [row["id"] for row in node.rows("select id from instance where id > ? order by id", newest)]
        newest = made[-1] if made else newest
        known = [row["id"] for row in node.rows("select id from instance where sop_uid = ? order by id", what.sop_uid)]
        kept = made[-1] if made else known[-1] if answer == SUCCESS else None
        sent.append((str(file.relative_to(corpus)), answer, kept, not made))
    wait_for(lambda: not node.rows("select id from series where state = 'open'")
             and not node.rows("select id from revision where outcome is null"), 600, f"all series end\n{node.tail()}", every=1)
    table = []
    for name, answer, instance, again in sent:
        row = dict.fromkeys(COLUMNS, "") | {"file": name, "answer": answer}
        if instance is not None:
            [found] = node.rows(NEWEST_END, instance)
            row |= {"arrival": "duplicate" if again else found["arrival"], "end": found["outcome"] or "", "reason": found["reason"] or ""}
        table.append(row)
    return table


def echoes(port: int) -> bool:
    with association(port, [(Verification, ImplicitVRLittleEndian)]) as assoc:
        return bool(assoc.is_established and assoc.send_c_echo().Status == 0x0000)


@pytest.mark.data
@pytest.mark.model
@pytest.mark.timeout(1200)
def test_each_file_ends_in_its_documented_state(tmp_path: Path) -> None:
    corpus = data_folder() / "devtest"
    # waits longer than the sending: files of one series lie in several folders
    with NodeUnderTest(tmp_path / "node", [], quiet=25, contiguous=25, announced=25, extra="engine: {decode_seconds: 20}") as node:
        before = {process.pid for process in node.members()}
        table = sweep(node, corpus)
        assert len(table) >= 400
        assert echoes(node.port), "the node is alive afterwards"
        assert before <= {process.pid for process in node.members()}, "no process of the node was restarted"
        assert node.mediqa_json("audit", "verify")["ok"]
    log = node.log.read_text(errors="replace")
    assert "Traceback" not in log and '"ERROR"' not in log, log[-4000:]
    if os.environ.get("MEDIQA_WRITE_STATES"):
        with TABLE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    assert table == documented()


def test_the_table_speaks_the_words_of_the_manual() -> None:
    for row in documented():
        assert (row["answer"] == SUCCESS) == bool(row["arrival"]), row
        if row["end"]:
            assert end_of(Reason(row["reason"]) if row["reason"] else None) == row["end"], row
        else:  # a series of nothing but conflicts has no revision
            assert row["answer"] != SUCCESS or row["arrival"] == "conflict", row
