"""Voxel anatomy of a head: the tissue of each point of one axial slice, from shapes in mm (x left, y back, z head).

z runs from the medulla and the lower orbits (0) past pons (20), midbrain (42) and basal ganglia (62) to below the vertex (120). The cortex
is folded along the zero surfaces of a band of random waves, which run inwards from the surface of the brain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from qa_engine.simulation.shapes import Plane, Point, Texture, Tube, step

FIELD_MM = 240.0
HEIGHT_MM = 120.0
HALF: Point = (77.0, 96.0, 104.0)
"""Half axes of the head above its widest level, mm."""
WIDEST_MM = 34.0
BONE_AT, BRAIN_AT = 6.0, 14.0
"""Depth below the skin of the outer table and of the brain, mm."""
SULCUS_DEPTH, CORTEX_MM = 18.0, 3.0


class Tissue(IntEnum):
    """What a point is made of."""

    AIR = 0
    SKIN = 1
    FAT = 2
    BONE = 3
    MARROW = 4
    CSF = 5
    GREY = 6
    WHITE = 7
    DEEP = 8
    MUSCLE = 9
    VITREOUS = 10
    FLOW = 11


@dataclass(frozen=True, eq=False)
class Person:
    """What differs between patients: scale, width of the ventricles, lean of the head (radians), folds, textures."""

    scale: float
    ventricles: float
    lean: float
    folds: Tensor
    uneven: Texture
    grain: Texture

    @classmethod
    def make(cls, size: int, seed: int) -> Person:
        """Patient number `seed` on a grid of `size` pixels a side."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(3, generator=generator).clamp(-1.6, 1.6).tolist()
        return cls(0.97 + 0.025 * normal[0], 1 + 0.18 * normal[1], 0.03 * normal[2], _waves(generator),
                   Texture(size, 14, 12.0, generator), Texture(size, 80, 6.0, generator))


def _waves(generator: torch.Generator, cells: int = 64, frequency: float = 0.135, width: float = 0.026) -> Tensor:
    """A band of waves (cells,cells,cells) around `frequency` cycles per cell, standard deviation 1."""
    f = torch.fft.fftfreq(cells)
    radius = (f[:, None, None] ** 2 + f[None, :, None] ** 2 + torch.fft.rfftfreq(cells)[None, None, :] ** 2).sqrt()
    band = torch.exp(-0.5 * ((radius - frequency) / width) ** 2)
    waves = torch.fft.irfftn(torch.fft.rfftn(torch.randn((cells, cells, cells), generator=generator)) * band, s=(cells, cells, cells))
    return waves / waves.std()


def head_slice(person: Person, size: int, z: float) -> Tensor:
    """Tissue numbers (size,size) at height z (mm)."""
    plane = Plane(size, FIELD_MM, z / person.scale, person.scale, float(Tissue.AIR))
    plane.x, plane.y = plane.x + person.lean * plane.y, plane.y - person.lean * plane.x
    uneven = person.uneven.at(plane.z)
    height = plane.z - WIDEST_MM
    height *= 1.0 if height > 0 else 0.45
    unit = torch.stack([plane.x / HALF[0], plane.y / HALF[1], torch.full_like(plane.x, height / HALF[2])], -1)
    outer = unit.square().sum(-1).sqrt().clamp(min=1e-3)  # 1 at the skin
    depth = (plane.x.square() + plane.y.square() + height ** 2).sqrt() * (1 / outer - 1)  # mm below the skin
    chewing = 8 * torch.exp(-((plane.y + 18) / 24) ** 2) * (plane.x.abs() > 40) * (1 - step(plane.z, 22, 56))
    for start, tissue in ((0.0, Tissue.SKIN), (1.6, Tissue.FAT)):
        plane.paint(depth > start, float(tissue))
    inner = depth - chewing
    plane.paint((depth > BONE_AT - 1.5) & (chewing > 1.5), float(Tissue.MUSCLE))
    for start, tissue in ((BONE_AT, Tissue.BONE), (7.4, Tissue.MARROW), (9.6 + 0.4 * uneven, Tissue.BONE), (11.4, Tissue.CSF)):
        plane.paint(inner > start, float(tissue))
    below = inner - BRAIN_AT - 0.5 * uneven  # mm below the surface of the brain
    _cerebrum(plane, person.folds, unit / outer[..., None], outer, below, uneven)
    _deep(plane, person.ventricles, below)
    _midline(plane, below)
    _base(plane, depth, below, uneven)
    return plane.image.long()


