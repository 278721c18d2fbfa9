"""`mediqa delivery list|retry|drop`: results on their way. A retry is a due time of now in the row; the worker reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from node.cli.output import ConfigOption, JsonOption, QuietOption, fail, print_json, print_table
from node.cli.series import open_database, query

app = typer.Typer(add_completion=False, help="State of deliveries: list, retry, drop.", no_args_is_help=True)

IdArgument = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers of deliveries, see mediqa delivery list.")]
DestinationOption = Annotated[str | None, typer.Option("--destination", help="All of this destination.")]
SeriesOption = Annotated[str | None, typer.Option("--series", help="All of this Series Instance UID.")]
State = Literal["pending", "sending", "held", "delivered", "committed", "refused", "expired", "dropped"]
COLUMNS = ("delivery_id", "destination", "kind", "series_uid", "revision", "state", "tries", "warning", "last_status", "last_answer",
           "next_try_at", "made_at", "ended_at", "sop_class_uid", "sop_uid", "result_series_uid", "study_uid")


@app.command("list")
def list_deliveries(config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
                    destination: DestinationOption = None, series: SeriesOption = None,
                    state: Annotated[State | None, typer.Option(help="Only these.")] = None,
                    limit: Annotated[int, typer.Option(help="Newest deliveries shown; 0 = all.")] = 100) -> None:
    """Show deliveries, the newest last."""
    _, engine = open_database(config)
    rows = _select(engine, None, destination, series, state, limit)
    held = query(engine, "select name, held_until, failures, last_answer from destination where failures > 0 order by name")
    if as_json:
        print_json({"deliveries": rows, "held_destinations": held})
        return
    if quiet:
        return
    print_table("", ["id", "destination", "kind", "series", "revision", "state", "tries", "last answer", "next try"],
                [[r["delivery_id"], r["destination"], r["kind"].upper(), r["series_uid"], r["revision"],
                  r["state"] + (" with warning" if r["warning"] else ""), r["tries"], r["last_answer"], r["next_try_at"]] for r in rows],
                numeric=("id", "revision", "tries"))
    for r in held:
        print(f"{r['name']} does not answer ({r['last_answer']}), {r['failures']} tries, next at {r['held_until']}")


@app.command()
def retry(ids: IdArgument = None, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
          destination: DestinationOption = None, series: SeriesOption = None) -> None:
    """Try again now: what waits, what was refused, expired or dropped, and what deliver.mode: shadow kept back."""
    _change(ids, destination, series, config, as_json, quiet, "retry")


@app.command()
def drop(ids: IdArgument = None, config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
         destination: DestinationOption = None, series: SeriesOption = None) -> None:
    """Give up deliveries that have not arrived; the objects stay here and a retry brings them back."""
    _change(ids, destination, series, config, as_json, quiet, "drop")


def _select(engine: Any, ids: list[int] | None, destination: str | None, series: str | None, state: str | None = None,
            limit: int = 0) -> list[dict[str, Any]]:
    clauses, values = ["1 = 1"], {}
    for column, value in (("destination", destination), ("series_uid", series), ("state", state)):
        if value:
            clauses.append(f"{column} = :{column}")
            values[column] = value
    if ids is not None:
        clauses.append("delivery_id in (" + ", ".join(str(int(i)) for i in ids) + ")")
    return query(engine, f"select {', '.join(COLUMNS)} from deliveries where {' and '.join(clauses)} "
                         "order by delivery_id desc limit :limit", limit=limit or -1, **values)[::-1]


def _change(ids: list[int] | None, destination: str | None, series: str | None, config: Path | None, as_json: bool, quiet: bool,
            verb: str) -> None:
    from node.deliver import ledger
    from storage.audit_log import AuditKeyError, AuditLog
    from storage.clock import utc_now

    if not ids and not destination and not series:
        fail(f"say which: mediqa delivery {verb} ID..., --destination NAME or --series UID", 2)
    settings, engine = open_database(config)
    if verb == "retry" and settings.deliver.mode != "live":
        fail("deliver.mode is shadow, nothing is sent; write deliver.mode: live first")
    try:
        audit = AuditLog(engine, settings.audit_key_path, settings.audit_anchor_path, make_key=False)
    except AuditKeyError as error:
        fail(str(error))
    rows = _select(engine, ids or None, destination, series)
    changed = []
    with engine.begin() as conn:
        for row in rows:
            act = ledger.retry_now if verb == "retry" else ledger.drop
            if act(conn, row["delivery_id"], utc_now()):
                audit.append(conn, f"delivery-{verb}", "operator", study_uid=row["study_uid"], series_uid=row["series_uid"],
                             sop_uid=row["sop_uid"], delivery=row["delivery_id"], destination=row["destination"], kind=row["kind"])
                changed.append(row["delivery_id"])
    if as_json:
        print_json({verb: changed})
    elif changed and not quiet:
        print(f"{verb}: {len(changed)} deliveries" + (", the worker takes them up at once (it must be running)" if verb == "retry" else ""))
    if not changed:
        fail("nothing to do: no such delivery, or it has arrived or is being sent")
