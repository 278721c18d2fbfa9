"""`mediqa series list|show|complete|rescore|retract`: the state of series. A word of the operator is a row; the worker reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from node.cli.output import WRONG_USE, ConfigOption, JsonOption, QuietOption, fail, load_config, print_json, print_table, printable

app = typer.Typer(add_completion=False, help="State of series: list, show, complete, rescore, retract.", no_args_is_help=True)

UidArgument = Annotated[str, typer.Argument(metavar="UID", help="Series Instance UID.")]

LIST = """
select s.series_uid, s.study_uid, s.modality, s.description, s.calling_ae, s.state, s.revision, s.last_at, r.outcome as "end", r.reason,
       r.score, r.low, r.high, r.verdict, r.completed_by, r.missing,
       (select count(*) from instance i where i.series_id = s.id and i.current = 1) as instances,
       (select count(*) from instance i where i.series_id = s.id and i.arrival = 'conflict') as conflicts,
       (select count(*) from instance i where i.series_id = s.id and i.current = 1 and i.deleted_at is not null) as deleted
from series s left join revision r on r.series_id = s.id and r.number = s.revision
"""
REVISIONS = """
select r.number as revision, r.completed_at, r.completed_by, r.purpose, r.instances, r.missing, r.outcome as "end", r.reason, r.ended_at,
       r.region, r.score, r.low, r.high, r.verdict, r.model_profile, r.model_version, r.device, r.total_seconds, r.attempt
from revision r join series s on s.id = r.series_id where s.series_uid = :uid order by r.number
"""
DELETED = """
select count(*) as n from instance i join series s on s.id = i.series_id
where s.series_uid = :uid and i.current = 1 and i.deleted_at is not null
"""
DELIVERIES = """
select revision, kind, destination, state, tries, last_answer, next_try_at from deliveries where series_uid = :uid order by delivery_id
"""


def open_database(config: Path | None) -> tuple[Any, Any]:
    """Configuration and engine of the configured node; exit 1 when there is no database yet."""
    from storage.database import open_engine

    settings = load_config(config)
    target = settings.database_target
    if "://" not in str(target) and not Path(target).exists():
        fail(f"there is no database at {target} yet; start the node with mediqa serve, or name its configuration with --config")
    return settings, open_engine(target)


def query(engine: Any, text: str, **values: Any) -> list[dict[str, Any]]:
    """Rows of a query through a connection that never waits for a writer."""
    import sqlalchemy as sa

    from storage.database import readonly

    with readonly(engine).connect() as conn:
        return [dict(row._mapping) for row in conn.execute(sa.text(text), values)]


@app.command("list")
def list_series(config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
                state: Annotated[Literal["open", "complete", "parked"] | None, typer.Option(help="Only these.")] = None,
                limit: Annotated[int, typer.Option(help="Newest series shown; 0 = all.")] = 100) -> None:
    """Show series, the newest last."""
    _, engine = open_database(config)
    where = " where s.state = :state" if state else ""
    rows = query(engine, f"{LIST}{where} order by s.id desc limit :limit", limit=limit or -1, **({"state": state} if state else {}))[::-1]
    if as_json:
        print_json({"series": rows})
        return
    if quiet:
        return
    print_table("", ["series", "modality", "description", "from", "instances", "state", "revision", "end", "quality"],
                [[r["series_uid"], r["modality"], r["description"], r["calling_ae"], r["instances"], r["state"], r["revision"] or "",
                  _end(r), _quality(r)] for r in rows], numeric=("instances", "revision"))


@app.command()
def show(uid: UidArgument, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show one series: its revisions and where its results went."""
    _, engine = open_database(config)
    found = query(engine, f"{LIST} where s.series_uid = :uid order by s.id", uid=uid)
    if not found:
        fail(f"no series {uid} is known here")
    revisions, deliveries = query(engine, REVISIONS, uid=uid), query(engine, DELIVERIES, uid=uid)
    if as_json:
        print_json({"series": found, "revisions": revisions, "deliveries": deliveries})
        return
    if quiet:
        return
    for r in found:
        print_table(r["series_uid"], ["study", "modality", "description", "from", "instances", "deleted", "conflicts", "state"],
                    [[r["study_uid"], r["modality"], r["description"], r["calling_ae"], r["instances"], r["deleted"] or "", r["conflicts"],
                      r["state"]]])
    print_table("revisions", ["revision", "completed", "by", "instances", "missing", "end", "quality", "model"],
                [[r["revision"], r["completed_at"], r["completed_by"], r["instances"], r["missing"], _end(r), _quality(r),
                  " ".join(filter(None, (r["model_profile"], r["model_version"])))] for r in revisions], numeric=("instances", "missing"))
    print_table("results", ["revision", "kind", "destination", "state", "tries", "last answer", "next try"],
                [[d["revision"], d["kind"].upper(), d["destination"], d["state"], d["tries"], d["last_answer"], d["next_try_at"]]
                 for d in deliveries], numeric=("tries",))


