"""The deploy folder: unit file, installer in a fresh folder, compose file that agrees with config.yaml."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def yaml(path: Path) -> dict:
    return YAML(typ="safe").load(path)


def test_compose_ports_and_ae_titles_equal_the_configuration() -> None:
    config, compose, orthanc = yaml(ROOT / "config.yaml"), yaml(DEPLOY / "compose.yaml"), json.loads((DEPLOY / "orthanc.json").read_text())
    node_port, pacs = config["receive"]["port"], config["destinations"][0]
    assert compose["services"]["mediqa"]["ports"] == [f"{node_port}:{node_port}"]
    assert f"{pacs['port']}:{pacs['port']}" in compose["services"]["orthanc"]["ports"]
    assert orthanc["DicomPort"] == pacs["port"] and orthanc["DicomAet"] == pacs["ae_title"]
    assert orthanc["DicomModalities"]["mediqa"] == [config["receive"]["ae_title"], "mediqa", node_port]
    assert orthanc["DicomAet"] in [peer["ae_title"] for peer in config["receive"]["allow"]]
    assert f"EXPOSE {node_port}" in (DEPLOY / "Dockerfile").read_text()


def test_site_file_of_the_compose_is_a_valid_configuration() -> None:
    from node.config import load

    site = load(DEPLOY / "mediqa.yaml")
    assert [(d.ae_title, d.host, d.port) for d in site.destinations] == [("ORTHANC", "orthanc", 4242)]


def test_dockerfile_runs_the_installer() -> None:
    assert "RUN deploy/install.sh --plain" in (DEPLOY / "Dockerfile").read_text()


@pytest.mark.peer
def test_systemd_unit_is_clean(tmp_path: Path) -> None:
    """With the program path replaced by one that exists here, systemd-analyze has nothing to say about our unit."""
    assert shutil.which("systemd-analyze"), "systemd-analyze is absent: run scripts/peers"
    unit = tmp_path / "mediqa-node.service"
    text = (DEPLOY / "mediqa-node.service").read_text()
    unit.write_text(text.replace("/opt/mediqa-node/.venv/bin/mediqa", "/bin/true"), encoding="utf-8")
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert [line for line in said.stderr.splitlines() if "mediqa-node" in line] == []


@pytest.mark.slow
def test_installer_in_a_fresh_folder(tmp_path: Path) -> None:
    prefix = tmp_path / "opt"
    env = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    subprocess.run([str(DEPLOY / "install.sh"), "--plain", "--prefix", str(prefix)], check=True, env=env, cwd=tmp_path)
    mediqa = prefix / ".venv" / "bin" / "mediqa"
    assert "serve" in subprocess.run([str(mediqa), "--help"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    shown = subprocess.run([str(mediqa), "model", "list", "--json"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "mediqa-compact" in shown.stdout
    again = subprocess.run([str(DEPLOY / "install.sh"), "--plain", "--prefix", str(prefix)], env=env, cwd=tmp_path)
    assert again.returncode == 0


def test_installer_says_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run([str(DEPLOY / "install.sh"), "--frob"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "unknown argument --frob" in done.stderr
