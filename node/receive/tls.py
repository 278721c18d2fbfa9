"""TLS of the listener, and its profile for destinations: the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profiles of PS3.15 (B.12,
and B.13 that restricts it).

TLS 1.2 or 1.3, forward secrecy by ECDHE and authenticated encryption alone, no compression, no renegotiation, nothing to fall back to. Files
are read again when they change: a certificate is renewed without a restart, and a new pair that cannot be used leaves the old one in force.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.config import Config
from node.receive.certificate import CertificateError, Validity, validities

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""Of TLS 1.2; those of TLS 1.3 are all allowed. Level 2: RSA keys of 2048 bits or more, curves of 224 or more, no SHA-1 (RFC 9325, 4.2 and 4.5).
No DHE: its key length cannot be set here, and then B.13 forbids it."""
LOOK_SECONDS = 2.0
"""Between two looks at the files."""
WARN_DAYS = 30.0
"""Days before a certificate expires from which it is told."""
DAY = 86400.0

_PEER_AT_FAULT = {"PEER_DID_NOT_RETURN_A_CERTIFICATE": "no certificate"}


class TlsError(Exception):
    """A certificate, key or list of authorities cannot be used; one line that names the key of the configuration."""


@dataclass(frozen=True)
class Expiry:
    """Of the certificates behind one key of the configuration, the one that matters: days left (below 0 when expired), when, whose."""

    key: str
    days: float
    until: str
    subject: str

    @property
    def text(self) -> str:
        """One line that says what to do, or that nothing is to be done."""
        if self.days < 0:
            return f"{self.key}: {self.subject} expired on {self.until}, write a new one"
        return f"{self.key}: {self.subject} expires in {self.days:.0f} days ({self.until})" + (", renew it" if self.days < WARN_DAYS else "")


def listener_context(config: Config) -> ssl.SSLContext | None:
    """The context of receive.tls, None where no certificate is named (plain TCP). TlsError."""
    tls = config.receive.tls
    if not tls.certificate:
        return None
    certificate, key, trust = (config.folder / name if name else None for name in (tls.certificate, tls.key, tls.trust))
    context = secure_context(ssl.PROTOCOL_TLS_SERVER, "receive.tls", certificate, key, trust)
    if trust:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def secure_context(side: int, where: str, certificate: Path | None, key: Path | None, trust: Path | None) -> ssl.SSLContext:
    """A context of the profile with the PEM files that are given. side: ssl.PROTOCOL_TLS_SERVER or _CLIENT. TlsError, which names `where`."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if certificate:
        try:
            context.load_cert_chain(certificate, key, lambda: b"")
        except (OSError, ValueError) as error:
            raise TlsError(f"{where}.certificate or {where}.key cannot be used ({_why(error)}), write PEM files of one pair "
                           "without a password") from None
    if trust:
        try:
            context.load_verify_locations(trust)
        except (OSError, ValueError) as error:
            raise TlsError(f"{where}.trust cannot be used ({_why(error)}), write a PEM file of authorities") from None
    return context


def expiries(config: Config, now: float) -> list[Expiry]:
    """When the certificates that the configuration names expire, at `now` (seconds since 1970): of our chains the first one, of authorities the
    last one."""
    found = []
    sections = [("receive.tls", config.receive.tls), *((f"destinations.{d.name}.tls", d.tls) for d in config.destinations)]
    for key, name, which in (entry for where, tls in sections for entry in ((f"{where}.certificate", tls.certificate, min),
                                                                           (f"{where}.trust", tls.trust, max))):
        if not name:
            continue
        try:
            one: Validity = which(validities((config.folder / name).read_text(encoding="latin-1")), key=lambda v: v.until)
        except (OSError, ValueError, CertificateError):
            continue  # what cannot be read is told where it is used
        found.append(Expiry(key, (one.until - now) / DAY, time.strftime("%Y-%m-%d", time.gmtime(one.until)), one.subject))
    return found


def refused_certificate(error: OSError) -> str:
    """Why a handshake failed, where the peer's certificate is the reason; else ""."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return _PEER_AT_FAULT.get(str(getattr(error, "reason", "")), "")


class ListenerTls:
    """The context in force. Safe for many threads. TlsError when the files cannot be used at the start."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self.tell: Callable[[str, str], None] = lambda what, words: None
        """Hears of each change, "changed" or "refused", in the thread that has looked."""
        self._lock = threading.Lock()
        self._state = self._look()
        self._tried, self._refused = self._state, ""
        self._looked = clock()
        self._context = listener_context(config)

    def context(self) -> ssl.SSLContext | None:
        """For the next handshake: made anew where a file has changed since; None for plain TCP. Looks at most every LOOK_SECONDS."""
        if self._context is None:
            return None
        told: list[tuple[str, str]] = []
        with self._lock:
            now = self._clock()
            if now - self._looked >= LOOK_SECONDS:
                self._looked = now
                self._renew(self._look(), told)
            context = self._context
        for what, words in told:
            self.tell(what, words)
        return context

    def _renew(self, state: tuple[object, ...], told: list[tuple[str, str]]) -> None:
        """Certificate and key change one after the other: a pair that does not fit is told when it still does not at the next look."""
        if state == self._state:
            return
        try:
            self._context = listener_context(self._config)
            self._state, self._refused = state, ""
            told.append(("changed", "; ".join(e.text for e in expiries(self._config, time.time()))))
        except TlsError as error:
            if state == self._tried and self._refused != str(state):
                self._refused = str(state)
                told.append(("refused", str(error)))
        self._tried = state

    def _look(self) -> tuple[object, ...]:
        """What tells one content of the files from another."""
        tls = self._config.receive.tls
        return tuple(_stamp(self._config.folder / name) for name in (tls.certificate, tls.key, tls.trust) if name)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
