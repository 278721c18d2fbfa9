"""What must hold after the chaos, whatever was killed. Each function yields violations; the driver's own record is the measure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.objects import object_path
from tests.chaos.node import ChaosNode
from tests.chaos.pacs import CountingPacs
from tests.chaos.truth import ENDS, SET_ASIDE, Truth, digest
from tests.support.node import send
from tests.support.ports import wait_for
from tests.support.raw_peer import RawPeer

REVISIONS = """select s.series_uid, s.study_uid, s.state, r.id, r.number, r.outcome, r.reason, r.instances
               from series s left join revision r on r.series_id = s.id order by s.id, r.number"""
PLACES = 16
"""receive.max_per_address."""


@dataclass(frozen=True)
class Violation:
    """What does not hold, and when (seconds since the start) the thing that it happened to was acknowledged."""

    rule: str
    text: str
    moment: float = 0.0


def stored(node: ChaosNode, truth: Truth) -> Iterator[Violation]:
    """Every acknowledged instance is on disk with its exact bytes, and indexed."""
    where = {i.sop_uid: s for s in truth.series.values() for i in s.instances}
    indexed = {(r["sop_uid"], r["digest"]) for r in node.rows("select sop_uid, digest from instance")}
    for (sop_uid, wanted), at in truth.acknowledged.items():
        series = where[sop_uid]
        path = node.folder / "data" / "objects" / object_path(series.study_uid, series.series_uid, sop_uid)
        if not path.is_file():
            yield Violation("lost", f"instance {sop_uid} of a {series.kind} series has no file", at)
        elif digest(path.read_bytes()) != wanted:
            yield Violation("lost", f"instance {sop_uid} of a {series.kind} series has other bytes", at)
        if (sop_uid, wanted) not in indexed:
            yield Violation("lost", f"instance {sop_uid} of a {series.kind} series has no row", at)


def ended(node: ChaosNode, truth: Truth) -> Iterator[Violation]:
    """Every series has a revision with all of its instances, every revision exactly one end, told once to the audit log."""
    told = Counter((r["series_uid"], r["revision"]) for r in node.rows(
        "select series_uid, json_extract(details, '$.revision') as revision from audit where event = 'ended'"))
    by_series: dict[str, list[dict[str, Any]]] = {}
    for row in node.rows(REVISIONS):
        by_series.setdefault(row["series_uid"], []).append(row)
    first = {sop: at for (sop, _), at in truth.acknowledged.items()}
    for series in truth.complete():
        at = min(first[i.sop_uid] for i in series.instances if i.sop_uid in first)
        rows = by_series.get(series.series_uid, [])
        if not rows or rows[0]["id"] is None:
            yield Violation("without end", f"{series.kind} series {series.series_uid} has no revision", at)
            continue
        if rows[0]["state"] != "complete":
            yield Violation("without end", f"{series.kind} series {series.series_uid} is {rows[0]['state']}", at)
        if rows[-1]["instances"] != len(series.instances):
            yield Violation("without end", f"{series.kind} series {series.series_uid}: {rows[-1]['instances']} of {len(series.instances)} seen", at)
        for row in rows:
            name = f"revision {row['number']} of {series.kind} series {series.series_uid}"
            if row["outcome"] is None:
                yield Violation("without end", f"{name} has no end", at)
            elif told[series.series_uid, row["number"]] != 1:
                yield Violation("without end", f"{name} was told {told[series.series_uid, row['number']]} times to the audit log", at)
        if rows[-1]["outcome"] not in (*ENDS[series.kind], SET_ASIDE, None):
            yield Violation("wrong end", f"{series.kind} series {series.series_uid} ended as {rows[-1]['outcome']}/{rows[-1]['reason']}", at)


def delivered(node: ChaosNode, pacs: CountingPacs, name: str) -> Iterator[Violation]:
    """Every assessed revision has one SR and one SC at this destination, and there is nothing else, nor other bytes under one UID."""
    planned = node.rows("select r.id, s.study_uid, d.kind, d.state, o.sop_uid from revision r join series s on s.id = r.series_id "
                        "left join delivery d on d.revision_id = r.id and d.destination = ? left join result_object o on o.id = d.object_id "
                        "where r.outcome = 'assessed'", name)
    wanted: dict[tuple[str, str], int] = {}
    kinds: dict[int, list[str]] = {}
    for row in planned:
        kinds.setdefault(row["id"], []).append(str(row["kind"]))
        wanted[row["study_uid"], str(row["kind"])] = wanted.get((row["study_uid"], str(row["kind"])), 0) + 1
        if row["state"] != "delivered":
            yield Violation("results", f"{row['kind']} of revision {row['id']} is {row['state']} at {name}")
        elif row["sop_uid"] not in pacs.held:
            yield Violation("results", f"{row['kind']} of revision {row['id']} is not at {name}")
    for revision, found in kinds.items():
        if sorted(found) != ["sc", "sr"]:
            yield Violation("results", f"revision {revision} has {found} for {name}")
    # the PACS counts by study, of which each source series has its own, without asking the node
    there = Counter((h.study_uid, {"SR": "sr", "OT": "sc"}.get(h.modality, h.modality)) for h in pacs.held.values())
    for key in there.keys() | wanted.keys():
        if there[key] != wanted.get(key, 0):
            rule = "doubled" if there[key] > wanted.get(key, 0) else "results"
            yield Violation(rule, f"{there[key]} {key[1]} instead of {wanted.get(key, 0)} at {name} in study {key[0]}")
    for uid, contents in pacs.copies.items():
        if len(contents) != 1:
            yield Violation("doubled", f"{uid} came to {name} with {len(contents)} contents")


def tidy(node: ChaosNode) -> Iterator[Violation]:
    """The audit chain holds, nothing half-written is left, no association is open."""
    try:
        node.mediqa("audit", "verify")
    except AssertionError as error:
        yield Violation("audit", str(error))
    left = [p for p in (node.folder / "data").rglob("*") if p.suffix in (".part", ".new")]
    if left:
        yield Violation("left over", f"{len(left)} half-written files, such as {left[0].relative_to(node.folder)}")
    rows = node.rows("select id from association where closed_at is null")
    if rows:
        yield Violation("stuck", f"{len(rows)} associations are open though nobody sends")
    lost = node.rows("select details from audit where event in ('files-lost', 'files-not-adopted')")
    if lost:
        yield Violation("lost", f"the node itself reports {lost[-1]['details'][:200]}")


def accepts(node: ChaosNode, truth: Truth) -> Iterator[Violation]:
    """Every place for an association is free, and a new series goes all the way."""
    peers: list[RawPeer] = []
    try:
        for _ in range(PLACES):
            peer = RawPeer(node.port)
            peers.append(peer)
            if peer.associate()[:1] != b"\x02":
                yield Violation("stuck", f"only {len(peers) - 1} of {PLACES} associations are accepted")
                break
    except OSError as error:
        yield Violation("stuck", f"the node does not listen: {error}")
        return
    finally:
        for peer in peers:
            try:
                peer.release()
            except (TimeoutError, OSError):
                pass
            peer.sock.close()
    series = truth.make("mr")
    if send(series.folder, node.port) != len(series.instances):
        yield Violation("stuck", "a new series is not taken")
        return
    truth.acknowledge(series.instances)
    try:
        wait_for(lambda: node.ends().get(series.series_uid), 120, "ended", every=0.5)
        wait_for(lambda: unfinished(node) == 0, 60, "delivered", every=0.5)
    except AssertionError:
        yield Violation("stuck", f"a new series {series.series_uid} gets no end or no delivery")


def unfinished(node: ChaosNode) -> int:
    """How many series, revisions, reports and deliveries the node still has to do."""
    [row] = node.rows("""select
        (select count(*) from series where state = 'open') + (select count(*) from revision where outcome is null)
        + (select count(*) from revision r where outcome = 'assessed' and not exists (select 1 from delivery d where d.revision_id = r.id))
        + (select count(*) from delivery where state not in ('delivered', 'refused', 'expired', 'dropped')) as n""") or [{"n": 1}]
    return int(row["n"])


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
