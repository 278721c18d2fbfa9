"""Drawing for the overlay: text that is measured before it is set, curves without jags, and a record of what was drawn where (tests read it)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = 1024
LEFT, RIGHT = 32, 992
"""Margins."""
FONTS = Path(__file__).with_name("fonts")
BACKGROUND, PANEL, LINE = (16, 18, 22), (30, 33, 40), (70, 74, 83)
TEXT, MUTED, DATA = (240, 240, 240), (172, 179, 189), (120, 170, 220)
VERDICT_COLOURS = {"Good": (38, 184, 140), "Usable": (250, 204, 74), "Reject": (213, 94, 0), None: (140, 146, 156)}
"""Hues of Okabe and Ito, set apart in lightness too; shape and word tell the verdicts apart without colour."""
FINER = 4
"""Curves and badges are drawn at this scale and averaged down."""

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Painter = Callable[[ImageDraw.ImageDraw, Callable[[float, float], tuple[float, float]], float], None]


@cache
def font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from the package; basic layout keeps the pixels the same everywhere."""
    return ImageFont.truetype(str(FONTS / f"DejaVuSans{'-Bold' if bold else ''}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _drawable(character: str) -> bool:
    """Whether the font has a sign for the character."""
    face = font(20, False)
    return bytes(face.getmask(character)) != bytes(face.getmask("\uffff"))


def writable(words: str) -> str:
    """The text in signs that the font has; what it lacks (Han, Hangul ...) becomes one ellipsis a run."""
    found = ""
    for c in unicodedata.normalize("NFC", words):
        if c.isspace():
            found += " "
        elif c.isprintable() and not found.endswith("\u2026"):
            found += c if _drawable(c) else "\u2026"
        elif c.isprintable() and _drawable(c):
            found += c
    return found.strip()


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
        words = writable(words)
        if self.width(words, size, bold) <= room:
            return words
        while words and self.width(words.rstrip() + "\u2026", size, bold) > room:
            words = words[:-1]
        return words.rstrip() + "\u2026" if words else ""

    def text(self, x: float, y: float, words: str, size: int, colour: Colour = TEXT, bold: bool = False, anchor: str = "la",
             room: float | None = None) -> Box:
        """Set a string at an anchor of Pillow (la = left, ascender); its box."""
        words = self.fit(words, float("inf") if room is None else room, size, bold)
        if not words:
            return x, y, x, y
        face = font(size, bold)
        box = self.draw.textbbox((x, y), words, font=face, anchor=anchor)
        self.draw.text((x, y), words, font=face, fill=colour, anchor=anchor)
        self.texts.append((words, box))
        return box

    def lines(self, words: str, room: float, size: int) -> list[str]:
        """The string broken between words into lines that fit."""
        found = [""]
        tied = re.sub(r"(?<=\d) (?=[A-Za-z]{1,3}\b)", "\u00a0", writable(words))  # a number stays with its unit
        for word in (self.fit(w, room, size) for w in tied.split(" ") if w):
            longer = f"{found[-1]} {word}".strip()
            if found[-1] and self.width(longer, size) > room:
                found.append(word)
            else:
                found[-1] = longer
        return found if found[0] else []

    def largest(self, words: str, room: float, sizes: Sequence[int], bold: bool = True) -> int:
        """The largest of `sizes` at which a string fits."""
        return next((s for s in sizes if self.width(words, s, bold) <= room), sizes[-1])

    def first_that_fits(self, candidates: Sequence[str], room: float, size: int) -> str:
        """The first of `candidates` that fits, "" when none does."""
        return next((words for words in candidates if self.width(words, size) <= room), "")

    def rectangle(self, box: Box, fill: Colour | None = None, outline: Colour | None = None, width: int = 1) -> None:
        self.draw.rectangle(box, fill=fill, outline=outline, width=width)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour = LINE, width: int = 1) -> None:
        self.draw.line(list(points), fill=colour, width=width)

    def dashed(self, x0: float, x1: float, y: float, colour: Colour) -> None:
        """A dashed horizontal line."""
        for x in range(int(x0), int(x1), 14):
            self.draw.line([(x, y), (min(x + 7, x1), y)], fill=colour, width=1)

    def plate(self, x: float, y: float, words: str, size: int, bold: bool = False, anchor: str = "la") -> Box:
        """Text on a dark plate, for use over an image; the box of the text."""
        box = self.draw.textbbox((x, y), words, font=font(size, bold), anchor=anchor)
        self.draw.rectangle((box[0] - 5, box[1] - 4, box[2] + 5, box[3] + 4), fill=(0, 0, 0))
        return self.text(x, y, words, size, TEXT, bold, anchor)

    def smooth(self, box: tuple[int, int, int, int], paint: Painter) -> None:
        """Let `paint(draw, place, scale)` draw on a finer copy of `box`; place turns points of the picture into points of the copy."""
        part = self.image.crop(box)
        finer = part.resize((part.width * FINER, part.height * FINER), Image.Resampling.NEAREST)
        paint(ImageDraw.Draw(finer), lambda x, y: ((x - box[0]) * FINER, (y - box[1]) * FINER), FINER)
        self.image.paste(finer.resize(part.size, Image.Resampling.BOX), box[:2])

    def curve(self, box: tuple[int, int, int, int], points: Sequence[tuple[float, float]], radius: float, marked: int, colour: Colour) -> None:
        """A line through points with a dot each; the marked one is larger, ringed and in `colour`."""
        def paint(d: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], k: float) -> None:
            there = [place(*p) for p in points]
            if len(there) > 1:
                d.line(there, fill=DATA, width=int(2 * k), joint="curve")
            for n in sorted(range(len(there)), key=lambda n: n == marked):
                (x, y), r = there[n], k * (8 if n == marked else radius)
                d.ellipse((x - r, y - r, x + r, y + r), fill=TEXT, outline=BACKGROUND, width=int(k))
                if n == marked:
                    d.ellipse((x - 0.6 * r, y - 0.6 * r, x + 0.6 * r, y + 0.6 * r), fill=colour)

        self.smooth(box, paint)

    def marker(self, x: float, top: float, bottom: float) -> None:
        """A white line with a point above, dark-edged so that it shows on any colour."""
        def paint(d: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], k: float) -> None:
            for grow, fill in ((2, BACKGROUND), (0, TEXT)):
                d.rectangle((*place(x - 2 - grow, top), *place(x + 2 + grow, bottom)), fill=fill)
                d.polygon([place(x - 9 - grow, top - 13 - grow), place(x + 9 + grow, top - 13 - grow), place(x, top + 1 + grow)], fill=fill)

        self.smooth((int(x) - 14, int(top) - 18, int(x) + 15, int(bottom) + 1), paint)

    def badge(self, x: int, y: int, side: int, verdict: str | None) -> None:
        """Circle with a dark tick, triangle with a dark exclamation mark, white-rimmed octagon with a white cross, ring with a dash."""
        def paint(d: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], k: float) -> None:
            _badge(d, side * k, verdict)

        self.smooth((x, y, x + side, y + side), paint)


