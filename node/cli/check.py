"""`mediqa check`: what would happen: configuration, port, disk, database, model, destinations. Nothing is sent or changed."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import FAILED, ConfigOption, JsonOption, QuietOption, load_config, print_json, print_table

OK, NOTE, BAD = "ok", "note", "failed"
GIB = 2**30
WAIT_ROWS = 20
"""Senders whose wait is told one by one."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    state: str
    text: str

    def to_json(self) -> dict[str, str]:
        return {"check": self.what, "state": self.state, "text": self.text}


def command(
    config: ConfigOption = None,
    go_live: Annotated[bool, typer.Option("--go-live", help="List what deliver.mode: shadow has kept back.")] = False,
    json: JsonOption = False, quiet: QuietOption = False,
) -> None:
    """Say what would happen: configuration, port, disk, model, destinations."""
    settings = load_config(config)
    if go_live:
        kept = kept_back(settings)
        if json:
            print_json({"kept_back": kept})
        elif not quiet:
            columns = ["destination", "kind", "modality", "description", "end", "score", "verdict", "series_uid"]
            print_table(f"deliver.mode: shadow kept {len(kept)} objects back; with live, mediqa delivery retry --destination NAME sends them",
                        columns, [[k[c] for c in columns] for k in kept], ("score",))
        return
    rows = [configuration(settings), port(settings), *tls(settings), disk(settings), retention(settings), database(settings), *backups(settings),
            *access(settings), *waits(settings), model(settings), *destinations(settings), *unserved_callers(settings), mode(settings)]
    if json:
        print_json({"ok": not any(r.state == BAD for r in rows), "checks": [r.to_json() for r in rows]})
    elif quiet:
        for row in rows:
            if row.state == BAD:
                print(f"mediqa: {row.what}: {row.text}", file=sys.stderr)
    else:
        print_table("", ["check", "state", "what"], [[r.what, r.state, r.text] for r in rows])
    raise typer.Exit(FAILED if any(r.state == BAD for r in rows) else 0)


def configuration(settings: Any) -> Row:
    return Row("configuration", OK, str(settings.file) if settings.file else "no config.yaml here: the defaults")


def port(settings: Any) -> Row:
    """Free, held by this node's own receiver, or taken by somebody else."""
    host, number = settings.receive.host, settings.receive.port
    what = f"{settings.receive.ae_title} on {host}:{number}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except socket.gaierror:
        return Row("port", BAD, f"receive.host: {host} is no address of this machine, write another")
    except PermissionError:
        return Row("port", BAD, f"receive.port: {number} needs rights that the node does not have, write a port above 1023")
    except OSError as error:
        running = receiver(settings)
        if running is not None and running["port"] == number:
            return Row("port", OK, f"{what}: this node is running (process {running['pid']})")
        return Row("port", BAD, f"receive.port: {number} cannot be listened on ({error.strerror}), stop the other program or write another")
    return Row("port", OK, f"{what}: free")


