"""Where to send, and the TLS towards it: the profile of `node.receive.tls` as a requestor (PS3.15 B.12)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from node.config import Config, Destination
from node.receive.tls import TlsError, secure_context


@dataclass(frozen=True)
class TlsFiles:
    """PEM files. `trust`: the peer's certificate is one of these, or signed by one. `certificate` with `key`: ours, for a peer that asks for one.

    check_host: the peer's certificate must name the host that we connect to. `where`: the key of the configuration, for messages.
    """

    trust: Path
    certificate: Path | None = None
    key: Path | None = None
    check_host: bool = True
    where: str = "tls"

    def context(self) -> ssl.SSLContext:
        """Of what the files hold now: a certificate is renewed without a restart. TlsError."""
        context = secure_context(ssl.PROTOCOL_TLS_CLIENT, self.where, self.certificate, self.key, self.trust)
        context.check_hostname = self.check_host
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # `trust` may hold the very certificate of the peer
        return context


@dataclass(frozen=True)
class Peer:
    """The destination's AE title and address, our own AE title, seconds without progress that end an association; `tls` None: plain TCP."""

    ae_title: str
    host: str
    port: int
    calling_ae: str
    timeout: float
    tls: TlsFiles | None = None


def peer_of(config: Config, destination: Destination) -> Peer:
    """As the configuration has it."""
    return Peer(destination.ae_title, destination.host, destination.port, config.receive.ae_title, config.deliver.timeout,
                _files(config, destination))


def _files(config: Config, destination: Destination) -> TlsFiles | None:
    tls = destination.tls
    if not tls.trust:
        return None
    own, key = (config.folder / name if name else None for name in (tls.certificate, tls.key))
    return TlsFiles(config.folder / tls.trust, own, key, tls.check_host, f"destinations.{destination.name}.tls")


def why_not(error: Exception) -> str:
    """Why there is no connection, in words that help whoever set it up."""
    if isinstance(error, TlsError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: the certificate of the peer is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: no handshake ({error.reason or type(error).__name__})"
    return f"no connection ({type(error).__name__})"
