"""Puts the worker together from the configuration: database, object stores, audit log, engine policy, sender, daily jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from node.config import Config
from node.timers import DailyJob
from node.workplace import SR_CLASSES, Workplace


def open_workplace(config: Config) -> Workplace:
    """Opens the database, brought up to date, and what lies beside it."""
    from storage.audit_log import AuditLog
    from storage.database import migrate, node_id, open_engine
    from storage.objects import ObjectStore

    full = config.storage.durability == "full"
    engine = open_engine(config.database_target, "FULL" if full else "NORMAL")
    migrate(engine)
    durable = engine if full else open_engine(config.database_target, "FULL")
    return Workplace(config, engine, durable, ObjectStore(config.data_folder / "objects", config.storage.durability),
                     ObjectStore(config.data_folder / "results", "default" if config.storage.durability == "os" else
                                 config.storage.durability),
                     AuditLog(engine, config.audit_key_path, config.audit_anchor_path), node_id(engine))


def sender_of(place: Workplace) -> Any:
    """Tries deliveries to the configured destinations."""
    from node.deliver.attempt import Sender
    from node.deliver.ledger import Patience
    from node.deliver.scu import Peer

    config = place.config
    peers = {d.name: Peer(d.ae_title, d.host, d.port, config.receive.ae_title, config.deliver.timeout) for d in config.destinations}
    patience = Patience(config.deliver.first_retry, config.deliver.last_retry, config.deliver.give_up_after)
    return Sender(place.engine, place.audit, peers, place.results.path, patience,
                  [SR_CLASSES[name] for name in config.report.sr_classes], place.now)


def daily_jobs(place: Workplace) -> list[DailyJob]:
    """Anchor of the audit chain, a checkpoint of the write-ahead log at a quiet hour, fresh query statistics."""

    def checkpoint() -> None:
        with place.engine.connect() as conn:
            if place.engine.dialect.name == "sqlite":
                conn.exec_driver_sql("COMMIT")  # a checkpoint cannot run inside a transaction
                conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                conn.exec_driver_sql("PRAGMA optimize")
                conn.exec_driver_sql("BEGIN")

    return [DailyJob("audit-anchor", 2, 17, place.audit.anchor), DailyJob("checkpoint", 2, 47, checkpoint)]


def assess_with(config: Config) -> Callable[[Sequence[Path]], Any]:
    """The engine with the policy of the configuration; the model is loaded at the first series and kept."""
    loaded: dict[str, Any] = {}

    def run(files: Sequence[Path]) -> Any:
        from qa_engine.assess import assess

        if "policy" not in loaded:
            loaded["policy"] = policy_of(config)
        return assess(list(files), policy=loaded["policy"])

    return run


def policy_of(config: Config) -> Any:
    """What the configuration says about assessing, in the engine's words."""
    from qa_engine.assess import Policy

    return Policy()


@contextmanager
def decoded_pixels(config: Config) -> Iterator[Callable[[Path], Any]]:
    """A decoder of pixel data in a process of its own, as a function of a path; started when first needed."""
    with ExitStack() as stack:
        started: list[Any] = []

        def pixels(path: Path) -> Any:
            if not started:
                from qa_engine.decode import Decoder

                started.append(stack.enter_context(Decoder()))
            return started[0].read(path).pixels

        yield pixels
