"""The tables of docs/model-card.md, made from the card beside the weights and from the envelope; a test holds the page equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qa_engine.envelope import LEAST_SUBJECTS

LABELS = (("subjects", "subjects"), ("srcc_slice", "SRCC of Q, slices"), ("srcc_series", "SRCC of Q, series"),
          ("pairs", "pairs of one slice in the right order"))
INTERVAL = (("coverage", "coverage of the 90 % interval"), ("median_width", "median width of the interval, points"))


def figures(card: Mapping[str, Any]) -> str:
    """Markdown table of the evaluation on subjects that the fold's network never saw, and with whole sources left out."""
    found = card["calibration"]
    lines = ["| on subjects that the network of the fold never saw | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    lines += [f"| {label} | " + " | ".join(str(row[key]) for row in found.values()) + " |" for key, label in LABELS]
    lines += [f"| {label} | " + " | ".join(str(row["interval_left_out"][key]) for row in found.values()) + " |" for key, label in INTERVAL]
    lines += [f"| {label}, whole sources left out | " + " | ".join(str(row["source_left_out"][key]) for row in found.values()) + " |"
              for key, label in LABELS[1:3] if all("source_left_out" in row for row in found.values())]
    lines += [f"| median error of {axis} | " + " | ".join(f"{100 * row['median_error'][axis]:.1f} %" for row in found.values()) + " |"
              for axis in ("noise", "width")]
    lines.append("| true Q, 5 / 25 / 50 / 75 / 95 % quantile | " + " | ".join(" / ".join(str(v) for v in row["true_quantiles"]) for row in found.values())
                 + " |")
    return "\n".join(lines)


def cells(table: Mapping[str, int]) -> str:
    """Markdown table of the cells of the envelope (2D and 3D count the same subjects)."""
    lines = ["| modality | region | subjects | scored |", "|---|---|---|---|"]
    for cell, count in table.items():
        modality, region, dimension = cell.split("/")
        if dimension == "3D":
            lines.append(f"| {modality} | {region} | {count} | {'yes' if count >= LEAST_SUBJECTS else 'no'} |")
    return "\n".join(lines)
