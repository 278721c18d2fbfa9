"""The picture of a result, 1024 x 1024: verdict and how sure it is at a glance, then where it is worst, what is wrong and by what protocol.

Readable at 1024 px and as a thumbnail; never by colour alone; no patient's name (the viewer shows it).
"""

from __future__ import annotations

from node.report import overlay_words as words
from node.report.context import RenderContext
from node.report.overlay_canvas import BACKGROUND, DATA, LEFT, LINE, MUTED, PANEL, RIGHT, SIZE, TEXT, VERDICT_COLOURS, Canvas, Colour
from node.report.overlay_thumbs import draw_thumbs, picture
from node.report.overlay_withdrawn import draw_withdrawn
from qa_engine.assessment import Assessment
from qa_engine.outcome import Reason, sentence

WORD_X = 470
TOP, SIDE = 258, 416
"""Upper edge of the middle part and side of the worst slice with its frame."""
PANEL_X = LEFT + SIDE + 20
PLOT = (76, 890, 916, 946)
FOOT = 972


def draw_overlay(a: Assessment, context: RenderContext) -> Canvas:
    """The picture with the record of its texts."""
    canvas = Canvas()
    if a.reason is Reason.RETRACTED:
        draw_withdrawn(canvas, a)
        _what(canvas, a)
        _foot(canvas, a, context)
        return canvas
    colour = VERDICT_COLOURS[a.verdict]
    canvas.rectangle((0, 0, SIZE - 1, 9), fill=colour)
    canvas.badge(LEFT, 24, 148, a.verdict)
    if a.score is None or a.interval is None or a.verdict is None:
        _head_without_number(canvas)
        _reason(canvas, a)
    else:
        _head(canvas, a, a.score, a.interval, a.verdict)
        _worst(canvas, a, colour)
        _aspects(canvas, a)
        _acquisition(canvas, a, PANEL_X, 546)
        _remarks(canvas, a, 452, 538)
        if len(a.slices) > 1:
            draw_thumbs(canvas, a, colour)
            _profile(canvas, a, colour)
        else:
            _single(canvas, a)
    _what(canvas, a)
    _foot(canvas, a, context)
    return canvas


def _head(canvas: Canvas, a: Assessment, score: float, interval: tuple[float, float], verdict: str) -> None:
    right = canvas.text(204, 158, f"{score:.0f}", 168 if score < 99.5 else 150, TEXT, True, anchor="ls")[2]
    x = max(WORD_X, right + 26)
    canvas.text(206, 178, "technical image quality, 0\u2013100", 16, MUTED, room=x - 220)
    low, high = interval
    numbers = canvas.text(RIGHT, 30, f"{low:.0f}\u2013{high:.0f}", 46, TEXT, True, anchor="ra")
    canvas.text(RIGHT, 82, "90 % interval", 20, MUTED, anchor="ra")
    canvas.text(x, 14, verdict, canvas.largest(verdict, numbers[0] - x - 20, (80, 72, 64, 56, 48)), VERDICT_COLOURS[verdict], True)
    _bar(canvas, x, score, interval, VERDICT_COLOURS[verdict], a.thresholds)
    if a.thresholds is not None:
        canvas.text(x, 182, words.interval_reason(verdict, interval, a.thresholds), 17, TEXT, room=RIGHT - x)


