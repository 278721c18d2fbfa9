"""`mediqa serve`: the node in the foreground."""

from __future__ import annotations

from node.cli.output import ConfigOption, fail, load_config


def command(config: ConfigOption = None) -> None:
    """Run the node in the foreground; SIGTERM drains it."""
    import typer

    from node.log import configure
    from node.serve import StartError, run

    settings = load_config(config)
    configure(settings.node.log_level, "supervisor")
    try:
        code = run(settings, settings.file)
    except StartError as error:
        fail(str(error))
    raise typer.Exit(code)
