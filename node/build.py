"""Puts the worker together from the configuration: database, object stores, audit log, engine policy, sender, daily jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.backups import make_scheduled
from node.config import Config
from node.timers import DailyJob
from node.workplace import ACTOR, SR_CLASSES, Workplace


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
    from node.deliver.peer import peer_of

    config = place.config
    peers = {d.name: peer_of(config, d) for d in config.destinations}
    patience = Patience(config.deliver.first_retry, config.deliver.last_retry, config.deliver.give_up_after)
    return Sender(place.engine, place.audit, peers, place.results.path, patience,
                  [SR_CLASSES[name] for name in config.report.sr_classes], place.now)


def daily_jobs(place: Workplace) -> list[DailyJob]:
    """A checkpoint of the write-ahead log at a quiet hour, fresh query statistics; a copy of the database where one is wanted."""

    def checkpoint() -> None:
        with place.engine.connect() as conn:
            if place.engine.dialect.name == "sqlite":
                conn.exec_driver_sql("COMMIT")  # a checkpoint cannot run inside a transaction
                conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                conn.exec_driver_sql("PRAGMA optimize")
                conn.exec_driver_sql("BEGIN")

    def copy() -> None:
        make_scheduled(place.config, place.engine, place.audit, ACTOR)

    jobs = [DailyJob("checkpoint", 2, 47, checkpoint)]
    return [*jobs, DailyJob("backup", 1, 17, copy)] if place.config.backup_folder is not None else jobs


def assess_with(config: Config) -> Callable[[Sequence[Path]], Any]:
    """The engine with the policy of the configuration; model and decoder are made at the first series and kept."""
    policy, kept = policy_of(config), _Kept()

    def run(files: Sequence[Path]) -> Any:
        from qa_engine.assess import assess

        return assess(list(files), policy, kept.model(policy.profile), kept.decoder(config))

    return run


class _Kept:
    """Model and decoder that outlive one series."""

    def __init__(self) -> None:
        self._model: Any = None
        self._decoder: Any = None

    def model(self, profile: str) -> Any:
        """The model; None where none is installed, so that the engine says so in its own words."""
        if self._model is None:
            from qa_engine.model import ModelMissing, load_model

            try:
                self._model = load_model(profile)
            except ModelMissing:
                return None
        return self._model

    def decoder(self, config: Config) -> Any:
        if self._decoder is None:
            self._decoder = new_decoder(config)
        return self._decoder


def new_decoder(config: Config) -> Any:
    """A decoder with the limits of the configuration; its process starts with the first file."""
    from qa_engine.decode import Decoder

    return Decoder(config.engine.decode_seconds, int(config.engine.max_megapixels * 10**6))


def policy_of(config: Config) -> Any:
    """What the configuration says about assessing, in the engine's words."""
    from qa_engine.policy import Policy

    thresholds = {m: config.thresholds(m) for m in type(config.engine.thresholds).model_fields}
    return Policy(
        thresholds={m: (t.reject_below, t.good_from) for m, t in thresholds.items() if t is not None},
        max_interval=config.engine.max_interval, slices=config.engine.slices, device=config.engine.device, profile=config.engine.profile,
        decode_seconds=config.engine.decode_seconds, max_pixels=int(config.engine.max_megapixels * 10**6))


@contextmanager
def decoded_pixels(config: Config) -> Iterator[Callable[[Path], Any]]:
    """A decoder of pixel data in a process of its own, as a function of a path."""
    with new_decoder(config) as decoder:
        yield lambda path: decoder.read(path).pixels
