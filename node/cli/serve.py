"""`mediqa serve`: the node in the foreground."""

from __future__ import annotations

import os

from node.cli.output import ConfigOption, QuietOption, fail, load_config


def command(config: ConfigOption = None, quiet: QuietOption = False) -> None:
    """Run the node in the foreground; SIGTERM drains it."""
    import typer

    from node.log import configure
    from node.serve import StartError, run

    if quiet:
        os.environ["MEDIQA_NODE__LOG_LEVEL"] = "WARNING"  # for this process and those that it starts
    settings = load_config(config)
    configure(settings.node.log_level, "supervisor")
    try:
        code = run(settings, settings.file)
    except StartError as error:
        fail(str(error))
    raise typer.Exit(code)