def _bar(canvas: Canvas, x0: float, score: float, interval: tuple[float, float], colour: Colour, thresholds: tuple[float, float] | None) -> None:
    """0 to 100 with the interval, the score as a marker above, the three zones named below."""
    y0, y1 = 124, 150

    def at(points: float) -> float:
        return x0 + (RIGHT - x0) * points / 100.0

    canvas.rectangle((x0, y0, RIGHT, y1), fill=PANEL, outline=LINE)
    canvas.rectangle((at(interval[0]), y0 + 1, max(at(interval[1]), at(interval[0]) + 2), y1 - 1), fill=colour)
    reject_below, good_from = thresholds or (0.0, 100.0)
    for points in thresholds or ():
        canvas.line([(at(points), y0 - 2), (at(points), y1 + 22)], BACKGROUND, 4)
        canvas.line([(at(points), y0 - 2), (at(points), y1 + 22)], TEXT, 2)
    canvas.marker(min(max(at(score), x0 + 3), RIGHT - 3), y0, y1)
    left, right = (x0, RIGHT)
    if thresholds is not None:
        limit = f"{reject_below:g}"
        told = canvas.first_that_fits((f"Reject below {limit}", f"Reject <{limit}", "Reject", f"<{limit}"), at(reject_below) - 7 - x0, 17)
        left = canvas.text(at(reject_below) - 7, y1 + 4, told, 17, MUTED, anchor="ra")[0]
        told = canvas.first_that_fits((f"Good from {good_from:g}", f"Good \u2265{good_from:g}", "Good", f"\u2265{good_from:g}"), RIGHT - at(good_from) - 7, 17)
        right = canvas.text(at(good_from) + 7, y1 + 4, told, 17, MUTED)[2]
        told = canvas.first_that_fits(("Usable",), at(good_from) - at(reject_below) - 10, 17)
        canvas.text((at(good_from) + at(reject_below)) / 2, y1 + 4, told, 17, MUTED, anchor="ma")
    if thresholds is None or left - x0 > 24:
        canvas.text(x0, y1 + 4, "0", 17, MUTED)
    if thresholds is None or RIGHT - right > 48:
        canvas.text(RIGHT, y1 + 4, "100", 17, MUTED, anchor="ra")


def _head_without_number(canvas: Canvas) -> None:
    canvas.text(204, 34, "Not assessed", 76, TEXT, True)
    canvas.text(206, 134, "There is no number. This says nothing about the images, good or bad.", 22, MUTED, room=RIGHT - 206)


def _what(canvas: Canvas, a: Assessment) -> None:
    first, description, images = words.what_was_scored(a)
    size = canvas.largest(" \u00b7 ".join((first, description, images)), RIGHT - LEFT, (24, 21, 18), bold=False)
    room = RIGHT - LEFT - canvas.width(f"{first} \u00b7  \u00b7 {images}", size)
    told = " \u00b7 ".join(part for part in (first, canvas.fit(description, room, size), images) if part)
    canvas.text(LEFT, 224, told, size, anchor="lm", room=RIGHT - LEFT)
    canvas.line([(0, 248), (SIZE, 248)])


def _worst(canvas: Canvas, a: Assessment, colour: Colour) -> None:
    """The worst slice as a viewer shows it: facts in the corners, directions at the edges."""
    worst = a.worst_slice
    assert worst is not None
    x0, y0, x1, y1 = LEFT + 4, TOP + 4, LEFT + SIDE - 5, TOP + SIDE - 5
    k = a.slices.index(worst)
    if k < len(a.pictures):
        canvas.image.paste(picture(a.pictures[k], SIDE - 8), (x0, y0))
        left, top = a.pictures[k].markers
        if left:
            canvas.plate(x0 + 10, (y0 + y1) / 2, left, 20, True, anchor="lm")
        if top:
            canvas.plate((x0 + x1) / 2, y0 + 10, top, 20, True, anchor="ma")
        if window := words.window_text(a):
            canvas.plate(x1 - 9, y0 + 10, window, 16, anchor="ra")
    canvas.rectangle((LEFT, TOP, LEFT + SIDE - 1, TOP + SIDE - 1), outline=colour, width=4)
    if len(a.slices) > 1:
        canvas.plate(x0 + 9, y0 + 9, "Worst slice", 22, True)
        canvas.plate(x0 + 9, y0 + 41, f"{worst.ordinal} of {a.facts.stack_size or a.instances}", 20, True)
    canvas.plate(x0 + 9, y1 - 10, f"score {worst.score:.0f}", 26, True, anchor="ls")
    if limit := words.limited_by(worst):
        canvas.plate(x0 + 9, y1 - 44, limit, 17, anchor="ls")
    for n, told in enumerate(reversed(words.place_text(worst))):
        canvas.plate(x1 - 9, y1 - 10 - 25 * n, told, 17, anchor="rs")


