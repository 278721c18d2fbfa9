"""The TLS side of the listener: secure transport connections of PS3.15 annex B by the BCP 195 profile (B.12: TLS 1.2 or newer, forward secrecy)."""

from __future__ import annotations

import ssl

from node.config import Config

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""Of TLS 1.2; those of TLS 1.3 are all allowed."""


class TlsError(Exception):
    """A certificate, key or list of authorities cannot be used; one line that names the key of the configuration."""


def listener_context(config: Config) -> ssl.SSLContext | None:
    """The context of receive.tls, None where no certificate is named (plain TCP). TlsError."""
    tls = config.receive.tls
    if not tls.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(config.folder / tls.certificate, config.folder / tls.key if tls.key else None, lambda: b"")
    except (OSError, ValueError) as error:
        raise TlsError(f"receive.tls.certificate or receive.tls.key cannot be used ({_why(error)}), write PEM files of one pair "
                       "without a password") from None
    if tls.trust:
        try:
            context.load_verify_locations(config.folder / tls.trust)
        except (OSError, ValueError) as error:
            raise TlsError(f"receive.tls.trust cannot be used ({_why(error)}), write a PEM file of authorities") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