def _badge(d: ImageDraw.ImageDraw, s: float, verdict: str | None) -> None:
    """The sign of a verdict in a square of side `s` from the origin."""
    colour, ink, pen = VERDICT_COLOURS[verdict], BACKGROUND, int(s * 0.11)

    def octagon(inset: float, fill: Colour) -> None:
        low, high, cut = inset, s - inset - 1, (s - 2 * inset) * 0.293
        d.polygon([(low + cut, low), (high - cut, low), (high, low + cut), (high, high - cut), (high - cut, high), (low + cut, high),
                   (low, high - cut), (low, low + cut)], fill=fill)

    def stroke(points: Sequence[tuple[float, float]], fill: Colour) -> None:
        there = [(s * x, s * y) for x, y in points]
        d.line(there, fill=fill, width=pen, joint="curve")
        for px, py in (there[0], there[-1]):
            d.ellipse((px - pen / 2, py - pen / 2, px + pen / 2, py + pen / 2), fill=fill)

    if verdict == "Good":
        d.ellipse((0, 0, s - 1, s - 1), fill=colour)
        stroke([(.26, .53), (.44, .70), (.75, .33)], ink)
    elif verdict == "Usable":
        d.polygon([(s * .5, s * .03), (s - 1, s * .95), (0, s * .95)], fill=colour)
        stroke([(.5, .40), (.5, .63)], ink)
        d.ellipse((s * .5 - pen * .6, s * .75, s * .5 + pen * .6, s * .75 + pen * 1.2), fill=ink)
    elif verdict == "Reject":
        octagon(0, TEXT)
        octagon(s * 0.05, colour)
        stroke([(.31, .31), (.69, .69)], TEXT)
        stroke([(.31, .69), (.69, .31)], TEXT)
    else:
        d.ellipse((0, 0, s - 1, s - 1), fill=colour)
        d.ellipse((pen, pen, s - 1 - pen, s - 1 - pen), fill=ink)
        stroke([(.30, .5), (.70, .5)], colour)
