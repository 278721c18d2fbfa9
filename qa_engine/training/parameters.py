"""Physical parameters of the acquisition as targets of the pre-training (MedIQA stage one, arXiv 2507.19004); never inputs of a score.

Amounts are logarithms; the kernel is -1 soft, 0 standard, 1 sharp; what a header lacks is NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np

PARAMETERS = ("log_mas", "log_kv", "kernel", "log_thickness", "log_field", "log_te", "log_tr", "log_ti", "flip")
OF_THE_SCAN_ALONE = frozenset({"log_mas", "kernel"})
"""What damage makes untrue: a slice with added noise or blur no longer looks like its tube current and kernel."""
_LOGARITHMS = {"mas": "log_mas", "kv": "log_kv", "slice_thickness_mm": "log_thickness", "field_strength_t": "log_field", "te_ms": "log_te",
               "tr_ms": "log_tr", "ti_ms": "log_ti"}
_KERNELS = {"SOFT": -1.0, "STANDARD": 0.0, "STD+": 0.0, "LUNG": 1.0, "BONE": 1.0, "BONEPLUS": 1.0, "EDGE": 1.0, "RAM-LAK": 1.0, "A": -1.0,
            "UA": -1.0, "B": 0.0, "UB": 0.0, "C": 1.0, "YA": 1.0, "YB": 1.0, "D": 1.0}
_NUMBERED = re.compile(r"(?:B|H|T|U|[BHQ][a-z])(\d\d)")
SOFT_BELOW, SHARP_FROM = 30, 46
"""Of the numbers in Siemens kernel names."""


def kernel_sharpness(kernel: str) -> float:
    """-1 soft, 0 standard, 1 sharp; NaN for a name that is not known."""
    found = _NUMBERED.match(kernel.strip())
    if found is None:
        return _KERNELS.get(kernel.strip().upper(), math.nan)
    number = int(found[1])
    return -1.0 if number < SOFT_BELOW else 1.0 if number >= SHARP_FROM else 0.0


def parameters_of(row: Mapping[str, str]) -> dict[str, float]:
    """Those of one row of an index file, only what is there and above 0."""
    found = {}
    for column, name in _LOGARITHMS.items():
        try:
            value = float(row.get(column) or 0)
        except ValueError:
            continue
        if value > 0:
            found[name] = math.log(value)
    try:
        found["flip"] = float(row.get("flip_deg") or math.nan)
    except ValueError:
        pass
    found["kernel"] = kernel_sharpness(row.get("kernel") or "")
    return {k: v for k, v in found.items() if math.isfinite(v)}


def vector(parameters: Mapping[str, float], clean: bool) -> np.ndarray:
    """(len(PARAMETERS),) float32 with NaN where nothing is known; `clean`: the slice is as it was received."""
    return np.array([parameters.get(name, math.nan) if clean or name not in OF_THE_SCAN_ALONE else math.nan for name in PARAMETERS], np.float32)
