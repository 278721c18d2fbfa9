"""Orthanc (Debian package) as the PACS: started in a scratch folder, forwards studies, keeps results."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port, listening, wait_for


class Orthanc:
    """Stores what it gets; `forward(study)` sends a study to the modality `mediqa`, as a PACS' routing rule does."""

    def __init__(self, folder: Path, ae_title: str = "ORTHANC") -> None:
        if shutil.which("Orthanc") is None:
            pytest.fail("Orthanc is absent: run scripts/peers")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.ae_title = folder, ae_title
        self.dicom_port, self.http_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, node_port: int) -> None:
        """Starts Orthanc with the node at `node_port` as its one modality."""
        (self.folder / "orthanc.json").write_text(json.dumps({
            "Name": "test", "StorageDirectory": str(self.folder / "db"), "IndexDirectory": str(self.folder / "db"),
            "DicomPort": self.dicom_port, "HttpPort": self.http_port, "DicomAet": self.ae_title,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomServerEnabled": True, "HttpServerEnabled": True,
            "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True, "SaveJobs": False, "Plugins": [],
            "DicomModalities": {"mediqa": ["MEDIQA", "127.0.0.1", node_port]}}), encoding="utf-8")
        log = (self.folder / "orthanc.log").open("ab")
        self._process = subprocess.Popen(["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        wait_for(lambda: listening(self.http_port) and listening(self.dicom_port), 60, "Orthanc does not listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def rest(self, path: str, body: Any = None, raw: bool = False) -> Any:
        """GET, or POST when there is a body (bytes as they are, else JSON)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = answer.read()
        return content if raw else json.loads(content or b"null")

    def upload(self, folder: Path) -> str:
        """Uploads the files of one study; Orthanc's identifier of the study."""
        study = ""
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            study = self.rest("/instances", file.read_bytes())["ParentStudy"]
        return study

    def forward(self, study: str) -> None:
        """C-STORE of the whole study to the node, as a forward rule would."""
        self.rest("/modalities/mediqa/store", {"Resources": [study], "Synchronous": True})

    def series(self, study: str) -> list[dict[str, Any]]:
        return [self.rest(f"/series/{s}") for s in self.rest(f"/studies/{study}")["Series"]]

    def file(self, instance: str) -> bytes:
        return self.rest(f"/instances/{instance}/file", raw=True)
