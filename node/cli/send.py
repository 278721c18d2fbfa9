"""`mediqa send`: C-STORE files to AET@HOST:PORT, each in its own transfer syntax, each judged by its own status."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import FAILED, WRONG_USE, JsonOption, QuietOption, fail, print_json, printable

TARGET = re.compile(r"(?P<ae>[ -?A-\[\]-~]{1,16})@(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]@:/]+):(?P<port>\d{1,5})")
CONTEXTS = 128
"""Presentation contexts that fit into one association (odd numbers of one byte, PS3.8 9.3.2.2)."""
DIRECTORY = "1.2.840.10008.1.3.10"
SHOWN = 10
RETRIES = 3
"""Associations in a row without a single response before the rest is given up."""


@dataclass(frozen=True)
class File:
    """A readable DICOM file: what the association must propose for it, and which instance its data set says that it is."""

    path: Path
    sop_class_uid: str
    transfer_syntax: str
    sop_uid: str = ""


@dataclass
class Outcome:
    """What became of the files; `failed` holds path and reason."""

    sent: int = 0
    warnings: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"sent": self.sent, "warnings": self.warnings, "skipped": self.skipped,
                "failed": [{"file": path, "reason": reason} for path, reason in self.failed]}


def command(
    path: Annotated[Path, typer.Argument(help="A file, or a folder with all that is below it.")],
    target: Annotated[str, typer.Argument(help="AET@HOST:PORT, e.g. MEDIQA@127.0.0.1:11112.")],
    calling: Annotated[str, typer.Option("--calling", help="Our AE title; the receiver must have it on its allow-list.")] = "MEDIQA",
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds without progress that end an association.")] = 60,
    trust: Annotated[Path | None, typer.Option(help="Send over TLS: PEM file of the receiver's certificate or of its authority.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file of our own certificate, for a receiver that asks for one.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key, where that stands apart.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    config: Annotated[Path | None, typer.Option("--config", "-c", hidden=True, help="Not needed.")] = None,
) -> None:
    """C-STORE a folder to AET@HOST:PORT."""
    ae_title, host, port = parse_target(target)
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", calling.strip()):
        fail("--calling: write an AE title of 1 to 16 characters without backslash", WRONG_USE)
    if not path.exists():
        fail(f"{path}: is not there, write a file or a folder", WRONG_USE)
    warnings.simplefilter("ignore")  # the DICOM library, where it is asked, quotes the values that it finds odd
    outcome = Outcome()
    files = find_files(path, outcome)
    if not files:
        fail(f"{path}: holds no DICOM file that can be sent")
    from node.cli.store_scu import send_files
    from node.deliver.peer import Peer

    peer = Peer(ae_title, host, port, calling.strip(), timeout, tls_files(trust, certificate, key))
    with progress(len(files), quiet or not sys.stderr.isatty()) as step:
        send_files(files, peer, outcome, step)
    if json:
        print_json(outcome.to_json())
    else:
        report(outcome, quiet)
    raise typer.Exit(FAILED if outcome.failed else 0)


def parse_target(text: str) -> tuple[str, str, int]:
    """AE title, host and port of AET@HOST:PORT; exit 2 for anything else."""
    found = TARGET.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        fail(f"{printable(text)}: write AET@HOST:PORT, e.g. MEDIQA@127.0.0.1:11112", WRONG_USE)
    return found["ae"].strip(), found["host"].strip("[]"), int(found["port"])


def tls_files(trust: Path | None, certificate: Path | None, key: Path | None) -> Any:
    """None for plain TCP; exit 2 where the files cannot be used."""
    from node.deliver.peer import TlsFiles
    from node.receive.tls import TlsError

    if trust is None:
        if certificate or key:
            fail("--certificate and --key need --trust, the PEM file of the receiver's certificate or of its authority", WRONG_USE)
        return None
    files = TlsFiles(trust, certificate, key, where="--")
    try:
        files.context()
    except TlsError as error:
        fail(str(error).replace("--.", "--"), WRONG_USE)
    return files


def find_files(path: Path, outcome: Outcome) -> list[File]:
    """DICOM files below `path` in the order of their names; what is none, or a DICOMDIR, is put into `outcome.skipped`."""
    found = []
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        entry = look_at(file)
        if entry is None or entry.sop_class_uid == DIRECTORY or not proposable(entry):
            outcome.skipped.append(str(file))
        else:
            found.append(entry)
    return found


def look_at(path: Path) -> File | None:
    """What a file is, by its data set; by its meta information where the data set cannot be read; None for no DICOM file."""
    from node.deliver.part10 import NotPart10, open_stored

    try:
        with open_stored(path) as stored:
            sop_class_uid, sop_uid = stored.named or _parsed(path) or (stored.sop_class_uid, stored.sop_uid)
            return File(path, sop_class_uid, stored.transfer_syntax, sop_uid)
    except (OSError, NotPart10):
        return None


def _parsed(path: Path) -> tuple[str, str] | None:
    """SOP Class UID and SOP Instance UID of a data set whose beginning is not plain, by the DICOM library."""
    from node.receive.header_scan import scan_file

    found = scan_file(path)
    header = None if found is None else found.header
    return (header.sop_class_uid, header.sop_uid) if header is not None and header.sop_uid and header.sop_class_uid else None


def proposable(file: File) -> bool:
    """Whether both UIDs can stand in a presentation context (PS3.5 9.1)."""
    return all(re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", uid) and len(uid) <= 64 for uid in (file.sop_class_uid, file.transfer_syntax))


def progress(total: int, quiet: bool) -> Any:
    """Context manager that yields a function to call once per file; a bar on stderr unless `quiet`."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        if quiet:
            yield lambda: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True)) as shown:
            task = shown.add_task("", total=total)
            yield lambda: shown.advance(task)

    return bar()


def report(outcome: Outcome, quiet: bool) -> None:
    """One line on stdout; one line on stderr for each reason of a failure."""
    reasons: dict[str, list[str]] = {}
    for path, reason in outcome.failed:
        reasons.setdefault(reason, []).append(path)
    for reason, paths in list(reasons.items())[:SHOWN]:
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        print(f"mediqa: {printable(paths[0])}{more}: {printable(reason)}", file=sys.stderr)
    if len(reasons) > SHOWN:
        print(f"mediqa: and {len(reasons) - SHOWN} more reasons", file=sys.stderr)
    if not quiet:
        counts = ((outcome.warnings, "with a warning"), (len(outcome.failed), "failed"),
                  (len(outcome.skipped), "skipped (no DICOM file to send)"))
        more = "".join(f", {count} {word}" for count, word in counts if count)
        print(f"{outcome.sent} sent{more}")
