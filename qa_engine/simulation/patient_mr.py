"""A simulated head MR: tissue maps with PD, T1, T2, spin-echo signal, coil sensitivity, complex noise in k-space.

Signal = PD (1 - exp(-TR/T1)) exp(-TE/T2); T1 and T2 near those published for 1.5 T (white matter 600/80 ms, grey matter 950/100 ms,
cerebrospinal fluid 4000/2000 ms, fat 260/80 ms).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qa_engine.simulation.patient_ct import texture

FIELD_MM = 230.0
TR_MS, TE_MS = 550.0, 12.0
TISSUES = {"air": (0.0, 1000.0, 50.0), "fat": (0.95, 260.0, 80.0), "bone": (0.08, 500.0, 5.0), "csf": (1.0, 4000.0, 2000.0),
           "grey": (0.82, 950.0, 100.0), "white": (0.70, 600.0, 80.0), "deep": (0.80, 820.0, 90.0), "muscle": (0.75, 900.0, 40.0),
           "marrow": (0.7, 320.0, 60.0)}
"""Proton density, T1 and T2 in ms."""
SCALE = 900.0
NOISE = 7.0
"""Standard deviation per channel at full signal, stored units: signal to noise about 40 in white matter."""


def spin_echo(tissue: str, tr: float = TR_MS, te: float = TE_MS) -> float:
    """Signal of a tissue, stored units."""
    density, t1, t2 = TISSUES[tissue]
    return SCALE * density * (1 - math.exp(-tr / t1)) * math.exp(-te / t2)


def _head(x: Tensor, y: Tensor, t: float, folds: Tensor) -> Tensor:
    """Signal of one axial slice at height t (0 base, 1 vertex)."""
    scale = math.sqrt(max(0.16, 1 - (max(0.0, t - 0.25) / 0.86) ** 2))
    a, b = 74 * scale, 93 * scale
    radius = torch.hypot(x / a, y / b)
    angle = torch.atan2(y / b, x / a)
    image = torch.full_like(x, spin_echo("air"))

    def paint(inside: Tensor, tissue: str) -> None:
        image[inside] = spin_echo(tissue)

    paint(radius < 1.0, "fat")
    paint(radius < 0.945, "bone")
    paint((radius < 0.93) & (radius > 0.905), "marrow")
    paint(radius < 0.885, "csf")
    ripple = sum(float(f[0]) * torch.sin((9 + 4 * n) * angle + 6.3 * float(f[1]) + 9 * t * float(f[2]))
                 for n, f in enumerate(folds[:6]))
    fissure = (x.abs() < 1.6 + 0.5 * torch.sin(y / 9)) & (radius < 0.9) & ((y.abs() > 28 * scale) | (t > 0.62))
    cortex = 0.86 + 0.022 * ripple
    sulcus = torch.sin(23 * angle + 5 * t + 4 * ripple) > 0.93
    brain = (radius < cortex) & ~(sulcus & (radius > 0.62))
    paint(brain, "grey")
    inner = radius < cortex - 0.085 - 0.035 * torch.sin(17 * angle + 3 * ripple)
    paint(brain & inner & ~(sulcus & (radius > 0.5)), "white")
    paint(fissure & (radius < 0.9), "csf")
    if t < 0.72:
        for side in (-1, 1):
            bend = 0.09 * side
            horn = (torch.hypot((x - side * (9 + y * bend)) / 5.5, (y + 4) / (30 * scale)) < 1) & (t > 0.25)
            paint(horn, "csf")
            for cy, ra, rb in ((-12.0, 7.0, 11.0), (14.0, 10.0, 13.0)):
                deep = torch.hypot((x - side * 22) / ra, (y - cy) / rb) < 1
                paint(deep & (t > 0.2) & ~horn, "deep")
    if t < 0.3:
        for side in (-1, 1):
            paint(torch.hypot((x - side * 30) / 13, (y + 74 * scale) / 13) < 1, "csf")
            paint(torch.hypot((x - side * 30) / 16, (y + 56 * scale) / 11) < 1, "fat")
            paint(torch.hypot((x - side * 26) / 22, (y - 48 * scale) / 24) < 1, "grey")
        paint(torch.hypot(x / 13, (y - 16) / 12) < 1, "white")
    return image


def anatomy(slices: int, size: int, seed: int) -> Tensor:
    """Noiseless signal (S, size, size), twice supersampled."""
    fine = 2 * size
    axis = (torch.arange(fine) + 0.5) / fine * FIELD_MM - FIELD_MM / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    person = torch.Generator().manual_seed(seed)
    folds = torch.rand((6, 3), generator=person) * 0.9 + 0.1
    lean = 0.03 * float(torch.randn((), generator=person))
    grain, bias = texture((fine, fine), 70, person), texture((fine, fine), 3, person)
    found = []
    for k in range(slices):
        image = _head(x + lean * y, y, k / max(1, slices - 1), folds)
        image = image * (1 + 0.02 * grain) * (1 + 0.06 * bias.clamp(-2, 2))
        found.append(torch.nn.functional.avg_pool2d(image[None, None], 2)[0, 0])
    return torch.stack(found)


def scan(signal: Tensor, dose: float, seed: int) -> Tensor:
    """Magnitude images (S,N,N) when the signal is `dose` of the full one against the same noise; brightness is scaled back.

    Noise enters k-space before the magnitude: it is Rician (Gudbjartsson 1995).
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(dose * 100_000))
    size = signal.shape[-1]
    spectrum = torch.fft.fft2(signal.to(torch.complex64))
    noise = torch.complex(torch.randn(signal.shape, generator=generator), torch.randn(signal.shape, generator=generator))
    spectrum = spectrum + noise * (NOISE / dose) * size
    return torch.fft.ifft2(spectrum).abs()
