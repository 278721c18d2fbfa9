"""`mediqa results`: the results table, as text, CSV or JSON. The same rows are in the SQL view `results`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Literal

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


def command(config: ConfigOption = None,
            since: SinceOption = None,
            modality: Annotated[str | None, typer.Option(help="CT, MR ...")] = None,
            station: Annotated[str | None, typer.Option(help="Station Name.")] = None,
            verdict: Annotated[Literal["Good", "Usable", "Reject"] | None, typer.Option(help="Only these.")] = None,
            as_csv: Annotated[bool, typer.Option("--csv", help="CSV on stdout.")] = False, as_json: JsonOption = False,
            quiet: QuietOption = False) -> None:
    """Show what the node found, oldest first."""
    check_since(since)
    from storage.database import open_engine
    from storage.results import RESULT_COLUMNS, result_rows

    target = load_config(config).database_target
    if isinstance(target, Path) and not target.exists():
        fail(f"there is no database at {target} yet; start the node with mediqa serve, or name its configuration with --config")
    rows = result_rows(open_engine(target), since=since, modality=modality, station=station, verdict=verdict)
    if as_json:
        print_json({"results": rows})
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, RESULT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    elif not quiet:
        shown = [[r["ended_at"][:19].replace("T", " "), r["modality"], r["region"], r["station"], r["description"],
                  r["end"] if r["reason"] is None else f"{r['end']}/{r['reason']}",
                  "" if r["score"] is None else f"{r['score']:.1f}", "" if r["low"] is None else f"{r['low']:.0f} to {r['high']:.0f}",
                  f"{r['verdict']} (withdrawn)" if r["retracted_at"] else r["verdict"], r["series_uid"]] for r in rows]
        print_table("", ["ended (UTC)", "modality", "region", "station", "description", "end", "score", "90 % interval", "verdict",
                         "series"], shown, numeric=("score",))
