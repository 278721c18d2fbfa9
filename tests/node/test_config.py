"""config.yaml: the file and the defaults agree, every mistake is one line that says where and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.config import Config, ConfigError, load, parse_size
from qa_engine.policy import THRESHOLDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def write(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text))
    assert str(caught.value).splitlines() == caught.value.lines
    return [line.removeprefix(f"{folder}/") for line in caught.value.lines]


def keys(value: object, place: str = "") -> set[str]:
    if isinstance(value, dict):
        return {k for name, item in value.items() for k in keys(item, f"{place}.{name}")}
    return {place}


def test_the_file_holds_every_key_with_its_default() -> None:
    from ruamel.yaml import YAML

    assert load(ROOT / "config.yaml").model_dump() == Config().model_dump() == load(None).model_dump()
    in_file = YAML(typ="safe").load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    assert keys(in_file) == keys(Config().model_dump())


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    cfg = load(write(tmp_path / "etc", "node: {data: ../var}\nstorage: {reserve: 1.5 GiB, audit_key: key}\n"))
    assert cfg.data_folder == tmp_path / "etc" / "../var"
    assert cfg.database_target == tmp_path / "etc" / "../var" / "node.db"
    assert cfg.audit_key_path == tmp_path / "etc" / "key"
    assert cfg.audit_anchor_path == cfg.data_folder / "audit.anchor"
    assert cfg.reserve_bytes == 3 * 2**29
    assert cfg.file == tmp_path / "etc" / "config.yaml"
    assert load(write(tmp_path, "database: postgresql+psycopg://u:p@h/d")).database_target == "postgresql+psycopg://u:p@h/d"


def test_thresholds() -> None:
    assert {m: (Config().thresholds(m).reject_below, Config().thresholds(m).good_from) for m in ("CT", "MR")} == THRESHOLDS
    assert Config().thresholds("US") is None and Config().thresholds("model_config") is None


@pytest.mark.parametrize(("text", "line"), [
    ("receive:\n  port: 70000\n", "config.yaml:2:3: receive.port: is 70000, write a number from 1 to 65535 (0 = any free port)"),
    ("receive:\n  port: '104'\n", "config.yaml:2:3: receive.port: is '104', write a number from 1 to 65535 (0 = any free port)"),
    ("receive: {prot: 1}\n", "config.yaml:1:11: receive.prot: unknown key, did you mean port?"),
    ("reciever: {}\n", "config.yaml:1:1: reciever: unknown key, did you mean receive?"),
    ("completion: {quiet: .inf}\n", "config.yaml:1:14: completion.quiet: is inf, write auto, or seconds, a number from 0.1 to 86400"),
    ("completion: {quiet: fast}\n", "config.yaml:1:14: completion.quiet: is 'fast', write auto, or seconds, a number from 0.1 to 86400"),
    ("report: {on: [asessed]}\n",
     "config.yaml:1:15: report.on[0]: is 'asessed', write a list of assessed, abstained, skipped, undecodable, failed"),
    ("receive: {allow: [{ae_title: A}]}\n",
     "config.yaml:1:19: receive.allow[0].networks: is missing, write a list of networks such as [10.0.0.0/8]"),
    ("database: [secret]\n", "config.yaml:1:1: database: is wrong, write text"),
    ("destinations: [{name: a, ae_title: A, host: h, port: 1}, {name: a, ae_title: B, host: h, port: 1, serves: [ORTHANC]}]\n",
     "config.yaml:1:59: destinations[1].name: 'a' is there twice, write another name"),
    ("destinations: [{name: a, ae_title: A, host: h, port: 1, serves: [X]}]\n",
     "config.yaml:1:66: destinations[0].serves[0]: 'X' may not send here, add it to receive.allow or remove it"),
    ("engine: {thresholds: {CT: {good_from: 10, reject_below: 60}}}\n",
     "config.yaml:1:23: engine.thresholds.CT: reject_below is above good_from, write a smaller one"),
])
def test_each_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    assert line in mistakes(tmp_path, text)


def test_several_destinations_each_list_whom_they_serve(tmp_path: Path) -> None:
    text = ("destinations:\n  - {name: a, ae_title: A, host: h, port: 1}\n  - {name: b, ae_title: B, host: h, port: 1}\n")
    assert [line.split(": ", 1)[1].split(" is")[0] for line in mistakes(tmp_path, text)] == [
        "destinations[0].serves:", "destinations[1].serves:"]
    assert load(write(tmp_path, "destinations: []\n")).destinations == ()


@pytest.mark.parametrize("text", ["receive: [", "a: 1\na: 2\n", "- 1\n", "receive: &a {port: *b}\n", "\x00"])
def test_what_is_not_yaml(tmp_path: Path, text: str) -> None:
    assert len(mistakes(tmp_path, text)) == 1
    assert mistakes(tmp_path, text)[0].startswith("config.yaml")


def test_sections_without_keys_are_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, "receive:\n#  port: 1\n")).model_dump() == Config().model_dump()
    assert load(write(tmp_path, "")).model_dump() == Config().model_dump()


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDIQA_RECEIVE__PORT", "11113")
    monkeypatch.setenv("MEDIQA_RECEIVE__AE_TITLE", "007")
    monkeypatch.setenv("MEDIQA_REPORT__ON", "[assessed, abstained]")
    monkeypatch.setenv("MEDIQA_ENGINE__THRESHOLDS__CT__GOOD_FROM", "70.5")
    monkeypatch.setenv("MEDIQA_COMPLETION__QUIET", "auto")
    monkeypatch.setenv("MEDIQA_DATABASE", "x.db")
    monkeypatch.setenv("MEDIQA_DATA", "somewhere")
    cfg = load(write(tmp_path, "engine: {thresholds: {CT: {good_from: 61, reject_below: 30}}}\n"))
    assert (cfg.receive.port, cfg.receive.ae_title, cfg.report.on) == (11113, "007", ("assessed", "abstained"))
    assert (cfg.thresholds("CT").good_from, cfg.thresholds("CT").reject_below) == (70.5, 30)
    assert cfg.database_target == tmp_path / "x.db" and cfg.completion.quiet == "auto"
    monkeypatch.setenv("MEDIQA_RECEIVE__PORT", "many")
    with pytest.raises(ConfigError, match=r"^environment MEDIQA_RECEIVE__PORT: receive.port: is 'many', write a number"):
        load(None)
    monkeypatch.setenv("MEDIQA_RECEIVE__PROT", "1")
    with pytest.raises(ConfigError, match=r"^environment MEDIQA_RECEIVE__PROT: unknown key, did you mean port"):
        load(None)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    assert load(None).file is None


@pytest.mark.parametrize(("text", "size"), [("2 GiB", 2**31), ("0", 0), ("1.5 kB", 1500), ("7B", 7), ("64 MiB", 2**26)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
