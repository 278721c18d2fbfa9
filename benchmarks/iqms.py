"""Handcrafted measures beside those of the product: MRIQC's definitions where one slice allows them, edge strength, gradients.

MRIQC (Esteban 2017, nipreps/mriqc `anatomical.py`) works on segmented volumes; here the two tissues are the two classes of Otsu inside the
tissue mask and air is what lies outside the body. References: McGee 2000 (gradient entropy), Marchetto 2025 (average edge strength).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from qa_engine.measures.noise import noise_mode
from qa_engine.measures.tissue import smooth

IQM_NAMES = ("snr", "snr_low", "snr_high", "snrd", "cnr", "cjv", "efc", "fber", "qi1", "wm2max", "fwhm_x", "fwhm_y", "inu_range", "entropy_rows",
             "entropy_columns", "tenengrad", "edge_strength", "noise_level", "air_share", "air_zeros")
LOOKS_AT_AIR = ("snrd", "cnr", "efc", "fber", "qi1", "air_share", "air_zeros")
"""Measures that read what lies outside the body, where a simulator leaves its mark first."""
_TINY = 1e-6


def _mad(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values)))) / 0.6745 if len(values) else 0.0


def otsu(values: np.ndarray, bins: int = 128) -> float:
    """Threshold between two classes of a sample."""
    count, edges = np.histogram(values, bins=bins)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count).astype(float)
    total, mass = below[-1], np.cumsum(count * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mass[-1] * below / total - mass) ** 2 / (below * (total - below))
    return float(edges[1:][np.nanargmax(np.where(np.isfinite(between), between, -1.0))])


def sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """(H,W) -> gradients down and across (H-2,W-2), kernel sums of squares 12."""
    row = image[:-2] + 2 * image[1:-1] + image[2:]
    column = image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:]
    return column[2:] - column[:-2], row[:, 2:] - row[:, :-2]


def tenengrad(image: Tensor) -> float:
    """Mean squared Sobel gradient of a slice in measuring units."""
    down, across = sobel(image)
    return float((down.square() + across.square()).mean())


def edge_strength(image: Tensor) -> float:
    """Average edge strength: root of the summed squared gradients at edges over their number. Edges: local maxima along the gradient's main
    direction among the strongest tenth of the smoothed slice (non-maximum suppression and threshold of Canny)."""
    down, across = sobel(smooth(smooth(image[None], 3), 3)[0])
    slope = torch.hypot(down, across)
    inner = slope[1:-1, 1:-1]
    vertical = down.abs()[1:-1, 1:-1] >= across.abs()[1:-1, 1:-1]
    peak = torch.where(vertical, (inner >= slope[:-2, 1:-1]) & (inner >= slope[2:, 1:-1]), (inner >= slope[1:-1, :-2]) & (inner >= slope[1:-1, 2:]))
    flat = slope.flatten()
    edges = peak & (inner >= flat.kthvalue(max(1, int(0.9 * len(flat)))).values) & (inner > 0)
    count = int(edges.sum())
    raw_down, raw_across = sobel(image)
    energy = (raw_down.square() + raw_across.square())[1:-1, 1:-1][edges].sum()
    return math.sqrt(float(energy)) / count if count else 0.0


def _entropy(image: np.ndarray) -> float:
    """Entropy-focus criterion of non-negative values, 0 (one bright pixel) to 1 (all alike)."""
    values = image.ravel().astype(float)
    largest = math.sqrt(float((values ** 2).sum())) + _TINY
    share = values / largest
    return -float((share * np.log(share + 1e-16)).sum()) / (math.sqrt(len(values)) * math.log(math.sqrt(len(values))))


def _width(image: np.ndarray, axis: int, spacing: float) -> float:
    """Full width at half maximum (mm) of a Gaussian texture with the same variance of neighbour differences (AFNI 3dFWHMx)."""
    ratio = float(np.diff(image, axis=axis).var()) / (2 * float(image.var()) + _TINY)
    return 2.3548 * spacing * math.sqrt(-1.0 / (4.0 * math.log(max(1e-6, 1.0 - min(ratio, 0.999999))))) if ratio > 0 else 30.0


def iqms(unit: Tensor, mask: Tensor, spacing_mm: tuple[float, float], modality: str) -> np.ndarray:
    """One slice (H,W) in measuring units with its tissue mask -> (len(IQM_NAMES),), amounts as logarithms where they are ratios."""
    image = unit.numpy().astype(float)
    image = image + 1024.0 if modality == "CT" else image  # MRIQC's ratios want air at zero
    inside = mask.numpy()
    calm = smooth(unit[None], 9)[0].numpy() + (1024.0 if modality == "CT" else 0.0)
    air = calm < (300.0 if modality == "CT" else 80.0)
    tissue, outside = image[inside], image[air]
    threshold = otsu(tissue)
    low, high = tissue[tissue <= threshold], tissue[tissue > threshold]
    low, high = (one if len(one) > 8 else tissue for one in (low, high))
    m_low, m_high, spread_air = float(np.median(low)), float(np.median(high)), _mad(outside)

    def ratio(a: float, b: float) -> float:
        return math.log(max(a, _TINY) / max(b, _TINY))

    rows, columns = np.diff(image, axis=0), np.diff(image, axis=1)
    found = {
        "snr": ratio(float(np.median(tissue)), float(tissue.std())), "snr_low": ratio(m_low, float(low.std())),
        "snr_high": ratio(m_high, float(high.std())),
        "snrd": ratio(0.655 * float(np.median(tissue)), spread_air if spread_air > 1 else float(outside.std()) if len(outside) else 0.0),
        "cnr": ratio(abs(m_high - m_low), math.sqrt(float(low.var() + high.var()) + (float(outside.var()) if len(outside) else 0.0))),
        "cjv": ratio(_mad(low) + _mad(high), abs(m_high - m_low)), "efc": _entropy(np.abs(image)),
        "fber": ratio(float(np.median(tissue ** 2)), float(np.median(outside ** 2)) if len(outside) else 0.0),
        "qi1": float((outside > np.median(outside) + 10 * max(spread_air, _TINY)).mean()) if len(outside) else 0.0,
        "wm2max": ratio(m_high, float(np.quantile(image, 0.9995))), "fwhm_x": _width(image, 1, spacing_mm[1]),
        "fwhm_y": _width(image, 0, spacing_mm[0]),
        "inu_range": float(np.subtract(*np.quantile(calm[inside], [0.95, 0.05]))) / max(float(np.median(calm[inside])), _TINY),
        "entropy_rows": _entropy(np.abs(rows)), "entropy_columns": _entropy(np.abs(columns)), "tenengrad": math.log(tenengrad(unit) + _TINY),
        "edge_strength": math.log(edge_strength(unit) + _TINY), "noise_level": math.log(float(noise_mode(unit[None], mask[None])[0]) + _TINY),
        "air_share": float(air.mean()), "air_zeros": float((outside == outside.min()).mean()) if len(outside) else 1.0,
    }
    return np.nan_to_num(np.array([found[name] for name in IQM_NAMES], np.float32), nan=0.0, posinf=30.0, neginf=-30.0)
