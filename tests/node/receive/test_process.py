"""The receiver as a process: ready file, one-line refusals to start, SIGTERM, kill -9 and what the next start makes of it."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from node.cli.send import Outcome, find_files
from node.cli.store_scu import send_files
from node.deliver.peer import Peer
from tests.support.ports import wait_for
from tests.support.receiver import association
from tests.support.small_objects import CT, image, write

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """
node: {data: data}
receive: {host: 127.0.0.1, port: PORT, allow: [{ae_title: SENDER, networks: [127.0.0.0/8]}]}
storage: {reserve: 1 MiB}
"""


class Process:
    """`python -m node.receive` in a scratch folder."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder, self.data = folder, folder / "data"
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.replace("PORT", str(port)), encoding="utf-8")
        self.running: subprocess.Popen[str] | None = None

    def start(self) -> int:
        """Starts and waits for the ready file; the port."""
        self.running = self.popen()
        ready = self.data / "receiver.ready"
        wait_for(lambda: ready.exists() or self.running.poll() is not None, 30, "ready", every=0.02)
        assert self.running.poll() is None, self.running.communicate()[1]
        return int(json.loads(ready.read_text())["port"])

    def popen(self) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-m", "node.receive", "-c", str(self.config)], cwd=ROOT, stderr=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)

    def end(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and log."""
        self.running.send_signal(how)
        _, log = self.running.communicate(timeout=30)
        return self.running.returncode, log

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        con = sqlite3.connect(self.data / "node.db", timeout=20)
        try:
            return con.execute(sql).fetchall()
        finally:
            con.close()


@pytest.fixture
def process(tmp_path: Path):
    made = Process(tmp_path)
    yield made
    if made.running is not None and made.running.poll() is None:
        made.running.kill()
        made.running.communicate()


def test_starts_stops_and_tells(process: Process, tmp_path: Path) -> None:
    port = process.start()
    for k in range(3):
        write(image(CT, number=k), tmp_path / "sent" / f"{k}.dcm")
    outcome = Outcome()
    send_files(find_files(tmp_path / "sent", outcome), Peer("MEDIQA", "127.0.0.1", port, "SENDER", 10), outcome, lambda: None)
    assert (outcome.sent, outcome.failed) == (3, [])
    code, log = process.end()
    assert code == 0 and not (process.data / "receiver.ready").exists()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["message"] for line in lines][-2:] == ["listening", "stopped"]
    events = [row[0] for row in process.rows("select event from audit order by seq")]
    assert events == ["application-start", "received", "received", "received", "application-stop"]
    assert (process.data / "audit.anchor").read_text().split()[0] == "5"
    modes = {p.stat().st_mode & 0o077 for p in [process.data, *process.data.rglob("*")]}
    assert modes == {0}


def test_it_is_small_and_knows_itself(process: Process) -> None:
    process.start()
    process.end()
    process.start()  # its tables are there: what makes them is not loaded
    assert psutil.Process(process.running.pid).memory_info().rss < 80e6
    code = ("from node.receive import lean; from pathlib import Path; from node.receive.__main__ import own_device_uid; "
            "from storage.database import open_engine; import sys; print(own_device_uid(open_engine(Path(sys.argv[1]))))")
    done = subprocess.run([sys.executable, "-c", code, str(process.data / "node.db")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2.25.")  # the loop guard needs it, and nothing that is left out for size


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = Process(tmp_path, taken.getsockname()[1])
        done = process.popen()
        _, log = done.communicate(timeout=30)
    assert done.returncode == 1
    last = json.loads(log.splitlines()[-1])["message"]
    assert "is in use" in last and "receive.port" in last and "Traceback" not in log


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    process = Process(tmp_path, 99999)
    done = process.popen()
    _, log = done.communicate(timeout=30)
    assert done.returncode == 2 and log.count("\n") == 1 and ":3:28: receive.port: is 99999" in log


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    process = Process(tmp_path)
    process.config.write_text(process.config.read_text().replace("receive: {", "receive: {tls: {certificate: absent.pem}, "), encoding="utf-8")
    _, log = (done := process.popen()).communicate(timeout=30)
    assert done.returncode == 2 and "receive.tls.certificate" in json.loads(log.splitlines()[-1])["message"] and "Traceback" not in log


def test_a_ready_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "receiver.new").mkdir(parents=True)
    done = Process(tmp_path).popen()
    _, log = done.communicate(timeout=30)
    assert done.returncode == 1 and "receiver.ready cannot be written" in json.loads(log.splitlines()[-1])["message"] and "Traceback" not in log


def test_a_data_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file", encoding="ascii")
    done = Process(tmp_path).popen()
    _, log = done.communicate(timeout=30)
    assert done.returncode == 1 and "node.data" in json.loads(log.splitlines()[-1])["message"] and "Traceback" not in log


def test_kill_nine_loses_nothing_that_was_acknowledged(process: Process) -> None:
    port = process.start()
    sets = [image(CT, series="1.2.3", study="1.2", number=k, rows=128) for k in range(4)]
    with association(port, [(CT, "1.2.840.10008.1.2.1")]) as assoc:
        for ds in sets[:3]:
            assert assoc.send_c_store(ds).Status == 0
        process.end(signal.SIGKILL)
    left = process.data / "objects" / "parts" / "1-1-aa.part"
    left.write_bytes(b"half")
    gone = process.rows("select path from instance order by id")[0][0]
    process.rows("select 1")
    con = sqlite3.connect(process.data / "node.db")  # as after a power cut: the newest row never reached the disk
    con.execute("delete from instance where id = 3")
    con.commit()
    con.close()
    (process.data / "objects" / gone).unlink()
    assert (process.data / "receiver.ready").exists()
    (process.data / "receiver.ready").unlink()
    port = process.start()
    assert not left.exists()
    assert process.rows("select how from association") == [("lost",)]
    told = dict(process.rows("select event, details from audit where event in ('received', 'adopted', 'files-lost')"))
    assert json.loads(told["received"])["how"] == "lost" and set(told) == {"received", "adopted", "files-lost"}
    adopted = process.rows("select sop_uid, calling_ae, own, instance_number, position_mm from instance order by id desc limit 1")
    assert adopted == [(str(sets[2].SOPInstanceUID), "SENDER", 0, 2, 2.0)]
    with association(port, [(CT, "1.2.840.10008.1.2.1")]) as assoc:
        assert [assoc.send_c_store(ds).Status for ds in sets] == [0] * 4
    assert len(list((process.data / "objects").rglob("*.dcm"))) == 4 == process.rows("select count(*) from instance")[0][0]
    assert process.end()[0] == 0
