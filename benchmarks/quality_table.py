"""The quality benchmark as tables on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

MODALITIES = ("ct", "mr")


def _text(value: Any) -> str:
    if value is None or value == {}:
        return "not run"
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def _with_interval(row: dict[str, Any], key: str) -> str:
    interval = row.get(f"{key}_interval")
    return _text(row.get(key)) + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def methods_table(found: dict[str, Any], modality: str, split: str) -> Table:
    """One row per method."""
    words = "folds by subject" if split == "subject" else "whole sources left out"
    table = Table(title=f"{modality.upper()}: Q of the known physics, {words}", title_justify="left")
    for name in ("method", "subjects", "SRCC [95 %]", "PLCC", "KROCC", "pairs in order", "mild, same slice [95 %]", "mild, across"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for name, row in found["modalities"][modality]["methods"][split].items():
        if not row:
            table.add_row(name, *["not run"] * 7)
            continue
        table.add_row(name, str(row["subjects"]), _with_interval(row, "srcc"), _text(row["plcc"]), _text(row["krocc"]), _text(row["pairs"]),
                      _with_interval(row, "auc_mild"), _text(row["auc_across"]))
    return table


def ours_table(found: dict[str, Any]) -> Table:
    """What is said of our network alone, a column per modality."""
    table = Table(title="ours", title_justify="left")
    table.add_column("figure")
    present = [m for m in MODALITIES if m in found["modalities"]]
    for modality in present:
        table.add_column(modality.upper(), justify="right")

    def add(label: str, *path: str) -> None:
        cells = []
        for modality in present:
            value: Any = found["modalities"][modality]
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            cells.append(_text(value))
        table.add_row(label, *cells)

    add("subjects", "subjects")
    add("slices", "slices")
    add("median error of noise, by subject", "axes", "subject", "noise")
    add("median error of width, by subject", "axes", "subject", "width")
    add("median error of noise, source out", "axes", "source", "noise")
    add("median error of width, source out", "axes", "source", "width")
    add("SRCC of noise", "axes", "subject", "noise_srcc")
    add("SRCC of width", "axes", "subject", "width_srcc")
    add("SRCC of artefact", "axes", "subject", "artefact_srcc")
    add("interval: subjects", "coverage", "subjects")
    add("interval: observed coverage at 90 %", "coverage", "observed")
    add("interval: one-sided 95 % upper bound", "coverage", "upper_95")
    add("interval: median width", "coverage", "median_width")
    add("mild across subjects: bound for noise", "bounds", "noise")
    add("mild across subjects: bound for width", "bounds", "width")
    add("SRCC of series", "ablations", "series_srcc")
    add("  constant slice weights", "ablations", "constant_weights_srcc")
    add("  one slice", "ablations", "one_slice_srcc")
    add("SRCC without fingerprint measures", "ablations", "no_fingerprints_srcc")
    add("SRCC with prompts unknown", "ablations", "unknown_prompts_srcc")
    add("mean move of Q with prompts unknown", "ablations", "unknown_prompts_move")
    add("order as HaarPSI within a slice", "likeness", "haarpsi")
    add("order as VIF within a slice", "likeness", "vif")
    for group, label in (("by_kind", "pairs in order"), ("foreign", "unseen damage in order"), ("by_region", "SRCC")):
        names = dict.fromkeys(n for m in present for n in found["modalities"][m].get(group, {}))
        for name in names:
            inner = {"by_kind": ("pairs",), "foreign": (), "by_region": ("srcc",)}[group]
            add(f"{label}: {name}", group, name, *inner)
    return table


def evidence_table(found: dict[str, Any]) -> Table:
    """Pairs, slabs, slice counts and abstention."""
    table = Table(title="real pairs, slabs, abstention", title_justify="left")
    for name in ("what", "right", "of"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name, row in found["pair_details"].items():
        table.add_row(f"{name}: {row['axis']}", str(row["right"]), str(row["total"]))
    witness = found.get("noise_witness") or {}
    if witness:
        table.add_row(f"noise of CT against the difference of neighbours, {witness['series']} series: SRCC", _text(witness["srcc"]), "")
        table.add_row("  its median share of the mode", _text(witness["ratio"]), "")
    slab = found.get("slabs") or {}
    if slab.get("total"):
        table.add_row("damaged slab between salient slices: scored", str(slab["scored"]), str(slab["total"]))
        table.add_row("  and named as the worst slice", str(slab["worst_slice"]), str(slab["total"]))
    for name, row in (found.get("abstention") or {}).items():
        table.add_row(f"no number: {name}", str(row["total"] - row["numbered"]), str(row["total"]))
    counts = found.get("slice_counts") or {}
    if counts.get("series"):
        table.add_row(f"Q by salient slices against all, {counts['series']} real series: mean distance", _text(counts["salient_to_all"]), "points")
        table.add_row("Q by the middle slice against all", _text(counts["one_to_all"]), "points")
    return table


def print_tables(found: dict[str, Any]) -> None:
    """Everything, to stdout."""
    console = Console(width=150)
    for note in found["notes"]:
        console.print(f"* {note}", highlight=False)
    for modality in MODALITIES:
        for split in ("subject", "source"):
            if modality in found["modalities"] and found["modalities"][modality]["methods"].get(split):
                console.print(methods_table(found, modality, split))
    console.print(ours_table(found))
    console.print(evidence_table(found))
