"""What simulated anatomy is painted with: one slice plane in mm, solid shapes that cross it, smooth random fields.

Coordinates are the patient's: x to the left, y to the back, z to the head. Later shapes paint over earlier ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Point = tuple[float, float, float]


def texture(shape: tuple[int, int], coarse: int, generator: torch.Generator) -> Tensor:
    """Smooth random field, mean 0, standard deviation 1, `coarse` cells a side."""
    field = torch.randn((1, 1, coarse, coarse), generator=generator)
    field = torch.nn.functional.interpolate(field, size=shape, mode="bicubic", align_corners=False)[0, 0]
    return (field - field.mean()) / field.std()


class Texture:
    """A smooth random field that changes with z: it is another one after about `depth_mm`."""

    def __init__(self, size: int, coarse: int, depth_mm: float, generator: torch.Generator) -> None:
        self._fields = [texture((size, size), coarse, generator) for _ in range(2)]
        self._depth = depth_mm

    def at(self, z: float) -> Tensor:
        """Field (size,size) at height z (mm), mean 0, standard deviation 1."""
        turn = 0.5 * math.pi * z / self._depth
        return self._fields[0] * math.cos(turn) + self._fields[1] * math.sin(turn)


@dataclass(frozen=True)
class Tube:
    """A round rod through points in mm; the radius (mm) goes evenly from `start` to `end`."""

    points: Sequence[Point]
    start: float
    end: float

    def wider(self, by: float) -> Tube:
        """The same with radii larger by `by` mm."""
        return Tube(self.points, self.start + by, self.end + by)


class Plane:
    """The slice at height z: coordinates x and y (N,N) in mm and the values painted so far."""

    def __init__(self, size: int, field_mm: float, z: float, scale: float, outside: float) -> None:
        axis = ((torch.arange(size) + 0.5) / size - 0.5) * (field_mm / scale)
        self.axis, self.z = axis, z
        self.y, self.x = torch.meshgrid(axis, axis, indexing="ij")
        self.image = torch.full_like(self.x, outside)

    def paint(self, inside: Tensor, value: float | Tensor) -> None:
        """Set where `inside`."""
        self.image = torch.where(inside, value, self.image)

    def ellipse(self, cx: float, cy: float, a: float, b: float, turn: float = 0.0) -> Tensor:
        """Inside of an ellipse with half axes a, b (mm), turned by `turn` radians."""
        cos, sin = math.cos(turn), math.sin(turn)
        u, v = (self.x - cx) * cos + (self.y - cy) * sin, -(self.x - cx) * sin + (self.y - cy) * cos
        return (u / a) ** 2 + (v / b) ** 2 <= 1.0

    def ellipsoid(self, centre: Point, half: Point, turn: float = 0.0, grow: float = 0.0) -> Tensor:
        """Inside of an ellipsoid turned about z; `grow` mm are added to its half axes."""
        a, b, c = (h + grow for h in half)
        left = 1.0 - ((self.z - centre[2]) / c) ** 2
        if left <= 0:
            return torch.zeros_like(self.x, dtype=torch.bool)
        return self.ellipse(centre[0], centre[1], a * math.sqrt(left), b * math.sqrt(left), turn)

    def stroke(self, points: Sequence[tuple[float, float]], radius: float) -> Tensor:
        """Points within `radius` mm of a line in the plane."""
        near = torch.full_like(self.x, math.inf)
        for (ax, ay), (bx, by) in itertools.pairwise(points):
            dx, dy = bx - ax, by - ay
            t = (((self.x - ax) * dx + (self.y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
            near = torch.minimum(near, torch.hypot(self.x - ax - t * dx, self.y - ay - t * dy))
        return near <= radius

    def tubes(self, tubes: Iterable[Tube], value: float, where: Tensor | None = None) -> None:
        """Paint tubes, only inside `where`; each is looked at only in the window that it can reach."""
        for tube in tubes:
            count = len(tube.points) - 1
            for k, (one, two) in enumerate(itertools.pairwise(tube.points)):
                radii = [tube.start + (tube.end - tube.start) * share for share in (k / count, (k + 1) / count)]
                self._segment(one, two, radii[0], radii[1], value, where)

    def _segment(self, one: Point, two: Point, first: float, last: float, value: float, where: Tensor | None) -> None:
        reach = max(first, last)
        if not min(one[2], two[2]) - reach < self.z < max(one[2], two[2]) + reach:
            return
        rows, columns = (self._window(min(one[n], two[n]) - reach, max(one[n], two[n]) + reach) for n in (1, 0))
        x, y = self.x[rows, columns], self.y[rows, columns]
        d = [two[n] - one[n] for n in range(3)]
        length = sum(n * n for n in d)
        t = (((x - one[0]) * d[0] + (y - one[1]) * d[1] + (self.z - one[2]) * d[2]) / length).clamp(0, 1)
        away = (x - one[0] - t * d[0]) ** 2 + (y - one[1] - t * d[1]) ** 2 + (self.z - one[2] - t * d[2]) ** 2
        inside = away <= (first + (last - first) * t) ** 2
        if where is not None:
            inside &= where[rows, columns]
        self.image[rows, columns] = torch.where(inside, value, self.image[rows, columns])

    def _window(self, low: float, high: float) -> slice:
        start, end = torch.searchsorted(self.axis, torch.tensor([low, high])).tolist()
        return slice(start, end)


def step(value: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, smooth in between."""
    t = min(1.0, max(0.0, (value - start) / (end - start)))
    return t * t * (3 - 2 * t)
