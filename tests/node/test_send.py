"""`mediqa send` against a real receiver and a receiver that refuses: exit codes, JSON, each file judged by its own status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless
from typer.testing import CliRunner

from node.cli import app
from node.cli.send import File, proposable
from node.cli.store_scu import groups
from node.receive.file_meta import file_meta
from tests.support.ports import free_port
from tests.support.receiver import ReceiverUnderTest, configuration, encoded
from tests.support.small_objects import CT, SC, image, write


@pytest.fixture
def site(tmp_path: Path):
    with ReceiverUnderTest(configuration(tmp_path)) as receiver:
        yield receiver


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    for k in range(3):
        write(image(CT, number=k), out / "a" / f"{k}.dcm")
    write(image(SC), out / "sc.dcm")
    ds = image(CT)
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    write(ds, out / "j2k.dcm")
    (out / "notes.txt").write_text("no DICOM", encoding="ascii")
    return out


def mediqa(*args: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(a) for a in args])
    return done.exit_code, done.stdout, done.stderr


def test_sends_a_folder(site: ReceiverUnderTest, folder: Path) -> None:
    code, out, err = mediqa("send", folder, f"MEDIQA@127.0.0.1:{site.port}", "--calling", "SENDER")
    assert (code, out, err) == (0, "5 sent, 1 skipped (no DICOM file to send)\n", "")
    syntaxes = [r["transfer_syntax"] for r in site.rows("select transfer_syntax from instance")]
    assert sorted(syntaxes) == ["1.2.840.10008.1.2.1"] * 4 + [JPEG2000Lossless]
    sent = {p.read_bytes()[-500:] for p in folder.rglob("*.dcm")}
    assert {f[-500:] for f in site.stored().values()} == sent


def test_json_and_single_file(site: ReceiverUnderTest, folder: Path) -> None:
    code, out, _ = mediqa("send", folder / "sc.dcm", f"MEDIQA@127.0.0.1:{site.port}", "--calling", "SENDER", "--json")
    assert code == 0 and json.loads(out) == {"sent": 1, "warnings": 0, "skipped": [], "failed": []}


def test_each_file_is_judged_by_its_own_status(tmp_path: Path, folder: Path) -> None:
    write(image(CT, rows=800), folder / "a" / "1.dcm")
    with ReceiverUnderTest(configuration(tmp_path, receive={"max_object_mb": 1})) as site:
        code, out, err = mediqa("send", folder, f"MEDIQA@127.0.0.1:{site.port}", "--calling", "SENDER", "--json")
    assert code == 1 and err == ""
    told = json.loads(out)
    assert (told["sent"], [Path(f["file"]).name for f in told["failed"]]) == (4, ["1.dcm"])
    assert told["failed"][0]["reason"] == "0xA700 (data set is larger than the node accepts)"


def test_the_data_set_names_the_instance_where_the_meta_information_is_wrong(site: ReceiverUnderTest, tmp_path: Path) -> None:
    ds = image(CT)
    syntax = "1.2.840.10008.1.2.1"
    (tmp_path / "a.dcm").write_bytes(file_meta(CT, "1.2.3.4", syntax, "X") + encoded(ds, syntax))
    assert mediqa("send", tmp_path / "a.dcm", f"MEDIQA@127.0.0.1:{site.port}", "--calling", "SENDER")[0] == 0
    assert site.rows("select sop_uid from instance") == [{"sop_uid": str(ds.SOPInstanceUID)}]


def test_a_rejection_says_what_to_do(site: ReceiverUnderTest, folder: Path) -> None:
    code, out, err = mediqa("send", folder, f"MEDIQA@127.0.0.1:{site.port}", "--calling", "NOBODY")
    assert code == 1 and out.startswith("0 sent, 5 failed") and err.count("\n") == 1
    assert " and 4 more: " in err and "calling AE title not recognised" in err and "1/1/3" in err


def test_nobody_there(folder: Path) -> None:
    code, _, err = mediqa("send", folder, f"MEDIQA@127.0.0.1:{free_port()}", "--timeout", "2")
    assert code == 1 and "nobody answers" in err


@pytest.mark.parametrize("target", ["MEDIQA", "MEDIQA@host", "@host:104", "MEDIQA@host:99999", "A@B@host:104", "X" * 17 + "@h:1"])
def test_wrong_use(folder: Path, target: str) -> None:
    code, _, err = mediqa("send", folder, target)
    assert code == 2 and "write AET@HOST:PORT" in err


def test_wrong_paths(tmp_path: Path) -> None:
    assert mediqa("send", tmp_path / "none", "A@h:1")[0] == 2
    (tmp_path / "empty").mkdir()
    code, _, err = mediqa("send", tmp_path / "empty", "A@h:1")
    assert code == 1 and "no DICOM file" in err


@pytest.mark.parametrize("uid", ["1.2.840\x00.1", "1.2.", "", "1.2." + "3" * 64, "1.02"])
def test_what_no_context_can_name_is_skipped(uid: str) -> None:
    assert not proposable(File(Path("a"), uid, "1.2.3")) and not proposable(File(Path("a"), "1.2.3", uid))
    assert proposable(File(Path("a"), "1.2.3", "1.2.840.10008.1.2"))


def test_groups_fit_into_associations() -> None:
    files = [File(Path(str(k)), f"1.2.{k % 300}", "1.2") for k in range(600)]
    made = list(groups(files))
    assert [f for group in made for f in group] == files
    assert all(len({f.sop_class_uid for f in group}) <= 128 for group in made)
