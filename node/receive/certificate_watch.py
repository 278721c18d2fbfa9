"""What happens to the listener's certificates is told while the node runs: renewed, a renewal refused, soon to expire, expired."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from node.config import Config
from node.log import event
from node.receive.session import ACTOR
from node.receive.tls import DAY, WARN_DAYS, expiries
from storage.audit_log import AuditLog

log = logging.getLogger("node.receive")


class CertificateWatch:
    """Lines in the log and audit events `certificate-changed`, `certificate-refused`, `certificate-expires`."""

    def __init__(self, config: Config, engine: sa.Engine, audit: AuditLog) -> None:
        self._config, self._engine, self._audit = config, engine, audit
        self._warned = float("-inf")

    def told(self, what: str, words: str) -> None:
        """The listener's `tell`: "changed" or "refused"."""
        if what == "changed":
            event(log, "TLS: the new certificate is in force", expires=words)
            self._warned = float("-inf")
        else:
            event(log, f"TLS: the old certificate stays in force, {words}", logging.ERROR)
        self._record(f"certificate-{what}", text=words)

    def warn(self, now: float) -> None:
        """A line and an event per day for each certificate with less than WARN_DAYS left. `now` in seconds since 1970."""
        if abs(now - self._warned) < DAY:
            return
        self._warned = now
        for expiry in expiries(self._config, now):
            if expiry.days < WARN_DAYS:
                event(log, expiry.text, logging.ERROR if expiry.days < 0 else logging.WARNING)
                self._record("certificate-expires", key=expiry.key, until=expiry.until, days=round(expiry.days, 1))

    def _record(self, name: str, **details: object) -> None:
        try:
            with self._engine.begin() as conn:
                self._audit.append(conn, name, ACTOR, **details)
        except sa.exc.SQLAlchemyError as error:
            event(log, "what became of a certificate cannot be recorded", logging.ERROR, error)
