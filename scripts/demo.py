"""The main job on one machine: a node, a small PACS, simulated patients (or --study FOLDER), a table of what came back.

Everything listens on 127.0.0.1 on free ports; everything is written below demo-run/, which is made anew.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, AllStoragePresentationContexts, evt
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "demo-run"
MEDIQA = [str(Path(sys.executable).with_name("mediqa"))]
SAMPLES = {"ct": {"dose-1": "CT, full dose", "dose-0.25": "CT, quarter dose"},
           "mr": {"dose-1": "MR, full signal", "dose-0.25": "MR, quarter signal"}}
PATIENCE = 240  # seconds without any new end or delivery

progress_console = Console(stderr=True)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def start_pacs(folder: Path) -> tuple[Any, int]:
    """A storage SCP that writes what it gets to `folder`, one file per SOP instance."""
    folder.mkdir(parents=True)

    def store(event: evt.Event) -> int:
        ds = pydicom.dcmread(io.BytesIO(event.encoded_dataset()), specific_tags=["Modality", "SOPInstanceUID"])
        uid = "".join(c for c in str(event.request.AffectedSOPInstanceUID) if c in "0123456789.")
        (folder / f"{ds.get('Modality', 'XX')}-{uid[-12:]}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    ae = AE("PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    port = free_port()
    return ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]), port


def write_config(pacs_port: int) -> tuple[Path, int]:
    """Defaults plus what a site has to say: our port, who may send, where results go."""
    port = free_port()
    config = RUN / "config.yaml"
    config.write_text(f"""# Written by `make demo`; every other key keeps the default of ../config.yaml.
node: {{data: data}}
receive:
  host: 127.0.0.1
  port: {port}
  allow:
    - {{ae_title: PACS, networks: [127.0.0.0/8]}}
storage: {{reserve: 256 MiB}}
destinations:
  - {{name: pacs, ae_title: PACS, host: 127.0.0.1, port: {pacs_port}}}