def receiver(settings: Any) -> dict[str, Any] | None:
    """The ready file of a receiver whose process lives."""
    try:
        found = json.loads((settings.data_folder / "receiver.ready").read_text(encoding="ascii"))
        os.kill(int(found["pid"]), 0)
        return {"port": int(found["port"]), "pid": int(found["pid"])}
    except PermissionError:
        return {"port": int(found["port"]), "pid": int(found["pid"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tls(settings: Any) -> list[Row]:
    """The files of receive.tls, where a certificate is named, and until when all that are named hold."""
    from node.receive.tls import WARN_DAYS, TlsError, expiries, listener_context

    try:
        context = listener_context(settings)
    except TlsError as error:
        return [Row("tls", BAD, str(error))]
    who = "a peer must show a certificate" if settings.receive.tls.trust else "any peer"
    return [*([] if context is None else [Row("tls", OK, f"TLS 1.2 or newer on receive.port; {who}")]),
            *(Row("tls", BAD if e.days < 0 else NOTE if e.days < WARN_DAYS else OK, e.text) for e in expiries(settings, time.time()))]


def disk(settings: Any) -> Row:
    """Whether the data folder can be made and written, and what is free."""
    folder = settings.data_folder
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        return Row("disk", BAD, f"node.data: {folder} cannot be written, write a folder that the node may write")
    stat = os.statvfs(place)
    free = stat.f_bavail * stat.f_frsize
    text = f"{folder}: {free / GIB:.1f} GiB free, reserve {settings.storage.reserve}"
    if free < settings.reserve_bytes:
        return Row("disk", BAD, f"{text}: C-STORE would answer 0xA700, make room or write a smaller storage.reserve")
    return Row("disk", NOTE if free < 2 * settings.reserve_bytes else OK, text)


def retention(settings: Any) -> Row:
    """What is deleted, and when."""
    storage = settings.storage
    rules = [f"{storage.keep_days:g} days after the last of a series came"] if storage.keep_days else []
    rules += [f"oldest series first until {storage.keep_free} are free"] if settings.keep_free_bytes else []
    return Row("retention", OK, f"received files are deleted {' and '.join(rules)}; results stay" if rules else "received files are never deleted")


def database(settings: Any) -> Row:
    """Whether the database opens; a missing SQLite file is made at the first start."""
    target = settings.database_target
    if isinstance(target, Path) and not target.exists():
        return Row("database", OK, f"{target}: is made at the first start")
    import sqlalchemy as sa

    try:
        count = _query(settings, "select count(*) as n from series")[0]["n"]
    except sa.exc.SQLAlchemyError:
        where = target if isinstance(target, Path) else "the configured database"
        return Row("database", BAD, f"{where} cannot be read, check the key database, its server and its rights")
    return Row("database", OK, f"{count} series")


def backups(settings: Any) -> list[Row]:
    """The newest scheduled copy of the database, and whether the next one can be made."""
    from node.backups import NAME

    folder = settings.backup_folder
    if folder is None:
        return []
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        return [Row("backup", BAD, f"storage.backup: {folder} cannot be written, write a folder that the node may write")]
    found = sorted(p for p in folder.glob("node-*.db") if NAME.fullmatch(p.name))
    if not found:
        return [Row("backup", NOTE, f"{folder}: no copy yet, one is made each day at 01:17 UTC")]
    days = (time.time() - found[-1].stat().st_mtime) / 86400
    return [Row("backup", OK if days < 2 else NOTE, f"{folder}: {len(found)} of its copies, the newest is {days:.1f} days old")]


def access(settings: Any) -> list[Row]:
    """Who may send."""
    receive = settings.receive
    if receive.allow_any:
        return [Row("callers", NOTE, "receive.allow_any: every AE title from every network may send")]
    if not receive.allow:
        return [Row("callers", BAD, "receive.allow is empty: nobody may send, add the AE title and networks of the PACS")]
    return [Row("callers", OK, "; ".join(f"{c.ae_title} from {', '.join(c.networks)}" for c in receive.allow))]


def waits(settings: Any) -> list[Row]:
    """What ends the wait for each sender known so far, those first that wait longest; WAIT_ROWS of them, the view `waits` has all."""
    from node import quiet

    c, auto = settings.completion, settings.completion.quiet == "auto"
    rows = [Row("waits", OK, f"completion.quiet: auto: {quiet.FLOOR:g} to {quiet.CEILING:g} s, learned per calling AE title and modality; "
                             f"{quiet.CEILING:g} s until {quiet.ENOUGH} series were seen" if auto else
                f"completion.quiet: {c.quiet:g} s for every sender")]
    try:
        known = _query(settings, "select * from waits order by coalesce(wait_seconds, 1e9) desc, calling_ae, modality")
    except Exception:  # `database` has told, or the tables are made anew at the next start
        return rows
    for k in known[:WAIT_ROWS]:
        told = f"longest gap {k['longest_gap_seconds']:.1f} s, {k['series_split']} of the last {k['series_seen']} series came in parts"
        if auto:
            wait, run = k["wait_seconds"], k["contiguous_seconds"]
            told = (f"{quiet.CEILING:g} s until {quiet.ENOUGH} series were seen; " if wait is None else
                    f"{wait:g} s; " if run is None else f"{wait:g} s, {run:g} s after a gap-free run whose association ended; ") + told
        missed = not auto and k["series_split"] > 0
        rows.append(Row(f"wait {k['calling_ae']} {k['modality']}".rstrip(), NOTE if missed else OK,
                        told + ("; write a longer completion.quiet, or auto" if missed else "")))
    if len(known) > WAIT_ROWS:
        rows.append(Row("waits", OK, f"{len(known) - WAIT_ROWS} more in the view waits"))
    return rows


def model(settings: Any) -> Row:
    """Which weights are installed, each with its card, and whether those of the configuration are; nothing is loaded."""
    import qa_engine

    found, wanted = {}, settings.engine.profile
    for weights in sorted(Path(qa_engine.__path__[0], "weights").glob("*.safetensors")):
        try:
            found[weights.stem] = f"{weights.stem} {json.loads(weights.with_suffix('.json').read_text(encoding='utf-8'))['version']}"
        except (OSError, ValueError, KeyError, TypeError):
            continue  # what has no card is part of another profile, or unusable
    if wanted in found:
        return Row("model", OK, f"engine.profile is {found.pop(wanted)}" + (f"; also installed: {', '.join(found.values())}" if found else ""))
    return Row("model", BAD, f"no weights of engine.profile {wanted} are installed: every series ends as abstained/no-model; install the package "
                             "anew or use mediqa model import")


def destinations(settings: Any) -> list[Row]:
    """C-ECHO of each destination and which of our SOP classes it accepts."""
    from dataclasses import replace

    from node.deliver.peer import peer_of
    from node.deliver.probe import SECONDARY_CAPTURE, probe
    from node.workplace import SR_CLASSES

    if not settings.destinations:
        return [Row("destinations", NOTE, "none: results stay in this node")]
    wanted = {name: SR_CLASSES[name] for name in settings.report.sr_classes}
    rows = []
    for d in settings.destinations:
        peer = replace(peer_of(settings, d), timeout=min(settings.deliver.timeout, 10))
        found = probe(peer, [*SR_CLASSES.values(), SECONDARY_CAPTURE])
        rows.append(Row(f"destination {d.name}", BAD if found.problem else OK,
                        found.problem or f"{d.ae_title}@{d.host}:{d.port} answers the C-ECHO" + (" over TLS" if peer.tls else "")))
        if not found.accepted:
            continue
        takes = [name for name, uid in SR_CLASSES.items() if uid in found.accepted]
        first = next((name for name in wanted if name in takes), None)
        then = f"{first} is sent" if first else "none of report.sr_classes, add one that it takes"
        rows.append(Row(f"destination {d.name}: SR", OK if first else BAD, f"takes {', '.join(takes) or 'none'}; {then}"))
        if settings.report.secondary_capture:
            capture = SECONDARY_CAPTURE in found.accepted
            rows.append(Row(f"destination {d.name}: Secondary Capture", OK if capture else BAD,
                            "is taken" if capture else "is not taken, set report.secondary_capture: false or allow it there"))
    return rows


def unserved_callers(settings: Any) -> list[Row]:
    """Calling AE titles whose results go nowhere: from the allow-list, and from what was received so far."""
    from node.deliver.routing import unserved

    if not settings.destinations:
        return []
    came: list[str] = [c.ae_title for c in settings.receive.allow]
    try:
        came += [row["calling_ae"] for row in _query(settings, "select distinct calling_ae from series where calling_ae <> ''")]
    except Exception:  # no database yet, or one that `database` has told about
        pass
    left = unserved(list(dict.fromkeys(came)), settings.destinations)
    if not left:
        return []
    return [Row("routing", NOTE, f"no destination serves {', '.join(left)}: what they send is scored and sent nowhere")]


def mode(settings: Any) -> Row:
    if settings.deliver.mode == "live":
        return Row("delivery", OK, "live: results are sent")
    return Row("delivery", NOTE, "shadow: everything but the sending; mediqa check --go-live lists what is kept back")


def kept_back(settings: Any) -> list[dict[str, Any]]:
    """Deliveries that were planned in shadow mode (pending without a next try), and in that mode what was on its way before."""
    target = settings.database_target
    if isinstance(target, Path) and not target.exists():
        return []
    return _query(settings, 'select d.destination, d.kind, r.modality, r.description, r."end", r.score, r.verdict, d.series_uid '
                            "from deliveries d join results r on r.series_uid = d.series_uid and r.study_uid = d.study_uid "
                            "and r.revision = d.revision where d.state in ('pending', 'held', 'sending') "
                            + ("" if settings.deliver.mode == "shadow" else "and d.next_try_at is null and d.state = 'pending' ")
                            + "order by d.delivery_id")


def _query(settings: Any, text: str) -> list[dict[str, Any]]:
    import sqlalchemy as sa

    from storage.database import open_engine, readonly

    target = settings.database_target
    if isinstance(target, Path) and not target.exists():
        return []
    engine = open_engine(target)
    try:
        with readonly(engine).connect() as conn:
            return [dict(row._mapping) for row in conn.execute(sa.text(text))]
    finally:
        engine.dispose()
