"""Validity of certificates as openssl states it, and bytes that are none."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest

from node.receive.certificate import CertificateError, validities
from tests.support.certificates import Authority, openssl


def made(folder: Path, days: int, *options: str) -> str:
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", days, *options, "-keyout", folder / "k", "-out", folder / "c")
    return (folder / "c").read_text()


@pytest.mark.parametrize("days", [1, 400, 20000])
def test_the_date_is_that_of_openssl(tmp_path: Path, days: int) -> None:
    text = made(tmp_path, days, "-subj", "/O=Clinic/CN=node of the clinic")
    said = openssl("x509", "-in", tmp_path / "c", "-noout", "-enddate").strip().removeprefix("notAfter=")
    [found] = validities("Bag Attributes\n" + text)
    assert found.until == ssl.cert_time_to_seconds(said) and found.subject == "node of the clinic"


def test_a_chain_is_read_whole(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a")
    authority.issue("node", tmp_path)
    both = validities((tmp_path / "node.pem").read_text() + authority.certificate.read_text())
    assert [v.subject for v in both] == ["node", "Test Authority"] and both[0].until < both[1].until
    assert validities(made(tmp_path, 2, "-subj", "/O=Clinic"))[0].subject == "a certificate without a name"


def test_what_is_no_certificate_is_one_error(tmp_path: Path) -> None:
    dice, good = random.Random(5), ssl.PEM_cert_to_DER_cert(made(tmp_path, 2, "-subj", "/CN=x"))
    for _ in range(3000):
        data = bytearray(good[:dice.randrange(1, len(good) + 1)])
        for _ in range(dice.randrange(4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            validities(ssl.DER_cert_to_PEM_cert(bytes(data)))
        except CertificateError:
            pass
    for text in ("", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----"):
        with pytest.raises(CertificateError):
            validities(text)
