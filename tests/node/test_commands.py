"""The command contract (DESIGN section 7): every command is documented, has help, --json and --quiet, and fails with one line."""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from node.cli import COMMANDS, _load, app
from storage import database
from tests.support.bench import Bench
from tests.support.node import ROOT
from tests.support.ports import free_port

UID = "1.2.3.4"


def verbs() -> dict[str, Any]:
    """Every command that can be run, by its words."""
    found = {}
    for name in COMMANDS:
        command = _load(name)
        for verb, inner in getattr(command, "commands", {"": command}).items():
            found[f"{name} {verb}".strip()] = inner
    return found


VERBS = verbs()
NO_JSON = {"serve", "audit export", "train simulate"}
"""serve logs JSON lines, audit export writes JSON lines, train simulate writes files."""
NO_QUIET = {"audit export", "train evaluate", "train region", "train envelope"}
"""Their output is all that they are for."""
STATE = ("series list", f"series show {UID}", f"series complete {UID}", f"series rescore {UID}", f"series retract {UID}", "delivery list", "delivery retry 1",
         "delivery drop 1", "results", "audit list", "audit verify", "audit export")
"""Commands that ask the database of a node."""


def mediqa(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(args))
    assert done.exception is None or isinstance(done.exception, SystemExit), (args, done.exception)
    return done.exit_code, done.stdout, done.stderr


def one_line(code: int, *args: str) -> str:
    """The only line on stderr of a command that ends with `code` and says nothing on stdout."""
    found, out, err = mediqa(*args)
    assert (found, out) == (code, ""), (args, found, out, err)
    assert err.endswith("\n") and err.count("\n") == 1, (args, err)
    return err


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose node was never started."""
    file = tmp_path / "config.yaml"
    file.write_text(f"node: {{data: data}}\nreceive: {{host: 127.0.0.1, port: {free_port()}}}\nstorage: {{reserve: 1 MiB}}\n"
                    "destinations: []\n", encoding="utf-8")
    return file


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Bench]:
    """A node's folder with one series."""
    bench = Bench(tmp_path / "node", free_port())
    bench.audit()
    bench.put_series(1)
    yield bench
    bench.engine.dispose()


