"""The run of a training as a table (CSV) and a picture (PNG): rows are appended as they come, and a run that goes on appends to its own."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, LEFT, TOP, RIGHT, BOTTOM = (900, 520), 80, 40, 24, 56
COLOURS = ("#1f5fa8", "#c4501b", "#2e8540", "#7a3e9d", "#8a6d00", "#444444")
INK, GRID = "#222222", "#dddddd"
SMALL = 1e-12


class RunLog:
    """`path` is the CSV; its picture lies beside it. The first column is the abscissa, the others are curves."""

    def __init__(self, path: Path, columns: Sequence[str], goes_on_from: float | None = None) -> None:
        """A run that goes on keeps its rows up to that abscissa; what a cut run wrote beyond its checkpoint is made again."""
        self.path, self.columns = path, tuple(columns)
        self.rows: list[list[float]] = []
        if goes_on_from is not None and path.is_file():
            names, rows = read_log(path)
            self.rows = [row for row in rows if row[0] <= goes_on_from] if tuple(names) == self.columns else []
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([self.columns, *([f"{v:.6g}" for v in row] for row in self.rows)])

    def append(self, *values: float) -> None:
        """One row, in the order of the columns; NaN where a curve has no point."""
        if len(values) != len(self.columns):
            raise ValueError(f"{len(values)} values for {len(self.columns)} columns")
        self.rows.append([float(v) for v in values])
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([f"{v:.6g}" for v in values])

    def draw(self, title: str) -> Path:
        """The picture of the run so far."""
        picture = self.path.with_suffix(".png")
        plot(self.columns, self.rows, title).save(picture)
        return picture


def read_log(path: Path) -> tuple[list[str], list[list[float]]]:
    """Columns and rows of a CSV of `RunLog`; a last line that a kill cut short is left out."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    names = lines[0] if lines else []
    rows = []
    for line in lines[1:]:
        try:
            row = [float(v) for v in line]
        except ValueError:
            continue
        if len(row) == len(names):
            rows.append(row)
    return names, rows


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values between low and high."""
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw)
    first = math.ceil(low / step) * step
    return [first + k * step for k in range(int((high - first) / step + 1e-9) + 1)]


def plot(columns: Sequence[str], rows: Sequence[Sequence[float]], title: str) -> Image.Image:
    """Curves over the first column; the ordinate is logarithmic where all values are above 0 and span more than tenfold."""
    image = Image.new("RGB", SIZE, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    draw.text((LEFT, 12), title, fill=INK, font=font)
    points = {name: [(r[0], r[k]) for r in rows if math.isfinite(r[k])] for k, name in enumerate(columns) if k}
    values = [y for curve in points.values() for _, y in curve]
    if not values:
        return image
    logarithmic = min(values) > 0 and max(values) > 10 * min(values)

    def scaled(y: float) -> float:
        return math.log10(y) if logarithmic else y

    xs = [x for curve in points.values() for x, _ in curve]
    x0, x1 = min(xs), max(max(xs), min(xs) + SMALL)
    y0, y1 = scaled(min(values)), scaled(max(values))
    y0, y1 = (y0, y1) if y1 - y0 > SMALL else (y0 - 0.5, y0 + 0.5)
    width, height = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - x0) / (x1 - x0) * width, TOP + (y1 - y) / (y1 - y0) * height

    for tick in _ticks(y0, y1):
        _, y = place(x0, tick)
        draw.line([(LEFT, y), (LEFT + width, y)], fill=GRID)
        draw.text((LEFT - 8, y), f"{10 ** tick if logarithmic else tick:.3g}", fill=INK, font=font, anchor="rm")
    if x1 - x0 > SMALL:
        for tick in _ticks(x0, x1):
            x, _ = place(tick, y0)
            draw.text((x, TOP + height + 8), f"{tick:g}", fill=INK, font=font, anchor="ma")
    draw.text((LEFT + width / 2, SIZE[1] - 8), columns[0], fill=INK, font=font, anchor="mb")
    draw.rectangle([LEFT, TOP, LEFT + width, TOP + height], outline=INK)
    for number, (name, curve) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = [place(x, scaled(y)) for x, y in curve]
        if len(line) > 1:
            draw.line(line, fill=colour, width=2)
        elif line:
            draw.ellipse([line[0][0] - 3, line[0][1] - 3, line[0][0] + 3, line[0][1] + 3], fill=colour)
        draw.text((LEFT + width - 110 * (len(points) - 1 - number), 12), name, fill=colour, font=font, anchor="ra")
    return image
