"""`mediqa audit list|verify|export`: the log of everything that happened, and whether it is untouched."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import (
    ConfigOption,
    JsonOption,
    QuietOption,
    SinceOption,
    check_since,
    fail,
    load_config,
    print_json,
    print_table,
)

app = typer.Typer(add_completion=False, help="The audit log: list, verify, export.", no_args_is_help=True)

SeriesOption = Annotated[str | None, typer.Option("--series", help="Series Instance UID.")]
EventOption = Annotated[str | None, typer.Option("--event", help="received, completed, ended, reported, delivered, refused ...")]
COLUMNS = ("seq", "at", "event", "actor", "study_uid", "series_uid", "sop_uid", "details")


def open_log(config: Path | None) -> Any:
    """The audit log of the configured node; exit 1 when there is none yet."""
    import sqlalchemy as sa

    from storage.audit_log import AuditKeyError, AuditLog
    from storage.database import open_engine, readonly

    cfg = load_config(config)
    target = cfg.database_target
    place = target if isinstance(target, Path) else "the configured database"
    missing = f"there is no audit log at {place} yet; start the node with mediqa serve, or name its configuration with --config"
    if isinstance(target, Path) and not target.exists():
        fail(missing)
    try:
        engine = open_engine(target)
        with readonly(engine).connect() as conn:
            if not sa.inspect(conn).has_table("audit_record"):
                fail(missing)
        return AuditLog(engine, cfg.audit_key_path, cfg.audit_anchor_path, make_key=False)
    except AuditKeyError as error:
        fail(str(error))
    except sa.exc.DatabaseError as error:
        fail(f"{place} cannot be read ({error.orig}); restore a backup")


@app.command("list")
def list_records(config: ConfigOption = None, series: SeriesOption = None, event: EventOption = None, since: SinceOption = None,
                 limit: Annotated[int, typer.Option(help="Newest records shown; 0 = all.")] = 200, as_json: JsonOption = False,
                 quiet: QuietOption = False) -> None:
    """Show records, oldest first."""
    check_since(since)
    records = open_log(config).records(series, event, since, limit or None)
    if as_json:
        print_json({"records": records})
        return
    if quiet:
        return
    rows = [[r["seq"], r["at"], r["event"], r["actor"], r["series_uid"] or "", json.dumps(r["details"], ensure_ascii=True)] for r in records]
    print_table("", ["seq", "time (UTC)", "event", "actor", "series", "details"], rows, numeric=("seq",))


@app.command()
def verify(config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Walk the chain; exit 1 and name the first record that does not hold."""
    report = open_log(config).verify()
    if as_json:
        print_json({"ok": report.ok, "records": report.records, "first_bad_seq": report.first_bad_seq, "problem": report.problem,
                    "restored": [vars(r) for r in report.restored]})
    elif report.ok and not quiet:
        print(f"audit log: {report.records} records, the chain holds")
        for r in report.restored:
            print(f"record {r.seq} ({r.at}) put a backup in the place of the log: {r.missing} records that were written after that backup are not in it")
    elif not report.ok:
        print(f"audit log: {report.problem} ({report.records} records before it hold)")
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def export(config: ConfigOption = None, series: SeriesOption = None, event: EventOption = None, since: SinceOption = None,
           as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of one JSON record per line.")] = False) -> None:
    """Write all matching records to stdout, with their digests."""
    check_since(since)
    records = open_log(config).records(series, event, since)
    if not as_csv:
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
        return
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, "mac"])
    for r in records:
        writer.writerow([*(json.dumps(r[c]) if c == "details" else r[c] for c in COLUMNS), r["mac"]])
    sys.stdout.write(out.getvalue())
