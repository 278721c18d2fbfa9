"""The stored corpus and the seeds are replayed, and a few seconds of mutation; `make fuzz` runs for as long as one likes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.__main__ import NAMES
from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MOST = 2.0, 3000
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_every_target_is_run() -> None:
    assert set(NAMES) == set(TARGETS)


@pytest.mark.parametrize("target", NAMES)
def test_corpus(target: str) -> None:
    for data in seeds(target):
        TARGETS[target](data)


@pytest.mark.parametrize("target", NAMES)
def test_mutations(target: str) -> None:
    """Always the same ones, as many as there is time for."""
    dice, until = random.Random(8), time.monotonic() + SECONDS
    for count in range(MOST):
        data = mutated(seeds(target), dice)
        try:
            TARGETS[target](data)
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}; number {count}, input {data.hex()[:2000]}")
        if time.monotonic() > until:
            break
    assert count > 20


def test_atheris_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="scripts/setup fuzz installs it")
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", "command_set", "--minutes", "0.05", "--work", str(tmp_path)], cwd=ROOT,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and "by atheris, 0 findings" in done.stdout, done.stdout + done.stderr
