"""Noise that a CT protocol suggests: tube output, slice thickness, kernel and body size, as a number to compare the measured noise with.

ln(noise) = level - 1/2 ln(mAs x thickness x (kV / 120)^2.5) + per_mm x water-equivalent diameter + per_number x (kernel number - 30): quantum
noise falls with the root of what the detector counts, and the body takes its share away (AAPM Report 220 for the diameter). Three constants are
fitted to real scans (`qa_engine/training/fit_expected_noise.py`). It holds for soft-tissue kernels of the body that carry a number (B30f, Br38f,
59 .10.AB50); named kernels and bodies that the image cuts off are outside, and then nothing is said.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qa_engine.assessment import Quantity

TABLE = Path(__file__).with_name("weights") / "expected_noise.json"
OUTPUT_POWER = 2.5
"""Of the tube voltage, in what the detector counts (Huda 2000 has 2 to 3 between 80 and 140 kV)."""
NUMBERS = (10.0, 50.0)
_NUMBER = re.compile(r"(?:^|[^0-9A-Za-z])A?B[a-z]?(\d\d)[a-z]?(?:$|[^0-9])")


@dataclass(frozen=True)
class Constants:
    """See the module; `factor`: nine of ten patients lie within this factor of what is expected."""

    level: float
    per_mm: float
    per_number: float
    factor: float


@dataclass(frozen=True)
class Exposure:
    """What counts of one series: mAs per slice, mm, kV, number of the kernel, water-equivalent diameter in mm."""

    mas: float
    thickness_mm: float
    kv: float
    kernel: float
    diameter_mm: float


@cache
def constants(path: Path = TABLE) -> Constants:
    """The fitted ones."""
    row = json.loads(path.read_text(encoding="utf-8"))
    return Constants(*(float(row[name]) for name in ("level", "per_mm", "per_number", "factor")))


def expected_noise(scan: Exposure, table: Constants) -> float:
    """HU."""
    counts = scan.mas * scan.thickness_mm * (scan.kv / 120.0) ** OUTPUT_POWER
    return math.exp(table.level - 0.5 * math.log(counts) + table.per_mm * scan.diameter_mm + table.per_number * (scan.kernel - 30.0))


def kernel_number(kernel: str) -> float | None:
    """B30f -> 30, Br38f/3 -> 38, None for a kernel without such a number or one that is not for soft tissue."""
    found = _NUMBER.search(f" {kernel.strip()} ")
    number = None if found is None else float(found.group(1))
    return number if number is not None and NUMBERS[0] <= number <= NUMBERS[1] else None


def exposure_of(acquisition: Mapping[str, Quantity], diameter_mm: float | None) -> Exposure | None:
    """From the parameters of the series; None where one that counts is missing.

    The tube current-time product per slice: mAs over pitch where the pitch is known, else mAs per rotation.
    """
    def number(*names: str) -> float | None:
        values = [acquisition[n].value for n in names if n in acquisition]
        return float(values[0]) if values and not isinstance(values[0], str) else None

    kernel = acquisition.get("ConvolutionKernel")
    mas, thickness, kv = number("EffectiveTubeCurrentTimeProduct", "TubeCurrentTimeProduct"), number("SliceThickness"), number("KVP")
    sharp = None if kernel is None else kernel_number(str(kernel.value))
    if mas is None or thickness is None or kv is None or sharp is None or diameter_mm is None or min(mas, thickness, kv) <= 0:
        return None
    return Exposure(mas, thickness, kv, sharp, diameter_mm)
