"""Drawing for the overlay: text that is measured before it is set, and a record of what was drawn where (tests read it)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = 1024
FONTS = Path(__file__).with_name("fonts")
BACKGROUND, PANEL, LINE = (16, 18, 22), (28, 31, 37), (64, 68, 76)
TEXT, MUTED, DATA = (240, 240, 240), (165, 172, 182), (120, 170, 220)
VERDICT_COLOURS = {"Good": (0, 158, 115), "Usable": (240, 178, 40), "Reject": (213, 94, 0), None: (140, 146, 156)}
"""Hues of Okabe and Ito; shape, word and lightness tell the verdicts apart without colour."""

Box = tuple[float, float, float, float]


@cache
def font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from the package; basic layout keeps the pixels the same everywhere."""
    return ImageFont.truetype(str(FONTS / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


@dataclass
class Canvas:
    """A square picture; `texts` are (string, box) in order of drawing."""

    image: Image.Image = field(default_factory=lambda: Image.new("RGB", (SIZE, SIZE), BACKGROUND))
    texts: list[tuple[str, Box]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = ImageDraw.Draw(self.image)

    def width(self, words: str, size: int, bold: bool = False) -> float:
        """Width of a string in pixels."""
        return font(size, bold).getlength(words)

    def fit(self, words: str, room: float, size: int, bold: bool = False) -> str:
        """The string, cut with an ellipsis where it does not fit."""
        if self.width(words, size, bold) <= room:
            return words
        while words and self.width(words.rstrip() + "\u2026", size, bold) > room:
            words = words[:-1]
        return words.rstrip() + "\u2026" if words else ""

    def text(self, x: float, y: float, words: str, size: int, colour: tuple[int, int, int] = TEXT, bold: bool = False,
             anchor: str = "la", room: float | None = None) -> Box:
        """Set a string at an anchor of Pillow (la = left, ascender); its box."""
        words = "".join(c for c in words if c.isprintable())
        if room is not None:
            words = self.fit(words, room, size, bold)
        if not words:
            return x, y, x, y
        face = font(size, bold)
        box = self.draw.textbbox((x, y), words, font=face, anchor=anchor)
        self.draw.text((x, y), words, font=face, fill=colour, anchor=anchor)
        self.texts.append((words, box))
        return box

    def largest(self, words: str, room: float, sizes: tuple[int, ...], bold: bool = True) -> int:
        """The largest of `sizes` at which a string fits."""
        return next((s for s in sizes if self.width(words, s, bold) <= room), sizes[-1])

    def rectangle(self, box: Box, fill: tuple[int, int, int] | None = None, outline: tuple[int, int, int] | None = None,
                  width: int = 1) -> None:
        self.draw.rectangle(box, fill=fill, outline=outline, width=width)

    def line(self, points: list[tuple[float, float]], colour: tuple[int, int, int] = LINE, width: int = 1) -> None:
        self.draw.line(points, fill=colour, width=width)

    def dashed(self, x0: float, x1: float, y: float, colour: tuple[int, int, int]) -> None:
        """A dashed horizontal line."""
        for x in range(int(x0), int(x1), 14):
            self.draw.line([(x, y), (min(x + 7, x1), y)], fill=colour, width=1)

    def plate(self, x: float, y: float, words: str, size: int, bold: bool = False, anchor: str = "la") -> None:
        """Text on a dark plate, for use over an image."""
        box = self.draw.textbbox((x, y), words, font=font(size, bold), anchor=anchor)
        self.draw.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=(0, 0, 0))
        self.text(x, y, words, size, TEXT, bold, anchor)

    def badge(self, x: float, y: float, side: float, verdict: str | None) -> None:
        """Circle with a tick, triangle with an exclamation mark, octagon with a cross, circle with a dash."""
        colour, ink, d = VERDICT_COLOURS[verdict], BACKGROUND, self.draw
        cx, cy, r = x + side / 2, y + side / 2, side / 2
        pen = int(side * 0.11)
        if verdict == "Good":
            d.ellipse((x, y, x + side, y + side), fill=colour)
            d.line([(x + side * .25, y + side * .53), (x + side * .44, y + side * .71), (x + side * .76, y + side * .32)], fill=ink, width=pen,
                   joint="curve")
        elif verdict == "Usable":
            d.polygon([(cx, y), (x + side, y + side * .93), (x, y + side * .93)], fill=colour)
            d.rectangle((cx - pen * .5, y + side * .36, cx + pen * .5, y + side * .64), fill=ink)
            d.ellipse((cx - pen * .6, y + side * .71, cx + pen * .6, y + side * .71 + pen * 1.2), fill=ink)
        elif verdict == "Reject":
            cut = side * .29
            d.polygon([(x + cut, y), (x + side - cut, y), (x + side, y + cut), (x + side, y + side - cut), (x + side - cut, y + side),
                       (x + cut, y + side), (x, y + side - cut), (x, y + cut)], fill=colour)
            for sign in (1, -1):
                d.line([(cx - r * .42, cy - sign * r * .42), (cx + r * .42, cy + sign * r * .42)], fill=ink, width=pen)
        else:
            d.ellipse((x, y, x + side, y + side), fill=colour)
            d.rectangle((cx - r * .5, cy - pen / 2, cx + r * .5, cy + pen / 2), fill=ink)
