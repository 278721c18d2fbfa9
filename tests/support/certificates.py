"""Certificates for tests, made by openssl as an administrator would make them; no key is ever in the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def openssl(*arguments: object) -> str:
    """What `openssl` says; a test without it is skipped."""
    try:
        return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=60).stdout
    except FileNotFoundError:
        pytest.skip("openssl is absent")


class Authority:
    """A certificate authority in `folder`: `certificate` is its file."""

    def __init__(self, folder: Path, name: str = "Test Authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key, self.certificate = folder / "ca.key", folder / "ca.pem"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30, "-subj", f"/CN={name}",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key,
                "-out", self.certificate)

    def issue(self, name: str, folder: Path, days: int = 2, bits: int = 2048, host: str = "") -> tuple[Path, Path]:
        """NAME.pem, which holds the key as well, and NAME.key in `folder`; `days` below 0 makes one that has expired.

        host: its subjectAltName, such as IP:127.0.0.1.
        """
        key, request, out = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.pem"
        openssl("req", "-newkey", f"rsa:{bits}", "-nodes", "-subj", f"/CN={name}", *(["-addext", f"subjectAltName={host}"] if host else []),
                "-keyout", key, "-out", request)
        signed = openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key, "-copy_extensions", "copy", "-days", days,
                         "-set_serial", 1)
        part = folder / f"{name}.new"
        part.write_text(signed + key.read_text(), encoding="ascii")
        part.replace(out)
        request.unlink()
        return out, key
