"""Both receive paths pass one suite."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import receiver


@pytest.fixture(params=["fast", "stock"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The receive path of every receiver that the test makes."""
    monkeypatch.setattr(receiver, "PATH", request.param)
    return request.param


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and its self-signed certificate."""
    folder = tmp_path_factory.mktemp("tls")
    try:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout",
                        str(folder / "key.pem"), "-out", str(folder / "cert.pem")], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is absent")
    return folder