def _aspects(canvas: Canvas, a: Assessment) -> None:
    """Three axes: bar and points, below them squares and words for what was found."""
    canvas.text(PANEL_X, TOP - 3, "What was found", 20, MUTED, True)
    canvas.text(RIGHT, TOP - 1, "100 is best", 17, MUTED, anchor="ra")
    for n, aspect in enumerate(words.aspects(a)):
        y = TOP + 33 + 51 * n
        canvas.text(PANEL_X, y - 4, aspect.name, 21, TEXT, True)
        canvas.rectangle((606, y + 1, 940, y + 16), fill=PANEL, outline=LINE)
        if aspect.points is not None:
            canvas.rectangle((607, y + 2, 607 + 332 * min(max(aspect.points, 0.0), 100.0) / 100.0, y + 15), fill=DATA)
        canvas.text(RIGHT, y - 5, "\u2013" if aspect.points is None else f"{aspect.points:.0f}", 22, TEXT, True, anchor="ra")
        for k in range(3):
            x = PANEL_X + 21 * k
            canvas.rectangle((x, y + 23, x + 15, y + 38), fill=TEXT if k < aspect.grade else None, outline=MUTED, width=2)
        canvas.text(PANEL_X + 72, y + 20, aspect.found, 18, TEXT if aspect.grade else MUTED, room=RIGHT - PANEL_X - 72)
    canvas.line([(PANEL_X, 443), (RIGHT, 443)])


def _remarks(canvas: Canvas, a: Assessment, top: int, bottom: int) -> None:
    """What it means, then findings, as many lines as there is room for."""
    told, pitch = words.remarks(a), 20
    y = top
    for n, remark in enumerate(told):
        lines = canvas.lines(remark, RIGHT - PANEL_X, 16)
        last = n == len(told) - 1
        if y + pitch * (len(lines) + (0 if last else 1)) > bottom:
            canvas.text(PANEL_X, y, f"{len(told) - n} more remark{'s' if len(told) - n > 1 else ''} in the report", 16, MUTED)
            break
        for line in lines:
            canvas.text(PANEL_X, y, line, 16, TEXT if n == 0 else MUTED)
            y += pitch
    canvas.line([(PANEL_X, 541), (RIGHT, 541)])