def _cerebrum(plane: Plane, folds: Tensor, direction: Tensor, outer: Tensor, below: Tensor, uneven: Tensor) -> None:
    """Folded cortex over white matter."""
    place = direction * (0.70 + 0.18 * outer[..., None])
    waves = F.grid_sample(folds[None, None], place[None, None], align_corners=True)[0, 0, 0]
    spacing = float(plane.axis[1] - plane.axis[0])
    slope = torch.hypot(*torch.gradient(waves, spacing=spacing))
    from_sulcus = waves.abs() / slope.clamp(min=0.16)  # mm, where the waves are regular
    reach = SULCUS_DEPTH + 3.5 * uneven
    open_mm = 0.95 * (1 - below / (reach + 4)).clamp(min=0.25)
    plane.paint(below > 0, float(Tissue.WHITE))
    plane.paint((below > 0) & ((below < CORTEX_MM) | ((from_sulcus < CORTEX_MM + open_mm) & (below < reach + CORTEX_MM))), float(Tissue.GREY))
    plane.paint((below > 0) & (from_sulcus < open_mm) & (below < reach), float(Tissue.CSF))


def _deep(plane: Plane, wide: float, below: Tensor) -> None:
    """Ganglia, insula, ventricles."""
    brain = below > 0
    for side in (-1, 1):
        if 34 < plane.z < 62:  # lateral fissure and insula
            plane.paint(brain & plane.stroke([(side * 66, -14), (side * 41, -6)], 4.2), float(Tissue.GREY))
            plane.paint(brain & plane.stroke([(side * 39, -24), (side * 41, -4), (side * 39, 18)], 3.6), float(Tissue.GREY))
            plane.paint(brain & plane.stroke([(side * 66, -14), (side * 43, -7)], 1.3), float(Tissue.CSF))
            plane.paint(brain & plane.stroke([(side * 42, -22), (side * 43, -4), (side * 42, 16)], 1.0), float(Tissue.CSF))
        for centre, half, turn in (((side * 15, -23, 68), (6, 11, 14), 0.25 * side), ((side * 28, -3, 60), (6, 19, 15), 0.18 * side),
                                   ((side * 21, 1, 59), (4, 11, 10), 0.3 * side), ((side * 10.5, 16, 65), (9, 15, 12), -0.25 * side)):
            plane.paint(brain & plane.ellipsoid(centre, half, turn), float(Tissue.DEEP))
        plane.tubes((Tube(((side * 9, -34, 64), (side * 12, -10, 74), (side * 14, 16, 76), (side * 25, 37, 66)), 5.2 * wide, 6.4 * wide),
                     Tube(((side * 25, 37, 66), (side * 25, 58, 60)), 5.4 * wide, 1.8),
                     Tube(((side * 25, 37, 66), (side * 34, 14, 45), (side * 32, -8, 40)), 4.4 * wide, 2.0)), float(Tissue.CSF), brain)
    if 50 < plane.z < 68:
        plane.paint(plane.stroke([(0, -12), (0, 16)], 1.5 * wide), float(Tissue.CSF))


def _midline(plane: Plane, below: Tensor) -> None:
    """Fissure between the hemispheres with the falx; the corpus callosum bridges it."""
    bridged = (plane.y > -44) & (plane.y < 46) if plane.z < 80 else torch.zeros_like(below, dtype=torch.bool)
    lobes = (below > 0) & ~bridged if plane.z > 46 else (below > 0) & ((plane.y < -44) | (plane.y > 62))
    bend = plane.x + 0.8 * torch.sin(plane.y / 11)
    plane.paint(lobes & (bend.abs() < 4.0), float(Tissue.GREY))
    plane.paint(lobes & (bend.abs() < 1.4), float(Tissue.CSF))
    plane.paint(lobes & (plane.x.abs() < 0.5), float(Tissue.BONE))
    plane.paint((plane.x.abs() < 4.5 - 0.6 * below.abs()) & (plane.y > 0), float(Tissue.FLOW))  # superior sagittal sinus


def _base(plane: Plane, depth: Tensor, below: Tensor, uneven: Tensor) -> None:
    """Brainstem, cerebellum, and below the brain: skull base, orbits, sinuses."""
    z = plane.z
    if z > 50:
        return
    for grow, tissue in ((1.0, Tissue.BONE), (0.0, Tissue.AIR)):  # frontal sinuses
        for centre, half in (((-9, -83, 28), (9, 4, 9)), ((10, -83, 28), (8, 4, 8))):
            plane.paint(plane.ellipsoid(centre, half, grow=grow), float(tissue))
    if z < 24:
        _skull_base(plane, depth, uneven)
    _cerebellum(plane, below)
    if 28 < z < 46:
        plane.paint(plane.ellipse(0, -5, 12, 9), float(Tissue.CSF))
    for centre, half in (((0, 15, 44), (17, 12, 11)), ((0, 13, 20), (17, 14, 15)), ((0, 24, 2), (9, 8, 18))):
        plane.paint(plane.ellipsoid(centre, half, grow=3.0), float(Tissue.CSF))
    for centre, half in (((0, 15, 44), (17, 12, 11)), ((0, 13, 20), (17, 14, 15)), ((0, 24, 2), (9, 8, 18))):
        plane.paint(plane.ellipsoid(centre, half), float(Tissue.WHITE))
    if z > 36:
        plane.paint(plane.ellipse(0, 1, 4.5, 4.5), float(Tissue.CSF))  # between the peduncles
    plane.tubes((Tube(((0, 36, 0), (0, 33, 14), (0, 29, 28)), 5.0, 3.0), Tube(((0, 29, 28), (0, 20, 50)), 3.0, 1.0)), float(Tissue.CSF))
    plane.tubes((Tube(((0, -4, 4), (0, -4, 32)), 1.8, 1.6), Tube(((-13, -12, 10), (-12, -12, 34)), 2.3, 2.3),
                 Tube(((13, -12, 10), (12, -12, 34)), 2.3, 2.3)), float(Tissue.FLOW))


