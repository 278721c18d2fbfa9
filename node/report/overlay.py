"""The picture of a result, 1024 x 1024: verdict and how sure it is at a glance, then where it is worst, what is wrong and by what protocol.

Readable at 1024 px and as a thumbnail; never by colour alone; no patient's name (the viewer shows it).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from node.report.context import RenderContext
from node.report.overlay_canvas import BACKGROUND, DATA, LINE, MUTED, PANEL, SIZE, TEXT, VERDICT_COLOURS, Canvas
from qa_engine.assessment import Assessment, Degradation, Quantity, SlicePicture, SliceScore
from qa_engine.description import NAMES, amount_text
from qa_engine.outcome import Severity, sentence

LEFT, RIGHT = 32, 992
WORD_X = 470
RIGHT_PANEL = 460
THUMBS = 7
MOST_FINDINGS = 3
GRADE = {Severity.NONE: 0, Severity.MILD: 1, Severity.MODERATE: 2, Severity.SEVERE: 3}
END_WORDS = {"F": "feet", "H": "head", "A": "front", "P": "back", "R": "right", "L": "left"}
PARAMETERS = {
    "CT": (("KVP", "Tube voltage"), ("TubeCurrentTimeProduct", "Current-time"), ("XRayTubeCurrent", "Tube current"), ("CTDIvol", "CTDIvol"),
           ("SliceThickness", "Slice"), ("SliceIncrement", "Increment"), ("ConvolutionKernel", "Kernel"), ("PixelSpacingRow", "Pixel"),
           ("SpiralPitchFactor", "Pitch"), ("RevolutionTime", "Rotation"), ("ReconstructionDiameter", "Diameter")),
    "MR": (("MagneticFieldStrength", "Field"), ("EchoTime", "TE"), ("RepetitionTime", "TR"), ("InversionTime", "TI"), ("FlipAngle", "Flip angle"),
           ("SliceThickness", "Slice"), ("SliceIncrement", "Increment"), ("PixelSpacingRow", "Pixel"), ("PixelBandwidth", "Bandwidth"),
           ("NumberOfAverages", "Averages"), ("AcquisitionMatrix", "Matrix")),
}
SHOWN_UNITS = {"mA.s": "mAs", "1": "", "deg": "\u00b0", "mm3": "mm\u00b3"}


def draw_overlay(a: Assessment, context: RenderContext) -> Canvas:
    """The picture with the record of its texts."""
    canvas = Canvas()
    colour = VERDICT_COLOURS[a.verdict]
    canvas.rectangle((0, 0, SIZE - 1, 9), fill=colour)
    canvas.badge(LEFT, 44, 148, a.verdict)
    if a.score is None or a.interval is None:
        _head_without_number(canvas, a)
    else:
        _head(canvas, a, a.score, a.interval, colour)
    _what(canvas, a)
    if a.slices:
        _worst(canvas, a, colour)
        _findings(canvas, a)
        _thumbs(canvas, a, colour)
        _profile(canvas, a, colour)
    else:
        _reason(canvas, a)
    _foot(canvas, a, context)
    return canvas


def _head(canvas: Canvas, a: Assessment, score: float, interval: tuple[float, float], colour: tuple[int, int, int]) -> None:
    digits = f"{score:.0f}"
    size = canvas.largest(digits, 262, (168, 150, 120))
    right = canvas.text(204, 190, digits, size, TEXT, True, anchor="ls")[2]
    low, high = interval
    numbers = canvas.text(988, 40, f"{low:.0f}\u2013{high:.0f}", 46, TEXT, True, anchor="ra")
    canvas.text(988, 92, "90 % interval", 20, MUTED, anchor="ra")
    x = max(WORD_X, right + 24)
    word = str(a.verdict)
    canvas.text(x, 22, word, canvas.largest(word, numbers[0] - x - 20, (80, 72, 64, 56, 48)), colour, True)
    x0, x1, y0, y1 = x, 988.0, 132.0, 164.0

    def at(points: float) -> float:
        return x0 + (x1 - x0) * points / 100.0

    canvas.rectangle((x0, y0, x1, y1), fill=PANEL, outline=LINE)
    canvas.rectangle((at(low), y0 + 1, max(at(high), at(low) + 2), y1 - 1), fill=colour)
    if low > 8:
        canvas.text(x0 + 6, 148, "0", 18, MUTED, anchor="lm")
    if high < 90:
        canvas.text(x1 - 6, 148, "100", 18, MUTED, anchor="rm")
    canvas.rectangle((at(score) - 4, y0 - 9, at(score) + 4, y1 + 9), fill=TEXT)
    if a.thresholds is None:
        return
    reject_below, good_from = a.thresholds
    for points in (reject_below, good_from):
        canvas.line([(at(points), y1 + 1), (at(points), y1 + 22)], TEXT, 2)
    canvas.text(at(reject_below) - 7, y1 + 6, f"Reject <{reject_below:g}", 19, MUTED, anchor="ra")
    canvas.text(at(good_from) + 7, y1 + 6, f"Good \u2265{good_from:g}", 19, MUTED)


def _head_without_number(canvas: Canvas, a: Assessment) -> None:
    canvas.text(204, 52, "Not assessed", 64, TEXT, True)
    canvas.text(206, 134, f"{a.end}: {str(a.reason).replace('-', ' ')}", 30, MUTED)


def _what(canvas: Canvas, a: Assessment) -> None:
    region = (a.region or "").split(" ")[0]
    number = "" if a.facts.series_number is None else f"series {a.facts.series_number}"
    images = f"{a.facts.stack_size or a.instances} images"
    head = " \u00b7 ".join(part for part in (f"{a.modality} {region}".strip(), a.purpose if a.modality == "CT" else "", number) if part)
    room = RIGHT - LEFT - canvas.width(f"{head} \u00b7  \u00b7 {images}", 24)
    description = canvas.fit(a.description, room, 24)
    canvas.text(LEFT, 204, " \u00b7 ".join(part for part in (head, description, images) if part), 24)
    canvas.line([(0, 244), (SIZE, 244)])


def _picture(picture: SlicePicture, side: int) -> Image.Image:
    """The slice in a square, letterboxed; shrinking averages, enlarging repeats pixels so that noise stays what it is."""
    image = Image.fromarray(np.ascontiguousarray(picture.pixels)).convert("RGB")
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    square = Image.new("RGB", (side, side), (0, 0, 0))
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _worst(canvas: Canvas, a: Assessment, colour: tuple[int, int, int]) -> None:
    worst = a.worst_slice
    assert worst is not None
    k = a.slices.index(worst)
    if k < len(a.pictures):
        canvas.image.paste(_picture(a.pictures[k], 396), (36, 260))
        left, top = a.pictures[k].markers
        if left:
            canvas.plate(48, 458, left, 20, True, anchor="lm")
        if top:
            canvas.plate(418, 272, top, 20, True, anchor="ra")
    canvas.rectangle((LEFT, 256, 435, 659), outline=colour, width=4)
    title = f"Worst slice {worst.ordinal} of {a.facts.stack_size or a.instances}" if len(a.slices) > 1 else "The slice"
    canvas.plate(46, 268, title, 22, True)
    canvas.plate(46, 646, f"score {worst.score:.0f}", 24, True, anchor="ls")
    if worst.position_mm is not None:
        canvas.plate(424, 646, f"z {worst.position_mm:.1f} mm", 19, anchor="rs")


def _grade(canvas: Canvas, y: float, d: Degradation) -> None:
    for k in range(3):
        x = RIGHT_PANEL + 26 * k
        canvas.rectangle((x, y + 4, x + 18, y + 22), fill=TEXT if k < GRADE[d.severity] else None, outline=MUTED, width=2)
    amount = amount_text(d).replace("of the tissue signal", "of signal")
    right = canvas.text(RIGHT, y + 1, f"{d.severity}, {amount}" if amount else str(d.severity), 19, MUTED, anchor="ra")
    name = NAMES[d.type]
    canvas.text(RIGHT_PANEL + 90, y - 2, name[:1].upper() + name[1:], 23, TEXT, True, room=right[0] - RIGHT_PANEL - 106)


def _findings(canvas: Canvas, a: Assessment) -> None:
    canvas.text(RIGHT_PANEL, 256, "Findings", 22, MUTED, True)
    y = 290
    shown = a.degradations[:MOST_FINDINGS]
    for d in shown:
        _grade(canvas, y, d)
        y += 34
    notes = [f.text for f in a.findings]
    if not shown:
        canvas.text(RIGHT_PANEL, y, "No degradation found", 22, TEXT)
        y += 34
    for words in notes[: MOST_FINDINGS - max(1, len(shown))]:
        canvas.text(RIGHT_PANEL, y + 2, words, 17, MUTED, room=RIGHT - RIGHT_PANEL)
        y += 34
    rest = len(notes) - (MOST_FINDINGS - max(1, len(shown)))
    if rest > 0:
        canvas.text(RIGHT, 258, f"+{rest} in the report", 17, MUTED, anchor="ra")
    for k, (name, value) in enumerate((("Noise", a.noise), ("Sharpness", a.sharpness), ("Artefact", a.artefact))):
        _axis(canvas, 396 + 33 * k, name, value)
    canvas.line([(RIGHT_PANEL, 499), (RIGHT, 499)])
    _acquisition(canvas, a)


def _axis(canvas: Canvas, y: float, name: str, value: float | None) -> None:
    canvas.text(RIGHT_PANEL, y, name, 22)
    canvas.rectangle((610, y + 4, 900, y + 23), fill=PANEL, outline=LINE)
    if value is not None:
        canvas.rectangle((611, y + 5, 611 + 288 * min(max(value, 0.0), 100.0) / 100.0, y + 22), fill=DATA)
    canvas.text(RIGHT, y, "\u2013" if value is None else f"{value:.0f}", 22, TEXT, True, anchor="ra")


def shown_quantity(quantity: Quantity) -> str:
    """A parameter for people: three digits, common signs for units."""
    unit = SHOWN_UNITS.get(quantity.unit, quantity.unit)
    value = quantity.value if isinstance(quantity.value, str) else f"{quantity.value:.4g}"
    return f"{value}{unit if unit == chr(176) else ' ' + unit if unit else ''}"


def _acquisition(canvas: Canvas, a: Assessment) -> None:
    canvas.text(RIGHT_PANEL, 508, "Acquisition", 22, MUTED, True)
    known: Mapping[str, Quantity] = a.acquisition
    rows = [(label, shown_quantity(known[name])) for name, label in PARAMETERS.get(a.modality, ()) if name in known][:8]
    for k, (label, value) in enumerate(rows):
        x, y = RIGHT_PANEL + (k % 2) * 276, 543 + (k // 2) * 30
        name = canvas.text(x, y, label, 19, MUTED)
        canvas.text(x + 256, y, value, 19, TEXT, True, anchor="ra", room=x + 256 - name[2] - 12)
    if not rows:
        canvas.text(RIGHT_PANEL, 543, "No usable parameter in the header", 19, MUTED)


def chosen_for_thumbs(slices: tuple[SliceScore, ...]) -> list[int]:
    """Up to seven indices in z order: all, or evenly spread ones with the worst among them."""
    if len(slices) <= THUMBS:
        return list(range(len(slices)))
    worst = min(range(len(slices)), key=lambda k: slices[k].score)
    spread = [round(k * (len(slices) - 1) / (THUMBS - 1)) for k in range(THUMBS)]
    spread[min(range(THUMBS), key=lambda n: abs(spread[n] - worst))] = worst
    return sorted(set(spread))


def _thumbs(canvas: Canvas, a: Assessment, colour: tuple[int, int, int]) -> None:
    worst = a.worst_slice
    heaviest = max(s.weight for s in a.slices)
    for n, k in enumerate(chosen_for_thumbs(a.slices)):
        s, x = a.slices[k], LEFT + 138 * n
        if k < len(a.pictures):
            canvas.image.paste(_picture(a.pictures[k], 130), (x + 1, 681))
        is_worst = s is worst and len(a.slices) > 1
        canvas.rectangle((x, 680, x + 131, 811), outline=colour if is_worst else LINE, width=4 if is_worst else 1)
        canvas.text(x, 815, f"{s.score:.0f}", 30, TEXT, True)
        canvas.text(x + 132, 816, f"#{s.ordinal}", 17, MUTED, anchor="ra")
        canvas.text(x + 132, 836, f"w {s.weight:.2f}", 16, MUTED, anchor="ra")
        canvas.rectangle((x, 858, x + 131, 864), fill=PANEL)
        canvas.rectangle((x, 858, x + 131 * s.weight / heaviest, 864), fill=MUTED)


def _profile(canvas: Canvas, a: Assessment, colour: tuple[int, int, int]) -> None:
    x0, x1, y0, y1 = 76.0, 992.0, 884.0, 966.0
    canvas.rectangle((x0, y0, x1, y1), outline=LINE)
    canvas.text(68, y0 - 4, "100", 16, MUTED, anchor="ra")
    canvas.text(68, y1 + 3, "0", 16, MUTED, anchor="rs")
    for points in a.thresholds or ():
        canvas.dashed(x0, x1, y1 - (y1 - y0) * points / 100.0, MUTED)
    total = max(a.facts.stack_size, max(s.ordinal for s in a.slices))

    def place(s: SliceScore) -> tuple[float, float]:
        share = 0.5 if total < 2 else (s.ordinal - 1) / (total - 1)
        return x0 + 14 + (x1 - x0 - 28) * share, y1 - (y1 - y0) * s.score / 100.0

    points = [place(s) for s in a.slices]
    if len(points) > 1:
        canvas.line(points, DATA, 2)
    worst = a.worst_slice
    for s, (x, y) in zip(a.slices, points, strict=True):
        r = 8 if s is worst else 5
        canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=colour if s is worst else TEXT, outline=BACKGROUND)
    first, last = (END_WORDS.get(letter, "") for letter in a.facts.ends)
    low = sum(s.score for s in a.slices) / len(a.slices) > 50
    y = y1 - 6 if low else y0 + 20
    canvas.text(x0 + 8, y, f"{first} (slice 1)" if first else "slice 1", 16, MUTED, anchor="ls")
    canvas.text((x0 + x1) / 2, y, "score along the stack", 16, MUTED, anchor="ms")
    canvas.text(x1 - 8, y, f"{last} (slice {total})" if last else f"slice {total}", 16, MUTED, anchor="rs")


def _reason(canvas: Canvas, a: Assessment) -> None:
    words = sentence(a.reason).split(" ")
    y, line = 300.0, ""
    for word in [*words, ""]:
        longer = f"{line} {word}".strip()
        if word and canvas.width(longer, 34) <= RIGHT - LEFT:
            line = longer
            continue
        canvas.text(LEFT, y, line, 34)
        y, line = y + 48, word
    for f in a.findings[:8]:
        y += 36
        canvas.text(LEFT, y, f.text, 22, MUTED, room=RIGHT - LEFT)
    canvas.text(LEFT, 880, "No number is given where there is no evidence for one.", 24, MUTED)


def _foot(canvas: Canvas, a: Assessment, context: RenderContext) -> None:
    canvas.rectangle((0, 976, SIZE, SIZE), fill=PANEL)
    notice = canvas.text(RIGHT, 1000, "NOT FOR DIAGNOSIS", 22, TEXT, True, anchor="rm")
    model = "" if a.model is None else f"{a.model.profile} v{a.model.version} ({a.model.sha256[:8]})"
    node = "offline, no node" if context.node_id == "offline" else context.node_name
    when = context.made_at.strftime("%Y-%m-%d %H:%M UTC")
    line = " \u00b7 ".join(part for part in (f"MedIQA Node {context.version}", f"rev {context.revision}", model, when, node) if part)
    canvas.text(LEFT, 981, line, 15, MUTED, room=notice[0] - LEFT - 24)
    canvas.text(LEFT, 1002, "Technical image quality only. Score trained on simulated degradations.", 15, MUTED, room=notice[0] - LEFT - 24)