""", encoding="utf-8")
    return config, port


def wait_until_listening(port: int, node: subprocess.Popen[bytes]) -> None:
    """Until the node answers at its port."""
    deadline = time.monotonic() + 60
    while node.poll() is None and time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"demo: the node did not start; its log is {RUN / 'node.log'}")


def rows(sql: str) -> list[dict[str, Any]]:
    database = RUN / "data" / "node.db"
    if not database.exists():
        return []
    con = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)
    try:
        con.row_factory = sqlite3.Row
        return [dict(row) for row in con.execute(sql)]
    finally:
        con.close()


def make_samples(progress: Progress) -> list[tuple[Path, str]]:
    """Simulated patients: each anatomy clean and at a quarter of the dose or signal."""
    folders = []
    for kind, names in SAMPLES.items():
        task = progress.add_task(f"simulating a patient ({kind.upper()})", total=1)
        folder = RUN / "sent" / kind
        subprocess.run([*MEDIQA, "sample", kind, str(folder), "--dose", "1", "--dose", "0.25", "--quiet"], check=True)
        progress.update(task, completed=1)
        folders += [(folder / name, words) for name, words in names.items()]
    return folders


def series_uids(folder: Path) -> set[str]:
    uids = set()
    for file in folder.rglob("*"):
        if file.is_file():
            try:
                uids.add(str(pydicom.dcmread(file, specific_tags=["SeriesInstanceUID"], stop_before_pixels=True).SeriesInstanceUID))
            except (pydicom.errors.InvalidDicomError, AttributeError):
                continue
    return uids


def wait_for_results(uids: set[str], node: subprocess.Popen[bytes], progress: Progress) -> None:
    """Until each series has an end and each planned delivery is done; fails when nothing moves for PATIENCE seconds."""
    task = progress.add_task("waiting for results (the node waits until a series is complete)", total=len(uids))
    seen, since = -1, time.monotonic()
    while True:
        ended = {r["series_uid"] for r in rows("select s.series_uid from revision r join series s on s.id = r.series_id "
                                               "where r.outcome is not null")} & uids
        waiting = rows("select id from delivery where state not in ('delivered', 'committed')")
        unplanned = rows("select id from revision where outcome = 'assessed' and id not in (select revision_id from delivery)")
        progress.update(task, completed=len(ended))
        if len(ended) == len(uids) and not waiting and not unplanned:
            return
        now = len(ended) * 1000 - len(waiting)
        if now != seen:
            seen, since = now, time.monotonic()
        if node.poll() is not None or time.monotonic() - since > PATIENCE:
            raise SystemExit(f"demo: no results; the node's log is {RUN / 'node.log'}")
        time.sleep(0.25)


def show(names: dict[str, str], simulated: bool) -> None:
    """The table, and which command opens what."""
    table = Table(title="What the node answered")
    for column, right in (("series", False), ("quality", True), ("90 % interval", True), ("verdict", False), ("slices", True),
                          ("seconds", True), ("files written to the PACS", False)):
        table.add_column(column, justify="right" if right else "left")
    for row in rows("select s.series_uid, s.description, r.* from revision r join series s on s.id = r.series_id "
                    "where r.outcome is not null order by r.id"):
        sent = rows(f"select kind from delivery where state = 'delivered' and revision_id = {int(row['id'])}")
        kinds = [r["kind"].upper() for r in sent]
        scored = row["outcome"] == "assessed"
        assessment = json.loads(row["assessment"] or "{}")
        table.add_row(names.get(row["series_uid"], row["description"]),
                      f"{row['score']:.0f}" if scored else "-",
                      f"{row['low']:.0f} to {row['high']:.0f}" if scored else "-",
                      row["verdict"] if scored else f"{row['outcome']}/{row['reason']}",
                      f"{len(assessment.get('slices') or [])} of {row['instances']}",
                      f"{row['total_seconds']:.1f}" if row["total_seconds"] is not None else "-",
                      " + ".join(sorted(kinds)) or "none")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    here = os.path.relpath(RUN)
    print(f"""
{"Simulated patients, and a" if simulated else "A"} score trained on simulated degradations: not for diagnosis.
  the pictures        {here}/pictures/*.png          (the Secondary Captures as PNG)
  the objects         {here}/pacs/                   (dsrdump {here}/pacs/SR-*.dcm shows a report)
  the results table   .venv/bin/mediqa results -c {here}/config.yaml
  the audit log       .venv/bin/mediqa audit list -c {here}/config.yaml
  is it untouched?    .venv/bin/mediqa audit verify -c {here}/config.yaml
  the same in SQL     sqlite3 {here}/data/node.db 'select * from results'
  your own study      make demo STUDY=/path/to/folder""")


def save_pictures() -> None:
    """The pixels of each Secondary Capture that the PACS got, as PNG, so that a newcomer can just open them."""
    from PIL import Image

    folder = RUN / "pictures"
    folder.mkdir(exist_ok=True)
    for file in sorted((RUN / "pacs").glob("OT-*.dcm")):
        Image.fromarray(pydicom.dcmread(file).pixel_array).save(folder / f"{file.stem}.png")


def main() -> int:
    global RUN
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="a folder of your own DICOM files instead of simulated patients")
    parser.add_argument("--run", type=Path, default=RUN, help="folder for all that is written; made anew")
    options = parser.parse_args()
    study, RUN = options.study, options.run.absolute()
    if study is not None and not study.is_dir():
        raise SystemExit(f"demo: {study} is not a folder; write make demo STUDY=/path/to/folder")
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    server, pacs_port = start_pacs(RUN / "pacs")
    config, port = write_config(pacs_port)
    with (RUN / "node.log").open("wb") as log:
        node = subprocess.Popen([*MEDIQA, "serve", "-c", str(config)], stdout=log, stderr=log)
    try:
        columns = (SpinnerColumn(), TextColumn("{task.description}"),
                   TextColumn("{task.completed:.0f} of {task.total}"), TimeElapsedColumn())
        with Progress(*columns, console=progress_console) as progress:
            folders = [(study, "your study")] if study else make_samples(progress)
            wait_until_listening(port, node)
            names: dict[str, str] = {}
            for folder, name in folders:
                uids = series_uids(folder)
                names |= {} if study else dict.fromkeys(uids, name)
                sent = subprocess.run([*MEDIQA, "send", str(folder), f"MEDIQA@127.0.0.1:{port}", "--calling", "PACS", "--quiet"])
                if sent.returncode and not study:
                    raise SystemExit(f"demo: sending {name} failed; the node's log is {RUN / 'node.log'}")
            wanted = set().union(*(series_uids(folder) for folder, _ in folders))
            if not wanted:
                raise SystemExit(f"demo: {study} holds no DICOM file")
            wait_for_results(wanted, node, progress)
        save_pictures()
        show(names, simulated=study is None)
    finally:
        node.send_signal(signal.SIGTERM)
        try:
            node.wait(30)
        except subprocess.TimeoutExpired:
            node.kill()
        server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
