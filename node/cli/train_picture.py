"""`mediqa train simulate --picture FILE.png`: degradations as a labelled sheet, of a simulated patient or of a real slice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.output import WRONG_USE, fail

if TYPE_CHECKING:
    import numpy as np

PictureOption = Annotated[Path | None, typer.Option("--picture", help="Draw degradations of one modality to this PNG instead, on a simulated patient or,"
                                                    " with --data, a real slice.")]
KindOption = Annotated[str | None, typer.Option("--kind", help="The degradation to draw; default: all.")]
SeverityOption = Annotated[list[float] | None, typer.Option("--severity", help="Severity to draw, in the unit of the kind; may be given several times.")]
LARGE = 512
"""Pixels a side of a slice when a single kind is shown, at most."""


def draw(path: Path, data: Path | None, modality: str, kind: str | None, severities: list[float] | None) -> None:
    """Write the sheet of one modality as PNG; `kind` None shows all, `severities` replace the usual three."""
    if modality not in ("CT", "MR", "PT"):
        fail("--picture shows one modality: give --modality CT, MR or PT", WRONG_USE)
    if modality == "PT" and data is not None:
        fail("PET is shown on a simulated patient: leave --data out", WRONG_USE)
    if severities and kind is None:
        fail("--severity needs --kind: each kind has a unit of its own", WRONG_USE)
    from qa_engine.simulation import sheet

    known = sheet.kinds_of(modality)
    if kind is not None and kind not in known:
        fail(f"no degradation {kind} for {modality}; there are {', '.join(known)}", WRONG_USE)
    if data is not None and not (data / "train" / "index.csv").is_file():
        fail(f"no train/index.csv in {data}; give the folder of training data with --data", WRONG_USE)
    from node.report.overlay_canvas import font
    image, spacing_mm, window = _slice(data, modality)
    wanted = {k: severities or sheet.SHOWN[modality, k] for k in ([kind] if kind is not None else known)}
    cell = max(LARGE // 2, min(LARGE, max(image.shape))) if kind is not None else LARGE // 2
    picture = sheet.sheet(image, spacing_mm, modality, wanted, window, lambda size: font(size, False), cell=cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def _slice(data: Path | None, modality: str) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """A slice (H,W) float32, its pixels in mm and the window that shows it."""
    from qa_engine.pictures import ct_window, mr_window
    from qa_engine.simulation.patient_pet import activity
    from qa_engine.training.dataset import load_training_series, simulated_series

    if modality == "PT":
        found, pixel = activity(0)
        return found.numpy(), (pixel, pixel), (0.0, float(found.quantile(0.995)))
    one = load_training_series(data, modality)[0] if data is not None else simulated_series(modality, 1)[0]
    image = one.pixels[len(one.pixels) // 2]
    return image, one.spacing_mm, ct_window("soft tissue", one.region) if modality == "CT" else mr_window(image[None])
