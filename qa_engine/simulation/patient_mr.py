"""A simulated head MR: the tissues of head.py with PD, T1 and T2, spin-echo signal, coil sensitivity, complex noise in k-space.

Signal = PD (1 - exp(-TR/T1)) exp(-TE/T2); T1 and T2 near those published for 1.5 T.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qa_engine.simulation import head
from qa_engine.simulation.head import Tissue
from qa_engine.simulation.shapes import texture

FIELD_MM = head.FIELD_MM
THICKNESS_MM = 5.0
TR_MS, TE_MS = 550.0, 12.0
TISSUES = {
    Tissue.AIR: (0.0, 1000.0, 50.0), Tissue.SKIN: (0.70, 750.0, 35.0), Tissue.FAT: (0.95, 260.0, 80.0), Tissue.BONE: (0.06, 500.0, 5.0),
    Tissue.MARROW: (0.62, 320.0, 55.0), Tissue.CSF: (1.0, 4000.0, 2000.0), Tissue.GREY: (0.80, 1000.0, 100.0),
    Tissue.WHITE: (0.70, 600.0, 80.0), Tissue.DEEP: (0.78, 850.0, 88.0), Tissue.MUSCLE: (0.75, 900.0, 40.0),
    Tissue.VITREOUS: (0.98, 4000.0, 1500.0), Tissue.FLOW: (0.05, 1400.0, 200.0)}
"""Proton density, T1 and T2 in ms; flowing blood has left the slice before the echo."""
SCALE = 900.0
NOISE = 7.0
"""Standard deviation per channel at full signal, stored units: signal to noise about 45 in white matter."""


def spin_echo(tissue: Tissue, tr: float = TR_MS, te: float = TE_MS) -> float:
    """Signal of a tissue, stored units."""
    density, t1, t2 = TISSUES[tissue]
    return SCALE * density * (1 - math.exp(-tr / t1)) * math.exp(-te / t2)


def anatomy(slices: int, size: int, seed: int) -> Tensor:
    """Noiseless signal (S, size, size), twice supersampled, from the skull base (first slice) to below the vertex."""
    fine = 2 * size
    person = head.Person.make(fine, seed)
    coil = texture((fine, fine), 3, torch.Generator().manual_seed(seed)).clamp(-2, 2)
    signal = torch.tensor([spin_echo(tissue) for tissue in Tissue])
    found = []
    for k in range(slices):
        z = (k + 0.5) * spacing_mm(slices)
        image = signal[head.head_slice(person, fine, z)] * (1 + 0.02 * person.grain.at(z)) * (1 + 0.06 * coil)
        found.append(torch.nn.functional.avg_pool2d(image[None, None], 2)[0, 0])
    return torch.stack(found)


def spacing_mm(slices: int) -> float:
    """Distance of the slices: any number of them covers the same part of the head."""
    return head.HEIGHT_MM / slices


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
