"""Voxel anatomy of a chest with intravenous contrast: HU of one axial slice from shapes in mm (x left, y back, z head).

z runs from the domes of the diaphragm (0) past the heart (40) and the carina (104) to the branches of the aortic arch (160).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qa_engine.simulation.chest_vessels import AIRWAYS, ARTERIES, VEINS, lung_trees
from qa_engine.simulation.shapes import Plane, Texture, Tube, step

FIELD_MM = 360.0
HEIGHT_MM = 160.0
AIR, FAT, MUSCLE, SKIN = -1000.0, -102.0, 58.0, 25.0
BLOOD, MYOCARDIUM, LIVER, LIVER_VEINS, SPLEEN, STOMACH = 150.0, 92.0, 98.0, 132.0, 108.0, 18.0
CORTEX, MARROW, CARTILAGE, DISC, CORD, CANAL = 620.0, 175.0, 98.0, 92.0, 42.0, 12.0
VERTEBRA_MM = 25.0


@dataclass(frozen=True, eq=False)
class Person:
    """What differs between patients: scale, fat under the skin (mm), heart size, height of the vertebrae (mm), vessels, textures."""

    scale: float
    fat_mm: float
    heart: float
    shift_mm: float
    trees: tuple[list[Tube], list[Tube]]
    soft: Texture
    fatty: Texture
    fine: Texture

    @classmethod
    def make(cls, size: int, seed: int) -> Person:
        """Patient number `seed` on a grid of `size` pixels a side."""
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(4, generator=generator).clamp(-1.6, 1.6).tolist()
        trees = lung_trees(generator)
        textures = [Texture(size, cells, depth, generator) for cells, depth in ((40, 25.0), (90, 15.0), (190, 8.0))]
        return cls(0.97 + 0.03 * normal[0], 14 + 4 * normal[1], 1 + 0.06 * normal[2], 6 * normal[3], trees, *textures)


def chest_slice(person: Person, size: int, z: float) -> Tensor:
    """HU (size,size) at height z (mm)."""
    plane = Plane(size, FIELD_MM, z / person.scale, person.scale, AIR)
    z = plane.z
    soft, fatty, fine = person.soft.at(z), person.fatty.at(z), person.fine.at(z)
    narrow = step(z, 75, 165)
    a, b, centre = 125 - 36 * narrow, 88 - 22 * narrow, -2 + 6 * narrow
    cavity = _outline(plane, a, b, centre, 2.2)
    angle = torch.atan2((plane.x / a).abs(), (plane.y - centre) / b)  # 0 at the back, pi at the breastbone
    away = torch.hypot(plane.x, plane.y - centre) * (1 - 1 / cavity.clamp(min=1e-3))  # mm outside the pleura
    _wall(plane, person, angle, away, soft, fatty)
    _shoulder_blades(plane, soft, fine)
    inside = cavity < 1
    plane.paint(inside, FAT + 5 * fatty)
    lungs = inside & ~_between_lungs(plane, person.heart)
    below = _below_diaphragm(plane) & inside
    lungs &= ~below
    _abdomen(plane, below, soft, fine)
    plane.paint(lungs, -868 + 0.3 * plane.y + 9 * soft + 15 * fine)
    _fissures(plane, lungs)
    arteries, airways = person.trees
    plane.tubes([t.wider(0.9) for t in airways], -60.0, lungs)
    plane.tubes(airways, -985.0, lungs)
    plane.tubes(arteries, BLOOD - 25, lungs)
    _heart(plane, person.heart, inside, soft, fine)
    plane.tubes((t.wider(1.2) for t in ARTERIES), 60.0, inside)
    plane.tubes(VEINS, BLOOD - 12, inside)
    plane.tubes(ARTERIES, BLOOD, inside)
    plane.tubes((Tube(((10, 28, 165), (6, 34, 80), (8, 30, 40), (14, 24, -10)), 7.0, 7.5),), 48.0, inside)
    plane.tubes((Tube(((10, 28, 165), (6, 34, 80)), 2.2, 1.2),), -600.0, inside)
    plane.tubes((t.wider(1.6) for t in AIRWAYS), 30.0, inside)
    plane.tubes(AIRWAYS, -990.0, inside)
    _spine(plane, person.shift_mm, fine)
    _ribs(plane, angle, away, fine)
    _breastbone(plane, b, centre, fine)
    _table(plane)
    return plane.image


def _outline(plane: Plane, a: float, b: float, centre: float, power: float) -> Tensor:
    """Below 1 inside a rounded box with half axes a and b (mm)."""
    return ((plane.x / a).abs() ** power + ((plane.y - centre) / b).abs() ** power) ** (1 / power)


def _wall(plane: Plane, person: Person, angle: Tensor, away: Tensor, soft: Tensor, fatty: Tensor) -> None:
    """Skin, fat, the muscles around the cage."""
    z = plane.z
    skin = _outline(plane, 159 + 6 * step(z, 50, 110), 113 - 9 * step(z, 90, 165), 1.5 * step(z, 90, 165), 2.5)
    depth = torch.hypot(plane.x, plane.y) * (1 / skin.clamp(min=1e-3) - 1)  # mm below the skin
    body = depth > 0
    plane.paint(body, FAT + 5 * fatty)
    plane.paint(body & (depth < 1.8), SKIN)
    front, back = (angle > 0.58 * math.pi) & (angle < 0.94 * math.pi), angle < 0.36 * math.pi
    thick = 13.5 + torch.where(front, 8 + 13 * step(z, 40, 110), 0) + torch.where(back, 19, 0) \
        + torch.where(front | back, 0, 6 + 3 * soft + 11 * step(z, 30, 120))
    muscle = body & (away < thick) & (depth > 0.6 * person.fat_mm + 2 * soft)
    plane.paint(muscle, MUSCLE + 4 * soft + 2 * fatty)
    plane.paint(muscle & ((away - 13.5 - soft).abs() < 1.0) & (fatty > 0.5), FAT + 25)  # the plane between ribs and outer muscles
    plane.paint(muscle & (away > 1) & (away < 12) & (fatty > 2.1), FAT + 25)
    for side in (-1, 1):
        back_muscle = body & (depth > 5) & plane.ellipse(side * 31, 91, 25, 14, side * -0.12)
        plane.paint(back_muscle, MUSCLE + 4 * soft)
        plane.paint(back_muscle & (fatty > 1.9), FAT + 30)


def _shoulder_blades(plane: Plane, soft: Tensor, fine: Tensor) -> None:
    """Scapulae with the muscles on both faces."""
    if plane.z < 66:
        return
    grown = step(plane.z, 66, 100)
    for side in (-1, 1):
        line = [(side * (88 - 10 * grown), 76.0 - 2 * grown), (side * 112, 62.0), (side * (122 + 20 * grown), 52 - 24 * grown)]
        plane.paint(plane.stroke(line, 5 + 8 * grown) & (plane.image > AIR + 100), MUSCLE + 4 * soft)
        plane.paint(plane.stroke(line, 2.3), CORTEX + 20 * fine)
        plane.paint(plane.stroke(line[1:], 1.1), MARROW + 60.0)


def _between_lungs(plane: Plane, heart: float) -> Tensor:
    """The mediastinum."""
    z = plane.z
    found = plane.ellipse(4, 54, 24, 44) | plane.ellipse(2, -66, 11 + 10 * step(z, 80, 110), 34)
    found |= plane.ellipsoid((20, -24, 38), (60 * heart, 48 * heart, 56), -0.55)
    if z > 60:
        found |= plane.ellipse(2, -6, 42 - 8 * step(z, 95, 130), 40)
    return found


def _below_diaphragm(plane: Plane) -> Tensor:
    """What the domes of the diaphragm hold."""
    return plane.ellipsoid((-56, -2, -62), (80, 84, 97)) | plane.ellipsoid((66, 8, -46), (64, 72, 74)) \
        | plane.ellipsoid((10, -52, -40), (64, 36, 54))


def _abdomen(plane: Plane, below: Tensor, soft: Tensor, fine: Tensor) -> None:
    """Diaphragm, liver, stomach, spleen."""
    plane.paint(below, FAT + 6 * fine)
    for centre, half in (((-56, -2, -62), (80, 84, 97)), ((66, 8, -46), (64, 72, 74))):
        plane.paint(below & plane.ellipsoid(centre, half) & ~plane.ellipsoid(centre, half, grow=-2.4), MUSCLE)
    liver = below & (plane.ellipsoid((-56, -2, -62), (80, 84, 97), grow=-2.0) | plane.ellipsoid((10, -52, -40), (60, 33, 52)))
    plane.paint(liver, LIVER + 4 * soft + 2 * fine)
    plane.tubes((Tube(((-24, 14, 20), (-52, -6, 4), (-80, -30, -14)), 4.5, 2.0), Tube(((-24, 14, 20), (-60, 30, 0), (-92, 40, -20)), 4.5, 2.0),
                 Tube(((-24, 14, 20), (-20, -20, 4), (-14, -50, -10)), 4.0, 1.5)), LIVER_VEINS, liver)
    spleen = below & plane.ellipsoid((92, 44, -22), (24, 36, 44), 0.3)
    stomach = below & ~spleen & plane.ellipsoid((58, -10, -32), (42, 40, 54))
    plane.paint(stomach, 70.0)
    within = stomach & plane.ellipsoid((58, -10, -32), (42, 40, 54), grow=-4)
    plane.paint(within, STOMACH + 3 * soft)
    plane.paint(within & (plane.y < -24), -960.0)
    plane.paint(spleen, SPLEEN + 4 * soft)


def _fissures(plane: Plane, lungs: Tensor) -> None:
    """Major fissures: thin planes that climb from the front below to the back above."""
    for side, start in ((-1, 4.0), (1, -2.0)):
        y = -62 + (plane.z - start) * 0.94 + 8 * torch.cos(plane.x / 26)
        plane.paint(lungs & (plane.x * side > 0) & ((plane.y - y).abs() < 0.9), -740.0)


def _heart(plane: Plane, size: float, inside: Tensor, soft: Tensor, fine: Tensor) -> None:
    """Muscle and the four chambers."""
    muscle = MYOCARDIUM + 4 * soft + 2 * fine
    blood = BLOOD + 3 * fine
    for centre, half, turn, wall in (((-24, -24, 42), (21, 25, 32), 0.2, 2.5), ((8, 4, 56), (31, 17, 22), 0.0, 2.5),
                                     ((12, -48, 34), (37, 18, 34), -0.35, 3.5), ((42, -30, 30), (29, 19, 33), -0.62, 9.5)):
        half = tuple(h * size for h in half)
        plane.paint(inside & plane.ellipsoid(centre, half, turn, grow=wall), muscle)
        plane.paint(inside & plane.ellipsoid(centre, half, turn), blood)
    for points in (((-4, -26, 66), (-6, -38, 52), (-12, -54, 36)), ((14, -24, 64), (34, -14, 50), (56, -10, 34))):
        plane.tubes((Tube(points, 2.2, 1.5),), BLOOD, inside)


def _spine(plane: Plane, shift: float, fine: Tensor) -> None:
    """Vertebral bodies and discs, arches, processes, canal with the cord."""
    share = ((plane.z + shift) / VERTEBRA_MM) % 1.0
    body = plane.ellipse(0, 64, 18.5, 15.5) & ~plane.ellipse(0, 85, 12, 8)
    if share < 0.2:
        plane.paint(body, DISC + 4 * fine)
    else:
        plane.paint(body, CORTEX - 180 + 20 * fine)
        inner = plane.ellipse(0, 64, 16.8, 13.8) & ~plane.ellipse(0, 85, 13.5, 9.8)
        plane.paint(inner, (CORTEX - 260 if share < 0.26 or share > 0.94 else MARROW) + 34 * fine)
    arch = plane.ellipse(0, 84, 15.5, 13) & ~plane.ellipse(0, 84, 11, 9.2) & ((plane.y > 84) | (share > 0.5))
    plane.paint(arch, CORTEX - 120 + 20 * fine)
    if share > 0.45:
        for side in (-1, 1):
            line = [(side * 13.0, 84.0), (side * 38.0, 91.0)]
            plane.paint(plane.stroke(line, 4.4), CORTEX - 120)
            plane.paint(plane.stroke(line, 2.4), MARROW + 20 * fine)
    reach = 104.0 - 4 * share - 9 * step(plane.z, 90, 165)
    plane.paint(plane.stroke([(0.0, 97.0), (0.0, reach)], 3.4), CORTEX - 150)
    plane.paint(plane.stroke([(0.0, 98.0), (0.0, reach - 2)], 1.4), MARROW)
    plane.paint(plane.ellipse(0, 84, 10.4, 8.6), CANAL)
    plane.paint(plane.ellipse(0, 84, 6.0, 4.6), CORD)


def _ribs(plane: Plane, angle: Tensor, away: Tensor, fine: Tensor) -> None:
    """Twelve pairs, high at the back and low at the front, where cartilage takes over."""
    fall = 74 * torch.sin(angle / 2) ** 2.4 - 60 * (angle / math.pi - 0.78).clamp(min=0) / 0.22
    for number in range(12):
        height = plane.z - (number * 24.0 - 30.0) + fall
        radius = (height / 6.2) ** 2 + ((away - 6.2) / 4.4) ** 2
        rib = (radius < 1) & (plane.x.abs() > 20)
        bone = rib & (angle < 0.79 * math.pi)
        plane.paint(rib & ~bone, CARTILAGE + 6 * fine)
        plane.paint(bone, CORTEX + 20 * fine)
        plane.paint(bone & (radius < 0.42), MARROW + 16 * fine)


def _breastbone(plane: Plane, b: float, centre: float, fine: Tensor) -> None:
    """Sternum, wide above."""
    half = 14 + 10 * step(plane.z, 105, 150) - 6 * (1 - step(plane.z, 5, 30))
    y = centre - b - 8
    plane.paint(plane.ellipse(0, y, half, 6.5), CORTEX - 170 + 16 * fine)
    plane.paint(plane.ellipse(0, y, half - 2, 4.2), MARROW - 20 + 22 * fine)


def _table(plane: Plane) -> None:
    """The couch: a shell of carbon fibre around foam, and the mattress."""
    dip = 119 - 9 * (plane.x / 112) ** 2
    couch = plane.x.abs() < 112
    air = plane.image < -950
    plane.paint(couch & air & (plane.y > 60) & ((plane.y - dip - 3).abs() < 5), -930.0)
    shell = ((plane.y - dip - 9).abs() < 0.9) | ((plane.y - dip - 20).abs() < 0.9)
    plane.paint(couch & shell, -300.0)
    plane.paint(couch & ((plane.y - dip - 14.5).abs() < 4.6), -955.0)
