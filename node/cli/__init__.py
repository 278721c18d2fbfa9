"""The command `mediqa` (DESIGN section 7): one file per command, imported only when that command runs.

A verb's module has a function `command`; a noun's module has a Typer `app` with its verbs.
"""

from __future__ import annotations

import errno
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

COMMANDS: dict[str, str] = {
    "serve": "Run the node in the foreground; SIGTERM drains it.",
    "check": "Say what would happen: configuration, port, disk, model, destinations.",
    "score": "Score files or folders without a node, with the same engine.",
    "send": "C-STORE a folder to AET@HOST:PORT.",
    "series": "State of series: list, show, complete, rescore, retract.",
    "delivery": "State of deliveries: list, retry, drop.",
    "backup": "Copies of the database: create, list, restore.",
    "audit": "The audit log: list, verify, export.",
    "results": "The results table, as text, CSV or JSON.",
    "model": "Profiles, model card and sha256 of the weights: list, show, import.",
    "train": "Make weights: simulate, fit, evaluate, region, envelope.",
    "sample": "Write a simulated patient as a DICOM series.",
}


def _load(name: str) -> Any:
    """The command object of module `node.cli.<name>`."""
    module = import_module(f"node.cli.{name}")
    if hasattr(module, "app"):
        return typer.main.get_command(module.app)
    verb = typer.Typer(add_completion=False)
    verb.command(name, help=COMMANDS[name])(module.command)
    return typer.main.get_command(verb)


class LazyGroup(TyperGroup):
    """Lists commands from the table above, imports one only to run it (start-up under 0.5 s); what goes wrong in it is one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = _load(name)
            command.name = name
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        from node.cli.output import FAILED, fail

        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except TyperException as error:
            said, where = error.format_message(), getattr(getattr(error, "ctx", None), "command_path", "mediqa")
            if not said:
                raise  # a group without a verb: its help was shown
            fail(f"{where.removeprefix('mediqa').strip() or 'wrong use'}: {said.rstrip('.')}; see {where} --help", error.exit_code)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # who reads our output has seen enough
            fail(_failure(error), FAILED)


def _failure(error: Exception) -> str:
    """What went wrong, in one line without what the error may quote."""
    from node.log import describe

    orig = getattr(error, "orig", None)
    if orig is not None:  # SQLAlchemy's shell around what the database itself says
        said = str(orig).splitlines()[0]
        return "the database is locked by another program, try again" if "locked" in said else \
            f"the database cannot be used ({said}), mediqa check tells where it is"
    if isinstance(error, OSError):
        return f"{error.filename or 'cannot be done'}: {error.strerror or type(error).__name__}"
    return f"this is a defect of the program: {describe(error)}"


app = typer.Typer(cls=LazyGroup, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
                  help="MedIQA Node: technical image quality, answered by DICOM. Not a medical device.")


@app.callback()
def _root() -> None:
    """MedIQA Node: technical image quality, answered by DICOM. Not a medical device."""


def main() -> None:
    """Entry point of the command `mediqa`."""
    app(prog_name="mediqa")
