#!/usr/bin/env python3
"""People's ratings without images: what MRIQC's measures say of them, and whether our slice-wise measures follow those closely enough.

`benchmarks/ratings.py [--labels DIR] [--data DIR] [--json]`. Boosting from the public tables to the raters' words, whole sites (ABIDE, then ds030
unseen) or whole people (MR-ART) left out: an anchor of what such measures can reach, not a figure of our network, which never saw these
scans. Then the measures of `benchmarks.iqms` on our own T1 heads against the tables' range.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.baselines import boosted  # noqa: E402
from benchmarks.iqms import IQM_NAMES, iqms  # noqa: E402
from benchmarks.metrics import auc, rows_by, srcc  # noqa: E402
from qa_engine.measures import normalised  # noqa: E402
from qa_engine.training.dataset import load_training_series  # noqa: E402

SHARED = {"snr": "snr_total", "snr_low": "snr_gm", "snr_high": "snr_wm", "snrd": "snrd_total", "cnr": "cnr", "cjv": "cjv", "efc": "efc", "fber": "fber",
          "qi1": "qi_1", "wm2max": "wm2max", "fwhm_x": "fwhm_x", "fwhm_y": "fwhm_y"}
"""Our measure -> MRIQC's with the same definition, but for the slice and the segmentation."""
PLAIN = ("efc", "qi1", "fwhm_x", "fwhm_y")
"""Those of ours that are no logarithm."""
FOLLOWS = 0.5
"""Share of our heads inside the middle 90 % of a table's column from which on a measure counts as following it."""
LEAST_FOLLOWING = 0.75
NOT_MEASURES = ("subject_id", "site", "rater_1", "rater_2", "rater_3", "has_ghost", "bids_name")


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a tab-separated table: floats where every entry is a number or n/a, texts otherwise."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = {}
    for name in rows[0]:
        texts = [row[name] for row in rows]
        try:
            found[name] = np.array([float(t) if t not in ("", "n/a") else np.nan for t in texts])
        except ValueError:
            found[name] = np.array(texts)
    return found


