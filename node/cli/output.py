"""What every command shares: results on stdout, progress and errors on stderr, exit codes 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

FAILED = 1
WRONG_USE = 2

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="Configuration file (default: config.yaml here, if there is one).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table, no words: only errors, and what --json prints.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="UTC time or date, e.g. 2026-01-31.")]


def fail(message: str, code: int = FAILED) -> NoReturn:
    """One line on stderr, then exit `code`."""
    print(f"mediqa: {message}", file=sys.stderr)
    raise typer.Exit(code)


def load_config(path: Path | None) -> Any:
    """`node.config.load`, its errors as lines on stderr and exit 2."""
    from node.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        print(str(error), file=sys.stderr)
        raise typer.Exit(WRONG_USE) from None


def check_since(text: str | None) -> None:
    """Exit 2 unless `text` is the beginning of a UTC time as it stands in the database (None: no limit)."""
    if text is not None and not re.fullmatch(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?Z?)?)?)?", text):
        fail(f"--since: {printable(text)} is no UTC time, write a date such as 2026-01-31 or a time such as 2026-01-31T08:30", WRONG_USE)


def print_json(value: Any) -> None:
    """`value` as JSON on stdout; text outside ASCII stays readable where stdout can hold it (a file name need not be text at all)."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    print(text)


def print_table(title: str, columns: list[str], rows: list[list[Any]], numeric: tuple[str, ...] = ()) -> None:
    """A table on stdout; plain text when it is not a terminal, so that it can be piped. Cells are never markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table(title=title or None, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    console.print(table)


def printable(text: str) -> str:
    """`text` with control characters escaped: what peers sent must not drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