def _acquisition(canvas: Canvas, a: Assessment, x0: int, y0: int) -> None:
    heading = canvas.text(x0, y0, "Acquisition", 20, MUTED, True)
    scanner = a.facts.manufacturer_model or a.facts.manufacturer
    canvas.text(RIGHT, y0 + 2, scanner, 17, MUTED, anchor="ra", room=RIGHT - heading[2] - 24)
    width = (RIGHT - x0 - 24) / 2
    rows = words.parameters(a, 8)
    for k, (label, value) in enumerate(rows):
        x, y = x0 + (k % 2) * (width + 24), y0 + 29 + (k // 2) * 25
        name = canvas.text(x, y, label, 18, MUTED)
        canvas.text(x + width, y, value, 18, TEXT, True, anchor="ra", room=x + width - name[2] - 10)
    if not rows:
        canvas.text(x0, y0 + 29, "No usable parameter in the header", 18, MUTED)


def _profile(canvas: Canvas, a: Assessment, colour: Colour) -> None:
    """Score along the stack, the limits dashed, its ends named."""
    x0, y0, x1, y1 = PLOT
    canvas.rectangle(PLOT, outline=LINE)
    canvas.text(x0 - 8, y0 - 3, "100", 15, MUTED, anchor="ra")
    canvas.text(x0 - 8, y1 + 2, "0", 15, MUTED, anchor="rs")
    if a.thresholds is not None:
        at = [y1 - (y1 - y0) * points / 100.0 for points in a.thresholds]
        for y in at:
            canvas.dashed(x0, x1, y, MUTED)
        canvas.text(x1 + 8, max(min(at[1] + 1, y1 - 17), y0 + 12), "Good", 15, MUTED, anchor="ls")
        canvas.text(x1 + 8, min(max(at[0] + 14, y0 + 29), y1 + 2), "Reject", 15, MUTED, anchor="ls")
    total = max(a.facts.stack_size, max(s.ordinal for s in a.slices))
    points = [(x0 + 12 + (x1 - x0 - 24) * (s.ordinal - 1) / max(total - 1, 1), y1 - (y1 - y0) * s.score / 100.0) for s in a.slices]
    worst = min(range(len(a.slices)), key=lambda k: a.slices[k].score)
    canvas.curve((x0 - 8, y0 - 9, x1 + 9, y1 + 10), points, 5 if len(points) <= 20 else 2, worst, colour)
    first, last = words.stack_ends(a)
    canvas.text(x0, 953, f"{first}, slice 1" if first else "slice 1", 15, MUTED)
    canvas.text((x0 + x1) / 2, 953, "score along the stack of slices", 15, MUTED, anchor="ma")
    canvas.text(x1, 953, f"{last}, slice {total}" if last else f"slice {total}", 15, MUTED, anchor="ra")


def _single(canvas: Canvas, a: Assessment) -> None:
    """One image has no profile; the space tells the result in words."""
    canvas.text(LEFT, 692, "In words", 20, MUTED, True)
    y = 726
    for line in canvas.lines(a.text, RIGHT - LEFT, 22)[:6]:
        canvas.text(LEFT, y, line, 22)
        y += 33
    canvas.text(LEFT, 938, "A single image was scored; there is no profile along a stack.", 17, MUTED)


def _reason(canvas: Canvas, a: Assessment) -> None:
    """Why there is no number, what was noticed, and the parameters that were read."""
    y = 282
    for line in canvas.lines(sentence(a.reason), RIGHT - LEFT, 34):
        canvas.text(LEFT, y, line, 34)
        y += 46
    y += 6
    if again := words.again_text(a):
        canvas.text(LEFT, y, again, 22)
        y += 40
    notes, bottom = words.remarks(a), 730 if a.acquisition else 900
    if notes:
        y += 20
        canvas.text(LEFT, y, "Noticed while reading the series", 20, MUTED, True)
        y += 36
    for n, note in enumerate(notes):
        lines = canvas.lines(note, RIGHT - LEFT, 20)
        if y + 28 * len(lines) > bottom:
            canvas.text(LEFT, y, f"{len(notes) - n} more in the report", 20, MUTED)
            break
        for line in lines:
            canvas.text(LEFT, y, line, 20)
            y += 28
    if a.acquisition:
        canvas.line([(LEFT, 776), (RIGHT, 776)])
        _acquisition(canvas, a, LEFT, 792)
    canvas.text(LEFT, 942, words.not_assessed_code(a), 17, MUTED)


def _foot(canvas: Canvas, a: Assessment, context: RenderContext) -> None:
    canvas.rectangle((0, FOOT, SIZE, SIZE), fill=PANEL)
    ours, model, behind, node = words.foot_texts(a, context)
    tail = f"{behind} \u00b7 {canvas.fit(node, 190, 15)}"
    model = canvas.fit(model, RIGHT - LEFT - canvas.width(f"{ours} \u00b7  {tail}", 15), 15)
    canvas.text(LEFT, FOOT + 5, f"{ours} \u00b7 {model} {tail}" if model else f"{ours} \u00b7 {tail}", 15, MUTED, room=RIGHT - LEFT)
    notice = canvas.text(RIGHT, 1008, "NOT FOR DIAGNOSIS", 20, TEXT, True, anchor="rm")
    canvas.text(LEFT, 1008, "Technical image quality only. Score trained on simulated degradations.", 16, MUTED, anchor="lm", room=notice[0] - LEFT - 24)