def measures_of(table: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
    """(N, len(names)) of a table."""
    return np.stack([table[name] for name in names], 1)


def left_out(features: np.ndarray, target: np.ndarray, unit: np.ndarray, folds: int | None = None) -> np.ndarray:
    """Answer for each row by boosting on the other units (sites, people), each unit alone or dealt into `folds`."""
    names = list(dict.fromkeys(unit.tolist()))
    fold = {name: k % (folds or len(names)) for k, name in enumerate(names)}
    number = np.array([fold[one] for one in unit.tolist()])
    score = np.full(len(target), np.nan)
    for k in range(max(number) + 1):
        score[number == k] = boosted(features, target, np.flatnonzero(number != k), np.flatnonzero(number == k))
    return score


def rating_figures(score: np.ndarray, rating: np.ndarray) -> dict[str, float]:
    """Rank correlation, AUC of accepted against excluded."""
    return {"n": len(rating), "srcc": round(srcc(score, rating), 3), "auc_exclude": round(auc(score[rating > 0], score[rating < 0]), 3)}


def anchors(labels: Path) -> dict[str, Any]:
    """Boosting from all measures, and from those that we have as well, to the ratings."""
    abide, ds030 = (read_table(labels / f"mriqc_{name}_iqms_ratings.tsv") for name in ("abide", "ds030"))
    every = [n for n in abide if n not in NOT_MEASURES and n in ds030 and abide[n].dtype.kind == "f" and not n.startswith(("size", "spacing"))]
    ours = [n for n in dict.fromkeys(SHARED.values()) if n in every]
    found: dict[str, Any] = {"measures": len(every), "shared": len(ours)}
    for name, columns in (("all", every), ("shared", ours)):
        features, rated = measures_of(abide, columns), np.isfinite(abide["rater_1"]) | np.isfinite(abide["rater_2"])
        ratings = np.stack([abide["rater_1"], abide["rater_2"]])
        mean = np.nansum(ratings, 0) / np.maximum(np.isfinite(ratings).sum(0), 1)
        score = left_out(features[rated], mean[rated], abide["site"][rated])
        within = [srcc(score[g], mean[rated][g]) for g in rows_by(abide["site"][rated]) if len(g) > 9 and len(set(mean[rated][g])) > 1]
        found[f"ABIDE, sites left out, {name}"] = rating_figures(score, mean[rated]) | {"srcc_within_site": round(float(np.mean(within)), 3)}
        both = np.concatenate([features[rated], measures_of(ds030, columns)])
        split = int(rated.sum())
        target = np.concatenate([mean[rated], ds030["rater_1"]])
        score = boosted(both, target, np.arange(split), np.arange(split, len(both)))
        found[f"ABIDE to ds030, {name}"] = rating_figures(score, ds030["rater_1"])
    scores, table = read_table(labels / "mrart_ds004173_scores.tsv"), read_table(labels / "mrart_ds004173_mriqc_group_T1w.tsv")
    order = {str(name): k for k, name in enumerate(scores["bids_name"])}
    rating = 2.0 - np.array([scores["score"][order[str(name)]] for name in table["bids_name"]])
    person = np.array([str(name).split("_")[0] for name in table["bids_name"]])
    numbers = [n for n in table if n not in NOT_MEASURES and table[n].dtype.kind == "f"]
    for name, columns in (("all", numbers), ("shared", [n for n in dict.fromkeys(SHARED.values()) if n in numbers])):
        found[f"MR-ART, people left out, {name}"] = rating_figures(left_out(measures_of(table, columns), rating, person, 5), rating)
    return found


def closeness(labels: Path, data: Path) -> dict[str, Any]:
    """Share of our T1 heads whose slice-wise measure lies within the 5 to 95 % quantiles of ABIDE, for each shared measure."""
    abide = read_table(labels / "mriqc_abide_iqms_ratings.tsv")
    rows = []
    for one in load_training_series(data, "MR"):
        if one.region != "head" or not one.contrast.upper().startswith("T1"):
            continue
        unit, mask, _ = normalised(torch.from_numpy(one.pixels[len(one.pixels) // 2])[None], "MR")
        row = dict(zip(IQM_NAMES, iqms(unit[0], mask[0], (1.0, 1.0), "MR"), strict=True))  # MRIQC's widths are in voxels
        rows.append([row[n] if n in PLAIN else np.exp(row[n]) for n in SHARED])
    if not rows:
        return {"heads": 0}
    values = np.array(rows)
    found: dict[str, Any] = {"heads": len(rows)}
    for k, (name, theirs) in enumerate(SHARED.items()):
        low, middle, high = np.nanquantile(abide[theirs], [0.05, 0.5, 0.95])
        found[name] = {"inside": round(float(np.mean((values[:, k] >= low) & (values[:, k] <= high))), 2), "ours": round(float(np.median(values[:, k])), 3),
                       "ABIDE": round(float(middle), 3)}
    following = np.mean([row["inside"] >= FOLLOWS for row in found.values() if isinstance(row, dict)])
    found["following"] = round(float(following), 2)
    found["mapping"] = "close enough" if following >= LEAST_FOLLOWING else "not close enough: no mapping to these ratings is fitted"
    return found


def print_tables(found: dict[str, Any]) -> None:
    """Both parts."""
    console = Console(width=120)
    table = Table("ratings", "scans", "SRCC", "SRCC within a site", "AUC accept / exclude", title="MRIQC's measures, boosted (an anchor, not our network)")
    for name, row in found["anchors"].items():
        if isinstance(row, dict):
            table.add_row(name, str(row["n"]), str(row["srcc"]), str(row.get("srcc_within_site", "")), str(row["auc_exclude"]))
    console.print(table)
    close = found["closeness"]
    table = Table("measure", "median, ours", "median, ABIDE", "ours inside its 5-95 %", title=f"our slice-wise measures on {close['heads']} T1 heads")
    for name, row in close.items():
        if isinstance(row, dict):
            table.add_row(name, str(row["ours"]), str(row["ABIDE"]), str(row["inside"]))
    console.print(table)
    console.print(close.get("mapping", ""))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = Path(os.environ.get("MEDIQA_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--labels", type=Path, default=data / "labels")
    parser.add_argument("--data", type=Path, default=data / "train")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not (args.labels / "mriqc_abide_iqms_ratings.tsv").is_file():
        print(f"no mriqc_abide_iqms_ratings.tsv in {args.labels}; give the folder of rating tables with --labels", file=sys.stderr)
        return 2
    found = {"anchors": anchors(args.labels), "closeness": closeness(args.labels, args.data)}
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        print_tables(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
