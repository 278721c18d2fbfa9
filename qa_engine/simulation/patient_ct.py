"""A simulated chest CT: voxel anatomy from analytic shapes with texture, polyenergetic projection, quantum and electronic noise, FBP.

Lengths in mm, patient coordinates (x to the left, y to the back). Two materials (water-like, bone) in three energy bins stand for the beam
spectrum; a polynomial corrects water, so that beam hardening of bone remains (Kak and Slaney 1988, 4.1.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qa_engine.simulation.ct_projection import back_project, filter_projections, project

FIELD_MM = 340.0
SPECTRUM = ((0.35, 0.0225, 0.0600), (0.40, 0.0195, 0.0420), (0.25, 0.0175, 0.0330))
"""Share, attenuation of water and of dense bone (1/mm) of each energy bin, near 120 kV."""
BONE_HU = 1300.0
PHOTONS = 1.0e6
"""Per ray at dose 1; makes about 10 HU in the mediastinum with the Shepp-Logan kernel at 256 x 256."""
ELECTRONIC = 12.0
"""Standard deviation of the electronic noise, photons."""
WATER_ORDER = 4
CUTOFF = 1.25
"""Cut-off of the kernel, of the Nyquist frequency of the image."""


@dataclass(frozen=True, eq=False)
class Projections:
    """Noiseless intensities (S, views, N), 0..1, and what turns line integrals into water lengths."""

    intensity: Tensor
    water: Tensor
    pixel_mm: float


def _ellipse(x: Tensor, y: Tensor, cx: float, cy: float, a: float, b: float, turn: float = 0.0) -> Tensor:
    """Boolean inside of an ellipse with half axes a, b (mm)."""
    cos, sin = math.cos(turn), math.sin(turn)
    u, v = (x - cx) * cos + (y - cy) * sin, -(x - cx) * sin + (y - cy) * cos
    return (u / a) ** 2 + (v / b) ** 2 <= 1.0


def texture(shape: tuple[int, int], coarse: int, generator: torch.Generator) -> Tensor:
    """Smooth random field, mean 0, standard deviation 1, `coarse` cells a side."""
    field = torch.randn((1, 1, coarse, coarse), generator=generator)
    field = torch.nn.functional.interpolate(field, size=shape, mode="bicubic", align_corners=False)[0, 0]
    return (field - field.mean()) / field.std()


def anatomy(slices: int, size: int, seed: int) -> Tensor:
    """HU (S, 2 size, 2 size) of a chest from the diaphragm (first slice) to the aortic arch: twice as fine as the images."""
    fine = 2 * size
    axis = (torch.arange(fine) + 0.5) / fine * FIELD_MM - FIELD_MM / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    person = torch.Generator().manual_seed(seed)
    stature = 0.95 + 0.05 * float(torch.randn((), generator=person).clamp(-1.5, 1.5))
    vessels = torch.rand((140, 4), generator=person)
    fields = [texture((fine, fine), cells, person) for cells in (40, 90, 160)]
    return torch.stack([_slice(x, y, k / max(1, slices - 1), stature, vessels, fields) for k in range(slices)])


def _slice(x: Tensor, y: Tensor, t: float, s: float, vessels: Tensor, fields: list[Tensor]) -> Tensor:
    """One slice at height t (0 diaphragm, 1 arch) of a person scaled by s."""
    soft, fatty, fine = fields
    image = torch.full_like(x, -1000.0)
    width, depth = s * (165 - 6 * t), s * (112 - 8 * t)
    body = _ellipse(x, y, 0, 0, width, depth)
    inner = _ellipse(x, y, 0, 1, width - s * 14, depth - s * 13)
    cage = _ellipse(x, y, 0, -2, width - s * 30, depth - s * 26)
    image[body] = -100.0
    image[inner] = 55.0
    image = torch.where(body & ~inner, image + 4 * fatty, image)
    image = torch.where(inner, image + 4 * soft + 2 * fine, image)
    # intermuscular fat between the muscles of the wall
    wall = inner & ~cage
    image = torch.where(wall & (soft > 1.5), torch.full_like(image, -85.0), image)
    lungs = torch.zeros_like(body)
    for side in (-1, 1):
        lung = _ellipse(x, y, side * s * 72, s * 4, s * (50 + 6 * math.sin(3 * t)), s * (70 + 6 * t), side * 0.12) & cage
        lungs |= lung
    heart = _ellipse(x, y, s * 18, -s * 28, s * (56 - 26 * t), s * (46 - 16 * t), 0.5)
    mediastinum = _ellipse(x, y, s * 2, s * 6, s * 30, s * 74)
    lungs = lungs & ~heart & ~mediastinum
    if t < 0.22:  # dome of the liver
        lungs &= ~_ellipse(x, y, -s * 66, -s * 6, s * 52 * (1 - t / 0.22) ** 0.5, s * 62 * (1 - t / 0.22) ** 0.5)
    image = torch.where(lungs, -860 + 16 * fine + 10 * soft, image)
    image = torch.where(heart & cage, 48 + 4 * soft + 1.5 * fine, image)
    fat_around = mediastinum & cage & ~heart & (soft > 0.9)
    image = torch.where(fat_around, -80 + 8 * fine, image)
    for number in range(len(vessels)):
        u, v, w, phase = (float(n) for n in vessels[number])
        if abs(t - phase) > 0.3:
            continue
        side = 1 if number % 2 else -1
        away, angle = 14 + 46 * u, 2 * math.pi * v
        cx, cy = side * s * 66 + s * away * math.cos(angle) + 25 * (t - phase), s * 4 + 1.3 * s * away * math.sin(angle)
        radius = s * (1.0 + 3.2 * w * (1 - u))
        vessel = _ellipse(x, y, cx, cy, radius, radius * (1 + 0.8 * v), angle)
        image = torch.where(vessel & lungs, torch.full_like(image, 35.0), image)
    for cx, cy, radius, value in ((s * 22, s * 46, 13.0, 150.0), (-s * 20, -s * 14, 11.0, 140.0), (s * 8, -s * 8, 13.5, 155.0)):
        image = torch.where(_ellipse(x, y, cx, cy, radius, radius), value + 4 * fine, image)
    for cx in (-s * 7, s * 11) if t < 0.6 else (s * 2,):
        image = torch.where(_ellipse(x, y, cx, s * 14, 6.5, 6.5), torch.full_like(image, -990.0), image)
    image = _bones(image, x, y, t, s, fine)
    table = (torch.abs(y - depth - 16 - (x / 26) ** 2 * -0.25) < 2.2) & (x.abs() < 150)
    return torch.where(table, torch.full_like(image, -150.0), image)


def _bones(image: Tensor, x: Tensor, y: Tensor, t: float, s: float, fine: Tensor) -> Tensor:
    """Vertebra with canal and processes, ribs that run with the height, sternum."""
    for shape, value in ((_ellipse(x, y, 0, s * 72, 20, 16), 420.0), (_ellipse(x, y, 0, s * 72, 17, 13), 190.0),
                         (_ellipse(x, y, -s * 26, s * 84, 14, 5, 0.5), 380.0), (_ellipse(x, y, s * 26, s * 84, 14, 5, -0.5), 380.0),
                         (_ellipse(x, y, 0, s * 102, 4, 11), 420.0), (_ellipse(x, y, 0, s * 90, 13, 10), 400.0),
                         (_ellipse(x, y, 0, s * 90, 9, 7.5), 30.0), (_ellipse(x, y, 0, -s * 88, 15, 5.5), 360.0),
                         (_ellipse(x, y, 0, -s * 88, 12, 3.2), 170.0)):
        image = torch.where(shape, value + 14 * fine, image)
    for number in range(6):
        for side in (-1, 1):
            angle = math.pi * (0.12 + 0.155 * number) + 0.35 * math.sin(6 * t + number)
            cx, cy = side * s * 130 * math.sin(angle), s * (88 * math.cos(angle) - 2)
            turn = math.atan2(-math.sin(angle) * 88, side * math.cos(angle) * 130)
            image = torch.where(_ellipse(x, y, cx, cy, 13, 4.6, turn), 520 + 12 * fine, image)
            image = torch.where(_ellipse(x, y, cx, cy, 10.5, 2.6, turn), 210 + 10 * fine, image)
    return image


def project_patient(hu: Tensor, views: int = 360) -> Projections:
    """Noiseless polyenergetic projections of (S,N,N) HU."""
    pixel = FIELD_MM / hu.shape[-1]
    bone = (hu / BONE_HU).clamp(0, 1.5) * (hu > 200)
    water = (1 + hu.clamp(max=200) / 1000).clamp(min=0) * (1 - bone.clamp(max=1))
    lengths_water, lengths_bone = project(water, views) * pixel, project(bone, views) * pixel
    intensity = torch.zeros_like(lengths_water)
    for share, mu_water, mu_bone in SPECTRUM:
        intensity += share * torch.exp(-mu_water * lengths_water - mu_bone * lengths_bone)
    lengths = torch.linspace(0, 500, 200)
    seen = -torch.log(sum(share * torch.exp(-mu * lengths) for share, mu, _ in SPECTRUM))
    powers = torch.stack([seen ** n for n in range(1, WATER_ORDER + 1)], 1)
    polynomial = torch.linalg.lstsq(powers.double(), lengths[:, None].double()).solution[:, 0].float()
    return Projections(intensity, polynomial, pixel)


def scan(projections: Projections, dose: float, kernel: str, seed: int, size: int) -> Tensor:
    """Reconstructed HU (S,size,size) at a share of the dose; the noise alone differs between doses of one patient."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + int(dose * 100_000))
    mean = projections.intensity * (PHOTONS * dose)
    counts = torch.poisson(mean, generator=generator) + ELECTRONIC * torch.randn(mean.shape, generator=generator)
    seen = -torch.log(counts.clamp(min=1.0) / (PHOTONS * dose))
    lengths = sum(c * seen ** n for n, c in enumerate(projections.water.tolist(), 1))
    cutoff = CUTOFF * size / mean.shape[-1]  # of the detector's Nyquist frequency: finer than the image would only alias
    image = back_project(filter_projections(lengths / projections.pixel_mm, kernel, min(1.0, cutoff)), size)
    return (image - 1.0) * 1000.0
