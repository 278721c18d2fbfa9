"""Great vessels and airways of the simulated chest as tubes in mm, and the trees inside the lungs."""

from __future__ import annotations

import math

import torch

from qa_engine.simulation.shapes import Point, Tube

AORTA = (Tube(((8, -14, 56), (-3, -24, 84), (-2, -24, 106), (3, -15, 120), (14, 6, 124), (22, 28, 117), (24, 40, 102)), 15.0, 13.0),
         Tube(((24, 40, 102), (19, 46, 60), (12, 45, -10)), 13.0, 11.5))
ARTERIES = (*AORTA,
            Tube(((26, -44, 62), (30, -24, 84)), 14.0, 13.0), Tube(((30, -24, 84), (42, 2, 92), (56, 16, 88)), 12.0, 9.0),
            Tube(((30, -20, 84), (4, -3, 82), (-30, 2, 80), (-50, 8, 76)), 11.0, 8.5),
            Tube(((0, -18, 120), (-9, -14, 138), (-16, -12, 165)), 6.8, 6.0), Tube(((9, -6, 124), (12, -4, 165)), 4.2, 4.0),
            Tube(((17, 10, 124), (28, 8, 165)), 5.2, 5.0))
VEINS = (Tube(((-24, -14, 56), (-27, -20, 92), (-24, -26, 126)), 9.5, 9.0), Tube(((-24, -26, 126), (-36, -20, 165)), 7.5, 7.0),
         Tube(((-24, -28, 126), (6, -42, 133), (36, -32, 148), (44, -22, 165)), 7.0, 6.5),
         Tube(((-22, 16, -10), (-24, 12, 22), (-24, -6, 36)), 13.0, 12.0), Tube(((-7, 50, -10), (-8, 48, 100), (-18, 24, 108), (-24, -8, 104)), 4.0, 5.0),
         Tube(((30, 4, 58), (58, 18, 60)), 7.0, 4.5), Tube(((30, -2, 60), (60, -18, 66)), 6.5, 4.0),
         Tube(((-20, 6, 58), (-52, 20, 56)), 7.0, 4.5), Tube(((-20, 0, 60), (-52, -16, 64)), 6.5, 4.0))
AIRWAYS = (Tube(((0, 13, 170), (0, 18, 104)), 9.0, 8.6), Tube(((0, 18, 104), (-28, 16, 90)), 7.6, 6.8), Tube(((0, 18, 104), (38, 20, 83)), 7.0, 6.0),
           Tube(((-28, 16, 90), (-39, 18, 66)), 5.4, 4.8), Tube(((-26, 16, 92), (-50, 6, 106)), 4.4, 3.2), Tube(((38, 20, 83), (56, 4, 96)), 4.4, 3.2),
           Tube(((38, 20, 83), (50, 30, 60)), 4.6, 3.4), Tube(((-39, 18, 66), (-53, 30, 44)), 4.2, 3.2), Tube(((-39, 18, 66), (-54, -14, 52)), 3.6, 2.8))

_LOBES: tuple[tuple[Point, Point], ...] = (
    ((48, 4, 104), (0.5, -0.2, 0.85)), ((46, 8, 96), (0.55, 0.5, 0.65)), ((48, 0, 90), (0.6, -0.75, 0.3)), ((50, -8, 70), (0.65, -0.7, -0.25)),
    ((48, 22, 74), (0.35, 0.85, 0.1)), ((50, 26, 58), (0.45, 0.5, -0.75)), ((50, 22, 56), (0.8, 0.05, -0.6)), ((50, 14, 58), (0.55, -0.45, -0.7)))
"""Where the vessels of the lobes begin (left side, mm) and where they go."""
GENERATIONS = 7


def lung_trees(generator: torch.Generator) -> tuple[list[Tube], list[Tube]]:
    """(vessels, bronchi) of both lungs; bronchi run beside the first generations of the arteries."""
    vessels: list[Tube] = []
    bronchi: list[Tube] = []
    for side in (-1.0, 1.0):
        for (x, y, z), (dx, dy, dz) in _LOBES:
            _grow(vessels, bronchi, (side * x, y, z), _unit((side * dx, dy, dz)), 3.7, 27.0, 0, generator)
            # a vein of its own way back
            _grow(vessels, [], (side * (x - 4), y - 6, z - 6), _unit((side * dx, dy - 0.3, dz - 0.3)), 3.0, 26.0, 1, generator)
    return vessels, bronchi


def _grow(vessels: list[Tube], bronchi: list[Tube], start: Point, way: Point, radius: float, length: float, generation: int,
          generator: torch.Generator) -> None:
    """One branch and its two children, each turned away by 20 to 45 degrees."""
    draw = torch.rand(4, generator=generator).tolist()
    reach = length * (0.75 + 0.5 * draw[0])
    end: Point = tuple(s + reach * w for s, w in zip(start, way, strict=True))
    vessels.append(Tube((start, end), radius, radius * 0.84))
    if generation < 3:
        aside = _across(way, 6.3 * draw[1])
        gap = radius * 1.7
        bronchi.append(Tube(tuple(tuple(p + gap * n for p, n in zip(point, aside, strict=True)) for point in (start, end)),
                            radius * 0.62, radius * 0.5))
    if generation + 1 == GENERATIONS:
        return
    turned = _across(way, 2 * math.pi * draw[2])
    for sign in (-1, 1):
        angle = math.radians(20 + 25 * draw[3]) * sign
        child = _unit(tuple(w * math.cos(angle) + n * math.sin(angle) for w, n in zip(way, turned, strict=True)))
        _grow(vessels, bronchi, end, child, radius * 0.75, length * 0.83, generation + 1, generator)


def _unit(v: tuple[float, ...]) -> Point:
    length = math.sqrt(sum(n * n for n in v))
    return tuple(n / length for n in v)


def _across(way: Point, angle: float) -> Point:
    """A direction at right angles to `way`, turned about it by `angle`."""
    helper = (0.0, 0.0, 1.0) if abs(way[2]) < 0.8 else (1.0, 0.0, 0.0)
    one = _unit(_cross(way, helper))
    two = _cross(way, one)
    return tuple(a * math.cos(angle) + b * math.sin(angle) for a, b in zip(one, two, strict=True))


def _cross(a: Point, b: Point) -> Point:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
