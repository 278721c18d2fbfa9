"""`mediqa backup create|list|restore`: copies of the database while the node runs, and putting one back while it does not."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import WRONG_USE, ConfigOption, JsonOption, QuietOption, fail, load_config, print_json, print_table

app = typer.Typer(add_completion=False, help="Copies of the database: create, list, restore.", no_args_is_help=True)


def _settings(config: Path | None) -> Any:
    settings = load_config(config)
    if not isinstance(settings.database_target, Path):
        fail("the database lies on a server; use that server's own tools for backups", WRONG_USE)
    return settings


@app.command()
def create(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A new file (default: one in storage.backup).")] = None,
    config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False,
) -> None:
    """Copy the database, checked and of one moment, while the node runs; the head of the audit log goes beside it."""
    from node.backups import make, name_for
    from storage.audit_log import AuditKeyError, AuditLog
    from storage.backup import BackupError
    from storage.clock import utc_now
    from storage.database import open_engine

    settings = _settings(config)
    if file is None and settings.backup_folder is None:
        fail("name a file, or a folder as storage.backup in the configuration", WRONG_USE)
    target = file or settings.backup_folder / name_for(utc_now())
    if not settings.database_target.exists():
        fail(f"there is no database at {settings.database_target} yet; start the node with mediqa serve, or name its configuration with --config")
    try:
        engine = open_engine(settings.database_target)
        audit = AuditLog(engine, settings.audit_key_path, settings.audit_anchor_path, make_key=False)
        made = make(settings, engine, audit, target.absolute(), "operator")
    except (BackupError, AuditKeyError) as error:
        fail(str(error))
    if as_json:
        print_json({"file": str(made.path), "bytes": made.bytes, "records": made.head[0] if made.head else 0})
    elif not quiet:
        print(f"{made.path}: {made.bytes / 2**20:.1f} MiB, checked; keep {made.path.name}.anchor and, apart, {settings.audit_key_path} with it")


@app.command("list")
def list_copies(config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Show the copies in storage.backup, the newest last."""
    from node.backups import NAME

    settings = _settings(config)
    folder = settings.backup_folder
    found = sorted(p for p in folder.glob("node-*.db") if NAME.fullmatch(p.name)) if folder is not None and folder.is_dir() else []
    rows = [{"file": str(p), "bytes": p.stat().st_size, "anchored": p.with_name(p.name + ".anchor").exists()} for p in found]
    if as_json:
        print_json({"backups": rows})
    elif not quiet and not rows:
        print("storage.backup names no folder in which copies are kept; mediqa backup create FILE makes one anywhere" if folder is None else
              f"no copies in {folder} yet; mediqa backup create makes one")
    elif not quiet:
        print_table("", ["file", "MiB", "anchor"], [[r["file"], f"{r['bytes'] / 2**20:.1f}", "yes" if r["anchored"] else "no"] for r in rows], ("MiB",))


@app.command()
def restore(file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that mediqa backup create made.")],
            config: ConfigOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Put a copy in the place of the database while the node is stopped; what it replaces is kept aside, what came since is found at the next start."""
    from node.backups import follow
    from node.cli.check import receiver
    from node.serve import StartError, lock
    from storage.audit_log import AuditKeyError, AuditLog
    from storage.backup import BackupError
    from storage.clock import utc_now
    from storage.database import open_engine
    from storage.objects import ObjectStore
    from storage.restore import restore as put_back

    settings = _settings(config)
    data = settings.data_folder
    with ExitStack() as held:
        try:
            for name, what in (("node.lock", "a node"), ("worker.lock", "a worker")):
                held.enter_context(lock(data / name, what))
        except StartError as error:
            fail(str(error))
        if (running := receiver(settings)) is not None:
            fail(f"a receiver is running on {data} (process {running['pid']}); stop it first")
        try:
            done = put_back(file.absolute(), settings.database_target, settings.audit_key_path, settings.audit_anchor_path, utc_now())
            engine = open_engine(settings.database_target, "FULL")
            follow(engine, ObjectStore(data / "results"), data / "pictures", done.newest_revision)
            AuditLog(engine, settings.audit_key_path, settings.audit_anchor_path, make_key=False).anchor()
            engine.dispose()
        except (BackupError, AuditKeyError) as error:
            fail(str(error))
    if as_json:
        print_json({"file": str(file), "records": done.records, "records_replaced": done.replaced, "anchored": done.anchored,
                    "replaced": None if done.aside is None else str(done.aside)})
    elif not quiet:
        print(f"{file} is the database now: {done.records} audit records; {done.replaced} newer ones are not in it"
              + (f", they stay in {done.aside}" if done.aside else "") + ("" if done.anchored else f"; {file.name}.anchor was not there to check it"))
        print("mediqa serve indexes what was received since, and answers it again with the same objects")
