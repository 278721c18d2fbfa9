"""`python -m tests.attack [--seconds 60] [--timeout 10] [--only NAME] [--json]`: each attack upon a real receiver, as a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.attack.peers import ATTACKS
from tests.attack.run import Cost, run
from tests.attack.site import Site


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description="Attacks a receiver of its own while an honest peer is served.")
    parser.add_argument("--seconds", type=float, default=60, help="of each attack")
    parser.add_argument("--timeout", type=float, default=10, help="receive.acse_timeout, dimse_timeout and network_timeout, seconds")
    parser.add_argument("--only", action="append", help="names of attacks")
    parser.add_argument("--path", choices=["fast", "stock"], default="fast")
    parser.add_argument("--tls", choices=["yes", "no"], help="only over TLS, or only plain")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console, costs = Console(stderr=True), []
    for tls in (False, True):
        if options.tls not in (None, "yes" if tls else "no"):
            continue
        with tempfile.TemporaryDirectory() as folder, Site(Path(folder), tls, options.timeout, options.path) as site:
            for attack in ATTACKS:
                if attack.tls in ("both", "yes" if tls else "no") and (not options.only or attack.name in options.only):
                    costs.append(run(site, attack, options.seconds))
                    console.print(words(costs[-1]), soft_wrap=True, highlight=False)
    if options.json:
        print(json.dumps({"seconds": options.seconds, "timeout": options.timeout, "path": options.path,
                          "attacks": [dataclasses.asdict(c) | {"held": c.held} for c in costs]}, indent=1))
    else:
        table = Table(title=f"{options.seconds:g} s each, time-outs {options.timeout:g} s")
        for column in ("attack", "", "attempts", "honest accepted, worst s", "served, worst s", "growth MB", "threads", "free after s", ""):
            table.add_column(column, justify="left" if column in ("attack", "") else "right")
        for c in costs:
            table.add_row(c.attack, "TLS" if c.tls else "plain", str(c.attempts), f"{c.honest:.3f}", f"{c.served:.3f}", f"{c.growth:.0f}",
                          str(c.threads), f"{c.free:.1f}", "held" if c.held else f"NOT HELD {c.problem}")
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0 if all(c.held for c in costs) else 1


def words(c: Cost) -> str:
    return (f"{c.attack}{' (TLS)' if c.tls else ''}: {c.attempts} attempts, honest {c.honest:.3f} s (served {c.served:.3f}), +{c.growth:.0f} MB, "
            f"{c.threads} threads, free after {c.free:.1f} s{'' if c.held else '  NOT HELD'} {c.problem[:200]}")


if __name__ == "__main__":
    sys.exit(main())