@app.command()
def complete(uid: UidArgument, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Say that a series has arrived; also lets a parked series go on."""
    _speak(uid, "complete", config, as_json, quiet)


@app.command()
def rescore(uid: UidArgument, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Score a series anew as its next revision, with the model that is installed now."""
    _speak(uid, "rescore", config, as_json, quiet)


@app.command()
def retract(
    uid: UidArgument, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, in up to 200 characters: stands in report and picture, not in the audit log.")] = "",
) -> None:
    """Withdraw the result of a series: report and picture that say so replace it where it was sent; only a rescore gives a number again."""
    from node.retraction import LONGEST

    words = printable(" ".join(reason.split()))
    if len(words) > LONGEST:
        fail(f"--reason: {len(words)} characters, write at most {LONGEST}", WRONG_USE)
    _speak(uid, "retract", config, as_json, quiet, words)


def _refusal(conn: Any, uid: str, word: str) -> str:
    """Why the word cannot be given, "" when it can."""
    import sqlalchemy as sa

    if word == "retract":
        from node.retraction import refusal

        return refusal(conn, uid)
    waiting = conn.execute(sa.text("select operator_word from series where series_uid = :uid and operator_word = 'retract'"), {"uid": uid}).scalar()
    if waiting:
        return f"the word retract about {uid} waits for the worker, which must be running"
    gone = conn.execute(sa.text(DELETED), {"uid": uid}).scalar() if word == "rescore" else 0
    return f"{gone} instances of {uid} were deleted by retention; send the series again, then have it scored" if gone else ""


def _speak(uid: str, word: str, config: Path | None, as_json: bool, quiet: bool, text: str | None = None) -> None:
    from storage.audit_log import AuditKeyError, AuditLog
    from storage.index import operator_word

    settings, engine = open_database(config)
    try:
        audit = AuditLog(engine, settings.audit_key_path, settings.audit_anchor_path, make_key=False)
    except AuditKeyError as error:
        fail(str(error))
    with engine.begin() as conn:
        refused = _refusal(conn, uid, word)
        count = 0 if refused else operator_word(conn, uid, word, text)
        if count:
            audit.append(conn, f"operator-{word}", "operator", series_uid=uid, reason_given=None if text is None else bool(text))
    if refused:
        fail(refused)
    if not count:
        fail(f"no series {uid} is known here")
    if as_json:
        print_json({"series_uid": uid, "word": word, "series": count})
    elif not quiet:
        print(f"{uid}: {word} noted, the worker takes it up at once (it must be running)")


def _end(row: dict[str, Any]) -> str:
    return "" if not row["end"] else row["end"] + (f"/{row['reason']}" if row["reason"] else "")


def _quality(row: dict[str, Any]) -> str:
    return "" if row["score"] is None else f"{row['score']:.0f} ({row['low']:.0f}-{row['high']:.0f}) {row['verdict']}"