@pytest.mark.parametrize("words", VERBS)
def test_is_documented_and_has_its_options(words: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = [row for row in readme.splitlines() if row.startswith("| `mediqa ")]
    assert any(re.search(rf"`(mediqa )?{re.escape(words)}\b", row) for row in table), f"mediqa {words} is not in the table of README.md"
    assert (VERBS[words].help or "").endswith(".") or words in COMMANDS
    options = {option for parameter in VERBS[words].params for option in parameter.opts}
    assert ("--json" in options) == (words not in NO_JSON)
    assert ("--quiet" in options) == (words not in NO_QUIET)
    code, out, err = mediqa(*words.split(), "--help")
    assert (code, err) == (0, "") and "--help" in out and words.split()[-1] in out


def test_the_table_names_no_command_that_is_not_there() -> None:
    rows = re.findall(r"^\| (`mediqa [^|]*?) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    for cell in rows:
        for named in re.findall(r"`(?:mediqa )?([a-z]+(?: [a-z]+)?)", cell):
            words = named.split()
            assert words[0] in COMMANDS and (len(words) == 1 or words[0] in VERBS or named in VERBS), named


@pytest.mark.parametrize("args", ["bogus", "series bogus", "series show", "series list --bogus", "series list --limit x", "send",
                                  "series list --state bogus", "delivery list --state bogus", "results --verdict good", "score",
                                  "results --since yesterday", "audit list --since 31.1.2026", "model import none.safetensors",
                                  "send . MEDIQA", "sample", "delivery retry", "delivery drop"])
def test_wrong_use_is_one_line_and_two(args: str) -> None:
    said = one_line(2, *args.split())
    assert said.startswith("mediqa: ")


@pytest.mark.parametrize("words", [w for w in VERBS if w.split()[0] in ("serve", "check", "score", "series", "delivery", "audit", "backup", "results")])
def test_wrong_configuration_is_one_line_and_two(words: str, tmp_path: Path) -> None:
    more = {"series show": [UID], "series complete": [UID], "series rescore": [UID], "series retract": [UID], "delivery retry": ["1"], "delivery drop": ["1"],
            "score": [str(tmp_path)], "backup restore": ["none.db"]}.get(words, [])
    file = tmp_path / "config.yaml"
    file.write_text("node: {data: data}\nrecieve: {port: 1}\n", encoding="utf-8")
    said = one_line(2, *words.split(), *more, "-c", str(file))
    assert re.search(r"config\.yaml:2:1: recieve: unknown key, did you mean receive\?", said)
    assert "is not UTF-8" in (file.write_bytes(b"\xff\xfe\x00") and one_line(2, *words.split(), *more, "-c", str(file)))
    assert "cannot be read" in one_line(2, *words.split(), *more, "-c", str(tmp_path))
    assert "cannot be read" in one_line(2, *words.split(), *more, "-c", str(tmp_path / "none.yaml"))


def test_an_ae_title_that_may_not_send_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("destinations:\n  - {name: pacs, ae_title: PACS, host: h, port: 104, serves: [STRANGER]}\n", encoding="utf-8")
    assert "config.yaml:2:" in (said := one_line(2, "check", "-c", str(file)))
    assert "destinations[0].serves[0]: 'STRANGER' may not send here, add it to receive.allow or remove it" in said
    file.write_text("receive: {ae_title: 'MUCH TOO LONG A TITLE'}\n", encoding="utf-8")
    assert "write an AE title" in one_line(2, "serve", "-c", str(file))


@pytest.mark.parametrize("args", STATE)
def test_without_a_database_it_is_one_line_and_one(args: str, config: Path) -> None:
    assert "mediqa serve" in one_line(1, *args.split(), "-c", str(config))


@pytest.mark.parametrize("args", STATE)
def test_a_file_that_is_no_database_is_one_line_and_one(args: str, config: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audit.key").write_text("00" * 32)
    (tmp_path / "data" / "node.db").write_bytes(b"this is no database " * 500)
    assert "file is not a database" in one_line(1, *args.split(), "-c", str(config))


@pytest.mark.parametrize("args", STATE[:-3])
def test_a_database_without_tables_is_one_line_and_one(args: str, config: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "audit.key").write_text("00" * 32)
    sqlite3.connect(tmp_path / "data" / "node.db").close()
    assert "no such table" in one_line(1, *args.split(), "-c", str(config))


@pytest.mark.parametrize("word", ["series complete {uid}", "series rescore {uid}"])
def test_a_locked_database_is_one_line_and_one(known: Bench, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 200)
    uid = known.rows("select series_uid from series")[0]["series_uid"]
    holder = sqlite3.connect(known.config.database_target, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        said = one_line(1, *word.format(uid=uid).split(), "-c", str(known.config_file))
        assert "the database is locked by another program, try again" in said
        assert mediqa("series", "list", "-c", str(known.config_file))[0] == 0  # who only looks waits for nobody
    finally:
        holder.close()
    assert mediqa(*word.format(uid=uid).split(), "-c", str(known.config_file))[0] == 0


@pytest.mark.parametrize("args", ["series list", "delivery list", "results", "audit list", "audit verify", "check",
                                  "check --go-live"])
def test_json_is_one_object_and_quiet_says_nothing(args: str, known: Bench) -> None:
    config = ["-c", str(known.config_file)]
    expected = 1 if args == "check" else 0  # nobody listens at the destination
    code, out, _ = mediqa(*args.split(), *config, "--json")
    assert code == expected and isinstance(json.loads(out), dict)
    code, out, err = mediqa(*args.split(), *config, "--quiet")
    assert (code, out) == (expected, "")
    assert err == "" if args != "check" else err.startswith("mediqa: destination pacs: nobody answers") and err.count("\n") == 1


def test_what_is_unknown_is_one_line(known: Bench) -> None:
    for verb in ("show", "complete", "rescore"):
        assert f"no series {UID} is known here" in one_line(1, "series", verb, UID, "-c", str(known.config_file))
    assert "nothing to do" in one_line(1, "delivery", "retry", "77", "-c", str(known.config_file))


@pytest.mark.model
def test_models(tmp_path: Path) -> None:
    code, out, _ = mediqa("model", "list", "--json")
    assert code == 0 and {p["profile"] for p in json.loads(out)["profiles"] if p["usable"]} >= {"mediqa-compact"}
    assert mediqa("model", "list", "--quiet") == mediqa("model", "show", "--quiet") == (0, "", "")
    shown, cells = mediqa("model", "show")[1], json.loads(mediqa("model", "show", "--json")[1])["cells"]
    assert "Cells of the envelope" in shown and all(cell in shown for cell in cells) and cells["CT/trunk/3D"] >= 5
    assert "none-such" in one_line(1, "model", "show", "none-such")
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    one_line(1, "model", "import", str(tmp_path / "other.safetensors"))


def test_a_port_in_use_and_a_data_folder_that_cannot_be_made_are_one_line(config: Path, tmp_path: Path) -> None:
    """In processes of their own: `serve` changes signals and umask."""
    def serve() -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "node", "serve", "-c", str(config)], cwd=ROOT, capture_output=True, text=True,
                              timeout=60)
        return done.returncode, done.stderr

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(f"node: {{data: data}}\nreceive: {{host: 127.0.0.1, port: {port}}}\n", encoding="utf-8")
        code, said = serve()
        assert code == 1 and said.count("\n") == 1 and f"cannot listen on 127.0.0.1:{port}" in said and "write another port" in said
    (tmp_path / "file").write_text("")
    config.write_text("node: {data: file/data}\n", encoding="utf-8")
    code, said = serve()
    assert code == 1 and said.count("\n") == 1 and "set node.data to a folder that the node may write" in said


def test_help_starts_quickly_and_loads_neither_torch_nor_the_database() -> None:
    """Under 0.5 s of computing, the best of three, however busy the machine is."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-X", "importtime", "-m", "node", "--help"], cwd=ROOT, capture_output=True, text=True,
                              env=dict(os.environ, OMP_NUM_THREADS="1"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
        assert not re.search(r"\| +(torch|sqlalchemy|pydicom|pynetdicom|numpy)$", done.stderr, re.MULTILINE)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5, spent
