"""What the benchmarks of reception and of sending share: arguments, the table of measurements, ratios, goals."""

from __future__ import annotations

import argparse
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any


def arguments(doc: str | None, what: str) -> argparse.ArgumentParser:
    """--json, --quick, --rounds and --folder; `doc` is that of the benchmark, `what` is measured."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quick", action="store_true", help="an eighth of the objects, one round")
    parser.add_argument("--rounds", type=int, default=0, help=f"how often each {what} is measured (3; 1 with --quick)")
    parser.add_argument("--folder", type=Path, help="where to write, for the disk that is meant (a temporary folder)")
    return parser


def judged(found: dict[str, Any], at_least: dict[str, float], at_most: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Each goal with what was found: ratios that are to be reached, figures that are not to be passed."""
    return {name: {"found": found["ratios"][name], "goal": goal, "met": found["ratios"][name] >= goal} for name, goal in at_least.items()} | {
        name: {"found": found[name], "goal": goal, "met": found[name] <= goal} for name, goal in at_most.items()}


def print_table(found: dict[str, Any], names: Sequence[str], at_least: Container[str], *more: str) -> None:
    """For people. `names`: keys of a row that name what was measured; `more`: lines before the goals."""
    widths = {name: 2 + max(len(name), *(len(row[name]) for row in found["rows"])) for name in names}
    print("".join(f"{name:{w}}" for name, w in widths.items()) + f"{'best s':>9}{'median':>9}{'MB/s':>9}{'inst/s':>9}{'CPU ms':>9}{'peak MB':>9}")
    for row in found["rows"]:
        print("".join(f"{row[name]:{w}}" for name, w in widths.items())
              + f"{row['seconds']:9.3f}{row['median']:9.3f}{row['mb_per_s']:9.1f}{row['instances_per_s']:9.1f}"
                f"{row['cpu_ms_per_instance']:9.2f}{row['peak_mb']:9.1f}")
    print(f"\n{'times as fast':30}{'best':>8}{'median':>8}")
    for name, best in found["ratios"].items():
        print(f"{name:30}{best:8.2f}{found['medians'][name]:8.2f}")
    print("", *more, f"load of the machine {found['load']:g}", sep="\n")
    for name, goal in found["goals"].items():
        print(f"goal {name}: {goal['found']:g} {'>=' if name in at_least else '<='} {goal['goal']:g}: {'met' if goal['met'] else 'NOT MET'}")
