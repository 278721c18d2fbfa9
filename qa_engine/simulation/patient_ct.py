"""A simulated chest CT: the anatomy of chest.py, polyenergetic projection, quantum and electronic noise, filtered back-projection.

Two materials (water-like, bone) in three energy bins stand for the beam
spectrum; a polynomial corrects water, so that beam hardening of bone remains (Kak and Slaney 1988, 4.1.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qa_engine.simulation import chest
from qa_engine.simulation.ct_projection import back_project, filter_projections, project

FIELD_MM = chest.FIELD_MM
THICKNESS_MM = 5.0
SPECTRUM = ((0.35, 0.0225, 0.0600), (0.40, 0.0195, 0.0420), (0.25, 0.0175, 0.0330))
"""Share, attenuation of water and of dense bone (1/mm) of each energy bin, near 120 kV."""
BONE_HU = 1300.0
PHOTONS = 1.0e6
"""Per ray at dose 1; makes about 8 HU in the mediastinum and 14 HU in the liver with the Shepp-Logan kernel at 256 x 256."""
ELECTRONIC = 12.0
"""Standard deviation of the electronic noise, photons."""
WATER_ORDER = 4
CUTOFF = 1.25
"""Cut-off of the kernel, of the Nyquist frequency of the image."""


@dataclass(frozen=True, eq=False)
class Projections:
    """Noiseless intensities (S, views, N), 0..1, and what turns line integrals into water lengths; the image spans `span` of N samples."""

    intensity: Tensor
    water: Tensor
    pixel_mm: float
    span: int


def anatomy(slices: int, size: int, seed: int) -> Tensor:
    """HU (S, 2 size, 2 size) of a chest from the diaphragm (first slice) to the aortic arch: twice as fine as the images."""
    person = chest.Person.make(2 * size, seed)
    return torch.stack([chest.chest_slice(person, 2 * size, (k + 0.5) * spacing_mm(slices)) for k in range(slices)])


def spacing_mm(slices: int) -> float:
    """Distance of the slices: any number of them covers the same part of the body."""
    return chest.HEIGHT_MM / slices


def project_patient(hu: Tensor, views: int = 360) -> Projections:
    """Noiseless polyenergetic projections of (S,N,N) HU."""
    pixel = FIELD_MM / hu.shape[-1]
    bone = (hu / BONE_HU).clamp(0, 1.5) * (hu > 200)
    water = (1 + hu.clamp(max=200) / 1000).clamp(min=0) * (1 - bone.clamp(max=1))
    lengths_water, lengths_bone = (project(torch.cat([water, bone]), views) * pixel).chunk(2)  # one geometry for both
    intensity = torch.zeros_like(lengths_water)
    for share, mu_water, mu_bone in SPECTRUM:
        intensity += share * torch.exp(-mu_water * lengths_water - mu_bone * lengths_bone)
    span = intensity.shape[-1]
    edge = round(0.21 * span)  # the detector also sees the corners of the image, where there is air
    intensity = torch.nn.functional.pad(intensity, (edge, edge), value=1.0)
    lengths = torch.linspace(0, 500, 200)
    seen = -torch.log(sum(share * torch.exp(-mu * lengths) for share, mu, _ in SPECTRUM))
    powers = torch.stack([seen ** n for n in range(1, WATER_ORDER + 1)], 1)
    polynomial = torch.linalg.lstsq(powers.double(), lengths[:, None].double()).solution[:, 0].float()
    return Projections(intensity, polynomial, pixel, span)


def scan(projections: Projections, dose: float, kernel: str, seed: int, size: int) -> Tensor:
    """Reconstructed HU (S,size,size) at a share of the dose; the noise alone differs between doses of one patient."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(dose * 100_000))
    mean = projections.intensity * (PHOTONS * dose)
    counts = torch.poisson(mean, generator=generator) + ELECTRONIC * torch.randn(mean.shape, generator=generator)
    seen = -torch.log(counts.clamp(min=1.0) / (PHOTONS * dose))
    lengths = sum(c * seen ** n for n, c in enumerate(projections.water.tolist(), 1))
    cutoff = CUTOFF * size / projections.span  # of the detector's Nyquist frequency: finer than the image would only alias
    image = back_project(filter_projections(lengths / projections.pixel_mm, kernel, min(1.0, cutoff)), size, projections.span)
    return (image - 1.0) * 1000.0
