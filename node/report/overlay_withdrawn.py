"""The picture of a result that was withdrawn: a word across it, a struck sheet, stripes; no number, and nothing that a colour alone would say."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from node.report import overlay_words as words
from node.report.overlay_canvas import BACKGROUND, LEFT, MUTED, RIGHT, SIZE, TEXT, Canvas, font
from qa_engine.assessment import Assessment

STAMP = "WITHDRAWN"
STAMP_TOP, STAMP_BOTTOM = 452, 900
TILT = 22
"""Degrees by which the stamp rises."""
STRIPE = 24
FINE_SIZE = 280
"""Size of the letters before the stamp is turned and averaged down."""


def draw_withdrawn(canvas: Canvas, a: Assessment) -> None:
    """Everything but what was scored and the foot, which are those of any result."""
    _stripes(canvas)
    _sheet(canvas, LEFT, 34, 148)
    canvas.text(204, 34, "Withdrawn", 76, TEXT, True)
    canvas.text(206, 130, "The result of this series is no longer valid. Do not use it.", 22, room=RIGHT - 206)
    canvas.text(206, 164, "Not assessed: this says nothing about the images, good or bad.", 22, MUTED, room=RIGHT - 206)
    y = 270
    for finding in a.findings:
        for line in canvas.lines(words.plain(finding.text), RIGHT - LEFT, 24)[:5]:
            if y + 32 > STAMP_TOP:
                break
            canvas.text(LEFT, y, line, 24)
            y += 32
    _stamp(canvas)
    canvas.text(LEFT, 942, words.not_assessed_code(a), 17, MUTED)


def _stripes(canvas: Canvas) -> None:
    """A barrier of slanting stripes along the upper edge."""
    for x in range(-STRIPE, SIZE, 2 * STRIPE):
        canvas.draw.polygon([(x, STRIPE), (x + STRIPE, 0), (x + 2 * STRIPE, 0), (x + STRIPE, STRIPE)], fill=TEXT)


def _sheet(canvas: Canvas, x: int, y: int, side: int) -> None:
    """A sheet of paper with lines, struck through."""
    def paint(d: ImageDraw.ImageDraw, place: Callable[[float, float], tuple[float, float]], k: float) -> None:
        s, pen = side * k, int(side * k * 0.06)
        d.rectangle((s * .17, s * .03, s * .83, s * .97), outline=TEXT, width=pen)
        for at in (.25, .42, .59, .76):
            d.line([(s * .30, s * at), (s * .70, s * at)], fill=MUTED, width=pen)
        d.line([(s * .02, s * .90), (s * .98, s * .10)], fill=BACKGROUND, width=pen * 5)
        d.line([(s * .02, s * .90), (s * .98, s * .10)], fill=TEXT, width=int(pen * 2.4))

    canvas.smooth((x, y, x + side, y + side), paint)


def _stamp(canvas: Canvas) -> None:
    """The word in a frame, slanting over the lower half, as large as it fits."""
    face = font(FINE_SIZE, True)
    left, top, right, bottom = face.getbbox(STAMP)
    margin, pen = FINE_SIZE // 4, FINE_SIZE // 11
    stamp = Image.new("RGBA", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), (*BACKGROUND, 255))
    d = ImageDraw.Draw(stamp)
    d.rectangle((0, 0, stamp.width - 1, stamp.height - 1), outline=TEXT, width=pen)
    d.text((margin - left, margin - top), STAMP, font=face, fill=TEXT)
    turned = stamp.rotate(TILT, Image.Resampling.BICUBIC, expand=True)
    scale = min((RIGHT - LEFT) / turned.width, (STAMP_BOTTOM - STAMP_TOP) / turned.height)
    turned = turned.resize((int(turned.width * scale), int(turned.height * scale)), Image.Resampling.LANCZOS)
    x, y = (SIZE - turned.width) // 2, (STAMP_TOP + STAMP_BOTTOM - turned.height) // 2
    canvas.image.paste(turned, (x, y), turned)
    canvas.texts.append((STAMP, (x, y, x + turned.width, y + turned.height)))
