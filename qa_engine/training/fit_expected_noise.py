"""Fits the constants of `qa_engine/expected_noise.py` to real scans: python -m qa_engine.training.fit_expected_noise ../shared/data

Recorded Exposure, thickness, kV and kernel come from the index beside the data, noise and diameter from the pixels. Series of vendors whose Exposure
is no tube current-time product (GE records other amounts) and cropped images are left out. The factor is the 90 % quantile of the errors of subjects
that were left out of the fit, one error per subject.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from qa_engine.body import find_body, water_equivalent_diameter
from qa_engine.expected_noise import TABLE, Constants, Exposure, expected_noise, kernel_number
from qa_engine.measures import normalised
from qa_engine.measures.physics import WITNESS, physics_of
from qa_engine.training.dataset import load_training_series

OTHER_EXPOSURE = ("GE",)
"""Beginnings of manufacturers whose Exposure (0018,1152) is not mAs per slice."""
Row = tuple[str, Exposure, float]
"""Subject, scan, measured noise in HU."""


def rows(data: Path) -> list[Row]:
    """Shippable patients of the index with all that counts."""
    with (data / "train" / "index.csv").open(encoding="utf-8") as file:
        index = {Path(r["file"]).stem: r for r in csv.DictReader(file)}
    found = []
    for one in load_training_series(data, "CT"):
        line, sharp = index[one.name], kernel_number(one.kernel)
        if one.cropped or sharp is None or line["manufacturer"].startswith(OTHER_EXPOSURE) or not all(line[k] for k in ("mas", "kv", "slice_thickness_mm")):
            continue
        diameter = water_equivalent_diameter([find_body(image, one.spacing_mm, "CT") for image in one.pixels])
        if diameter is None:
            continue
        logs = []
        for image in one.pixels:
            unit, mask, _ = normalised(torch.from_numpy(image)[None], "CT")
            logs.append(math.log(float(physics_of(unit, mask, torch.tensor([one.spacing_mm]), "CT").noise) * WITNESS))
        scan = Exposure(float(line["mas"]), float(line["slice_thickness_mm"]), float(line["kv"]), sharp, diameter)
        found.append((one.subject, scan, math.exp(float(np.median(logs)))))
    return found


def solve(found: list[Row]) -> tuple[float, float, float]:
    """level, per_mm, per_number by least squares on logarithms."""
    unit = Constants(0.0, 0.0, 0.0, 1.0)
    left = [math.log(noise / expected_noise(scan, unit)) for _, scan, noise in found]
    right = [[1.0, scan.diameter_mm, scan.kernel - 30.0] for _, scan, _ in found]
    level, per_mm, per_number = np.linalg.lstsq(np.array(right), np.array(left), rcond=None)[0]
    return float(level), float(per_mm), float(per_number)


def fit(found: list[Row]) -> dict[str, float]:
    """Constants of all rows, factor and median error by leaving one subject out at a time."""
    errors: dict[str, list[float]] = defaultdict(list)
    for subject in sorted({s for s, _, _ in found}):
        table = Constants(*solve([r for r in found if r[0] != subject]), 1.0)
        errors[subject] = [abs(math.log(noise / expected_noise(scan, table))) for s, scan, noise in found if s == subject]
    per_subject = [float(np.median(e)) for e in errors.values()]
    level, per_mm, per_number = solve(found)
    return {"level": round(level, 4), "per_mm": round(per_mm, 6), "per_number": round(per_number, 5),
            "factor": round(math.exp(float(np.quantile(per_subject, 0.9, method="higher"))), 3),
            "median_error": round(math.exp(float(np.median(per_subject))) - 1.0, 3), "series": len(found), "subjects": len(errors)}


if __name__ == "__main__":
    TABLE.write_text(json.dumps(fit(rows(Path(sys.argv[1]))), indent=1) + "\n", encoding="utf-8")
    print(TABLE.read_text(encoding="utf-8"))
