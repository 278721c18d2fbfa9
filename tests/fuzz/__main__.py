"""`python -m tests.fuzz [TARGET ...] [--minutes 1] [--keep]`: coverage-guided by atheris where it is installed, else by the plain mutator.

Each target runs in a process of its own and in a folder of its own under --work; an input that breaks it is left there. --keep stores the
inputs that reach something new, minimised, in tests/fuzz/corpus.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.fuzz.mutate import mutated

NAMES = ("pdu", "command_set", "associate", "header_scan", "quick_scan", "certificate")
INSTRUMENTED = ["node.receive", "pynetdicom.pdu", "pynetdicom.pdu_items", "pynetdicom.pdu_primitives", "pydicom.filereader", "pydicom.values"]
SLOW_SECONDS, MEMORY_MB, LONGEST = 5, 1024, 65536
"""An input that takes longer (of the processor) or more is a finding, too."""
TOLD = 4000
"""Characters of what a run that found something has said."""
KEPT, KEPT_BYTES = 150, 600


def guided(target: str) -> None:
    """In a process of its own: libFuzzer's arguments stand in sys.argv."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)  # the library quotes every odd value

    def timed(data: bytes) -> None:
        began = time.process_time()
        TARGETS[target](data)
        assert time.process_time() - began < SLOW_SECONDS, "takes too long"

    atheris.Setup(sys.argv, timed)
    atheris.Fuzz()


def run_guided(target: str, seconds: float, work: Path, keep: bool) -> tuple[int, int]:
    """Executions and findings."""
    from tests.fuzz.seeds import seeds, store

    corpus = work / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    base = [sys.executable, "-m", "tests.fuzz", "--guided", target]
    limits = [f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LONGEST}"]
    done = subprocess.run([*base, *limits, f"-max_total_time={seconds:.0f}", f"-artifact_prefix={work}/{target}-", "-print_final_stats=1", str(corpus)],
                          capture_output=True, text=True, errors="replace")
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode:
        error = done.stdout.partition("Uncaught Python exception")[2]
        sys.stderr.write(f"{error[:TOLD] or done.stderr[-TOLD:]}\n{target}: exit {done.returncode}\n")
    if keep and not done.returncode:
        small = work / f"{target}-small"
        small.mkdir(exist_ok=True)
        subprocess.run([*base, *limits, "-merge=1", str(small), str(corpus)], check=True, capture_output=True)
        inputs = [f.read_bytes() for f in small.iterdir()]
        store(target, [i for i in sorted(inputs, key=len) if len(i) <= KEPT_BYTES][:KEPT])
    return int(found[1]) if found else 0, int(done.returncode != 0)


def run_plain(target: str, seconds: float, work: Path, seed: int = 1) -> tuple[int, int]:
    """Executions and findings of the plain mutator; it ends at the first finding."""
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    dice, until, count = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = mutated(seeds(target), dice)
        count += 1
        try:
            TARGETS[target](data)
        except Exception as error:
            (work / f"{target}-crash").write_bytes(data)
            sys.stderr.write(f"{target}: {type(error).__name__}: {error}; input in {work / f'{target}-crash'}\n")
            return count, 1
    return count, 0


def main() -> int:
    if sys.argv[1:2] == ["--guided"]:
        target = sys.argv[2]
        del sys.argv[1:3]
        guided(target)
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzzes the parsers of what peers send.")
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], help="all when none is named")
    parser.add_argument("--minutes", type=float, default=1, help="for each target")
    parser.add_argument("--work", type=Path, default=None, help="where inputs are kept while it runs")
    parser.add_argument("--keep", action="store_true", help="store the minimised corpus")
    options = parser.parse_args()
    try:
        import atheris  # noqa: F401
        how = "atheris"
    except ImportError:
        how = "the plain mutator (scripts/setup fuzz installs atheris)"
    work = options.work or Path(tempfile.mkdtemp(prefix="fuzz-"))
    work.mkdir(parents=True, exist_ok=True)
    bad = 0
    for target in options.targets or NAMES:
        seconds = 60 * options.minutes
        count, findings = run_guided(target, seconds, work, options.keep) if how == "atheris" else run_plain(target, seconds, work)
        print(f"{target}: {count} executions by {how}, {findings} findings{f', see {work}' if findings else ''}", flush=True)
        bad += findings
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
