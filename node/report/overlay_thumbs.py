"""The row of scored slices in the picture: each with its score, its share in the total, and a mark where it stands out between the evenly spaced."""

from __future__ import annotations

import numpy as np
from PIL import Image

from node.report import overlay_words as words
from node.report.overlay_canvas import LEFT, LINE, MUTED, PANEL, RIGHT, TEXT, Canvas, Colour
from qa_engine.assessment import Assessment, SlicePicture, SliceScore

THUMB, THUMB_TOP, THUMBS = 130, 709, 7
MOST_THUMBS, GAP = 10, 8
"""Seven salient slices and three outliers fit when they are smaller; `GAP` pixels lie between them."""


def picture(picture: SlicePicture, side: int) -> Image.Image:
    """The slice in a square, letterboxed; shrinking averages, enlarging repeats pixels so that noise stays what it is."""
    image = Image.fromarray(np.ascontiguousarray(picture.pixels))
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    square = Image.new("RGB", (side, side), (0, 0, 0))
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def chosen_for_thumbs(slices: tuple[SliceScore, ...]) -> list[int]:
    """Indices in z order: all of up to ten, or seven evenly spread ones with the worst among them."""
    if len(slices) <= MOST_THUMBS:
        return list(range(len(slices)))
    worst = min(range(len(slices)), key=lambda k: slices[k].score)
    spread = [round(k * (len(slices) - 1) / (THUMBS - 1)) for k in range(THUMBS)]
    spread[min(range(THUMBS), key=lambda n: abs(spread[n] - worst))] = worst
    return sorted(set(spread))


def draw_thumbs(canvas: Canvas, a: Assessment, colour: Colour) -> None:
    """Up to ten slices under one window, each with its score and its share in the total; outliers are marked."""
    chosen, worst = chosen_for_thumbs(a.slices), a.worst_slice
    first, last = words.stack_ends(a)
    count = f"{len(chosen)} of {len(a.slices)}" if len(chosen) < len(a.slices) else f"{len(chosen)}"
    canvas.text(LEFT, 682, f"{count} scored slices" + (f", {first} to {last}" if first else ""), 18, MUTED, True)
    told = "large: score of the slice \u00b7 %: its share in the total"
    canvas.text(RIGHT, 684, f"+ stands out \u00b7 {told}" if any(a.slices[k].outlier for k in chosen) else told, 16, MUTED, anchor="ra")
    heaviest = max(s.weight for s in a.slices)
    places = max(len(chosen), THUMBS)
    side = min(THUMB, (RIGHT - LEFT - (places - 1) * GAP) // places)
    pitch = (RIGHT - LEFT - side) / (places - 1)
    top = THUMB_TOP + THUMB - side
    for n, k in enumerate(chosen):
        s, x = a.slices[k], round(LEFT + pitch * n + (places - len(chosen)) * pitch / 2)
        if k < len(a.pictures):
            canvas.image.paste(picture(a.pictures[k], side - 2), (x + 1, top + 1))
        canvas.rectangle((x, top, x + side - 1, top + side - 1), outline=colour if s is worst else LINE, width=4 if s is worst else 1)
        small = side < THUMB
        inset, name = 7 if small else 10, f"{s.ordinal} worst" if s is worst else f"{s.ordinal}"
        canvas.plate(x + inset, top + inset, name, 13 if small else 15, s is worst)
        if s.outlier:
            canvas.text(x + side / 2, top - 20, f"+ {words.OUTLIER[s.outlier]}", 14, TEXT, anchor="ma", room=side + GAP)
        canvas.text(x, 844 if small else 838, f"{s.score:.0f}", 22 if small else 29, TEXT, True)
        canvas.text(x + side - 1, 848, words.share_text(s.weight), 14 if small else 18, MUTED, anchor="ra")
        canvas.rectangle((x, 875, x + side - 1, 880), fill=PANEL)
        canvas.rectangle((x, 875, x + (side - 1) * s.weight / heaviest, 880), fill=MUTED)