def _cerebellum(plane: Plane, below: Tensor) -> None:
    """Hemispheres and vermis with their leaves, in cerebrospinal fluid."""
    parts = [((side * 25.0, 50.0, 8.0), (31.0, 30.0, 31.0)) for side in (-1, 1)] + [((0.0, 48.0, 12.0), (13.0, 24.0, 36.0))]
    parts = [(centre, half) for centre, half in parts if plane.z < centre[2] + 0.92 * half[2]]
    for centre, half in parts:
        plane.paint(plane.ellipsoid(centre, (half[0] + 2, half[1] + 2, half[2])) & (below > -2), float(Tissue.CSF))
    for centre, half in parts:
        within = plane.ellipsoid(centre, half) & (below > 0)
        x, y = plane.x - 0.75 * centre[0], plane.y - centre[1] + 6
        away, angle = torch.hypot(x, 1.15 * y), torch.atan2(y, x)
        leaves = torch.sin(away * (2 * math.pi / 4.2) + 1.5 * torch.sin(3 * angle))
        branches = torch.sin(8 * angle + 0.12 * away) > 0.72
        plane.paint(within, float(Tissue.GREY))
        plane.paint(within & ((away < 11) | (branches & (away < 24))), float(Tissue.WHITE))
        plane.paint(within & (leaves > 0.9) & (away > 15), float(Tissue.CSF))


def _skull_base(plane: Plane, depth: Tensor, uneven: Tensor) -> None:
    """What stands in place of the brain below its frontal lobes: bone with marrow and air, temporal lobes left over, orbits."""
    z = plane.z
    front = 6 - 30 * step(z, 4, 24)
    bone = (depth > BONE_AT) & (plane.y < front) & (plane.image != float(Tissue.MUSCLE))
    for side in (-1, 1):
        bone &= ~plane.ellipsoid((side * 45, -4, 24), (25, 31, 30))
    plane.paint(bone, float(Tissue.MARROW))
    plane.paint(bone & ((plane.y > front - 3) | (uneven > 0.9)), float(Tissue.BONE))
    for side in (-1, 1):
        petrous = plane.stroke([(side * 17, 4), (side * 60, 24)], 7.0) & (depth > BONE_AT)
        if z < 18:
            plane.paint(petrous, float(Tissue.BONE))
            plane.paint(petrous & (plane.x.abs() > 38) & (uneven > 0.2), float(Tissue.AIR))
        plane.paint((depth > 2) & plane.ellipsoid((side * 31, -58, 11), (17, 30, 18), -0.3 * side), float(Tissue.BONE))
        plane.paint((depth > 1.6) & plane.ellipsoid((side * 31, -58, 11), (15.6, 28.6, 16.6), -0.3 * side), float(Tissue.FAT))
        for end in (-19.0, -33.0, -45.0):
            if end == -33.0 and not 7 < z < 17:
                continue
            plane.paint(plane.ellipsoid((side * 31, -58, 11), (14.5, 27.5, 15.5), -0.3 * side)
                        & plane.stroke([(side * 19, -33), (side * -end, -63)], 2.0), float(Tissue.WHITE if end == -33.0 else Tissue.MUSCLE))
        plane.paint(plane.ellipsoid((side * 33, -72, 11), (12.6, 12.6, 12.6)), float(Tissue.MUSCLE))
        plane.paint(plane.ellipsoid((side * 33, -72, 11), (11.4, 11.4, 11.4)), float(Tissue.VITREOUS))
        plane.paint(plane.ellipsoid((side * 33, -80.5, 11), (4.6, 2.2, 4.6)), float(Tissue.GREY))
    cells = plane.ellipse(0, -60, 10, 24) | (plane.ellipse(0, -26, 14, 11) if z < 14 else plane.ellipse(0, -30, 6, 6))
    plane.paint(cells & (depth > 5), float(Tissue.BONE))
    plane.paint(cells & (depth > 6) & (plane.x.abs() > 0.8) & ((uneven + torch.sin(plane.y / 2.2)).abs() > 0.35), float(Tissue.AIR))

