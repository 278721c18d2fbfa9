"""A labelled sheet of what degradations look like: one row a kind, the slice as it came and three severities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from qa_engine.resample import square_pixels
from qa_engine.simulation.degradations import KINDS, AddedDamage, degrade

SHOWN: dict[tuple[str, str], tuple[float, float, float]] = {
    ("CT", "noise"): (10, 25, 60), ("CT", "dose"): (0.5, 0.2, 0.05), ("CT", "blur"): (1.2, 2.5, 4.5), ("CT", "streak"): (8, 20, 50),
    ("CT", "ring"): (5, 15, 40), ("CT", "motion"): (15, 40, 80), ("CT", "metal"): (10, 30, 80), ("CT", "cupping"): (5, 15, 30),
    ("CT", "kernel"): (0.6, 1.5, 2.5), ("PT", "counts"): (2, 5, 20),
    ("MR", "noise"): (0.03, 0.08, 0.2), ("MR", "coils"): (0.03, 0.08, 0.2), ("MR", "lowfield"): (0.5, 0.2, 0.05), ("MR", "blur"): (1, 2, 4),
    ("MR", "motion"): (0.04, 0.1, 0.25), ("MR", "ghost"): (0.05, 0.12, 0.3), ("MR", "undersampling"): (0.04, 0.1, 0.2),
    ("MR", "wrap"): (0.1, 0.2, 0.4), ("MR", "spike"): (0.1, 0.3, 1.0), ("MR", "gibbs"): (0.7, 0.5, 0.3), ("MR", "bias"): (1.5, 2.5, 5.0),
}
"""Severities that are shown, from mild to strong, in the units of KINDS."""
GAP, HEAD, LABEL, LETTERS = 8, 34, 22, 15
BACKGROUND, TEXT, MUTED = (16, 18, 22), (240, 240, 240), (172, 179, 189)
Face = Callable[[int], ImageFont.FreeTypeFont | ImageFont.ImageFont]


def kinds_of(modality: str) -> list[str]:
    """Kinds that a sheet of the modality shows."""
    return [kind for m, kind in KINDS if m == modality]


def told(damage: AddedDamage, modality: str) -> str:
    """What was truly added, in words."""
    share, unit = (1.0, "HU") if modality == "CT" else (100.0 / float(damage.signal[0]), "%")
    amounts = (("noise", float(damage.noise_sd[0]) * share, unit), ("width", float(damage.width_mm[0]), "mm"),
               ("artefact", float(damage.artefact[0]) * share, unit), ("bias", float(damage.bias[0]), ""))
    none = {"bias": 1.0}
    return ", ".join(f"{name} {value:.0f} {unit}" if value >= 10 else f"{name} {value:.2g} {unit}"
                     for name, value, unit in amounts if value > none.get(name, 0.0)).rstrip() or "nothing"


def sheet(image: np.ndarray, spacing_mm: tuple[float, float], modality: str, wanted: Mapping[str, Sequence[float]], window: tuple[float, float],
          face: Face, seed: int = 0, cell: int = 256) -> Image.Image:
    """RGB picture of (H,W) float32: a row for each kind of `wanted` with its severities, cells of `cell` pixels, letters from `face`."""
    source, spacing = torch.from_numpy(image)[None], torch.tensor([spacing_mm], dtype=torch.float32)
    columns = 1 + max(len(severities) for severities in wanted.values())
    picture = Image.new("RGB", (GAP + columns * (cell + GAP), GAP + len(wanted) * (HEAD + cell + LABEL + GAP)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for row, (kind, severities) in enumerate(wanted.items()):
        top = GAP + row * (HEAD + cell + LABEL + GAP)
        draw.text((GAP, top + 6), f"{kind}: {KINDS[modality, kind]}", fill=TEXT, font=face(LETTERS + 4))
        for column, severity in enumerate((None, *severities)):
            changed, damage = degrade(kind if severity is not None else "identity", source, spacing, torch.tensor([float(severity or 0)]),
                                      torch.Generator().manual_seed(seed), modality)
            left = GAP + column * (cell + GAP)
            picture.paste(_grey(changed[0], spacing_mm, window, cell), (left, top + HEAD))
            words = "as it came" if severity is None else f"{severity:g}: {told(damage, modality)}"
            draw.text((left, top + HEAD + cell + 2), words, fill=MUTED, font=face(LETTERS))
    return picture


def _grey(image: Tensor, spacing_mm: tuple[float, float], window: tuple[float, float], cell: int) -> Image.Image:
    """One slice through the window, square pixels, centred in a cell."""
    low, high = window
    square = square_pixels(image.numpy(), spacing_mm)
    grey = Image.fromarray(np.clip((square - low) / (high - low) * 255.0, 0, 255).astype(np.uint8))
    factor = cell / max(grey.size)
    size = (max(1, round(grey.width * factor)), max(1, round(grey.height * factor)))
    found = Image.new("L", (cell, cell))
    found.paste(grey.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST),
                ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return found
