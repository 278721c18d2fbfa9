"""Until when an X.509 certificate holds, and whose it is: the two things of it that an administrator is told (pure; RFC 5280, 4.1).

The ssl module of Python verifies certificates but tells nothing of one's own; a library for this one date would double the receiver's memory.
"""

from __future__ import annotations

import calendar
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME, _TIME = 0xA0, 0x17, 0x18
_COMMON_NAME = b"\x55\x04\x03"
MAX_CERTIFICATES = 1000
MAX_NAME = 64


class CertificateError(ValueError):
    """Bytes that are no certificate."""


@dataclass(frozen=True)
class Validity:
    """until: seconds since 1970; subject: its common name, at most 64 printable characters."""

    until: float
    subject: str


def validities(pem: str) -> list[Validity]:
    """Of each certificate in the text of a PEM file, in order; CertificateError where there is none or one cannot be read."""
    blocks = _BLOCK.findall(pem)[:MAX_CERTIFICATES]
    if not blocks:
        raise CertificateError("no certificate")
    try:
        return [_validity(ssl.PEM_cert_to_DER_cert(block)) for block in blocks]
    except (ValueError, IndexError, StopIteration):
        raise CertificateError("a certificate cannot be read") from None


def _validity(der: bytes) -> Validity:
    """Certificate > TBSCertificate > version, serialNumber, signature, issuer, validity, subject."""
    [(_, certificate)] = list(_elements(der))
    fields = [(tag, body) for tag, body in _elements(next(_elements(certificate))[1]) if tag != _VERSION]
    _, (tag, until) = list(_elements(fields[3][1]))
    return Validity(_seconds(tag, until.decode("ascii")), _common_name(fields[4][1]))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each DER element (X.690, 8.1)."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at:at + size], "big"), at + size
        if at + length > len(data):
            raise CertificateError("an element is longer than what holds it")
        yield tag, data[at:at + length]
        at += length


def _seconds(tag: int, text: str) -> float:
    """UTCTime holds two digits of the year, from 1950 on; GeneralizedTime holds four (RFC 5280, 4.1.2.5)."""
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _TIME:
        raise CertificateError("no time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _common_name(name: bytes) -> str:
    """Of a Name: sequence of sets of pairs of object identifier and text."""
    for _, group in _elements(name):
        for _, pair in _elements(group):
            (_, kind), (_, value) = list(_elements(pair))
            if kind == _COMMON_NAME:
                return "".join(c for c in value.decode("utf-8", "replace") if c.isprintable())[:MAX_NAME]
    return "a certificate without a name"
