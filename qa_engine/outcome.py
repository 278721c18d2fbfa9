"""Ends of a series revision, their reason codes, verdicts and finding severities: one table that is also the manual.

`storage` keeps these as opaque text; SR, CLI, SQL views and docs/outcomes.md (written by `manual()`) use the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class End(StrEnum):
    """How a series revision ended. Only `ASSESSED` carries a number."""

    ASSESSED = "assessed"
    ABSTAINED = "abstained"
    SKIPPED = "skipped"
    UNDECODABLE = "undecodable"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a revision ended other than `assessed`."""

    OUTSIDE_ENVELOPE = "outside-envelope"
    UNFAMILIAR_CONTENT = "unfamiliar-content"
    PHANTOM = "phantom"
    INCOMPLETE_SERIES = "incomplete-series"
    WIDE_INTERVAL = "wide-interval"
    NO_MODEL = "no-model"
    RETRACTED = "retracted"
    NOT_AN_IMAGE = "not-an-image"
    LOCALIZER = "localizer"
    DERIVED = "derived"
    OWN_RESULT = "own-result"
    COLOUR = "colour"
    MODALITY_NOT_SCORED = "modality-not-scored"
    TOO_SMALL = "too-small"
    MIXED_GEOMETRY = "mixed-geometry"
    EXCLUDED_BY_RULE = "excluded-by-rule"
    SUPERSEDED = "superseded"
    NO_DECODER = "no-decoder"
    CORRUPT_PIXEL_DATA = "corrupt-pixel-data"
    INCONSISTENT_PIXEL_DESCRIPTION = "inconsistent-pixel-description"
    OVER_LIMIT = "over-limit"
    INTERNAL_ERROR = "internal-error"
    SET_ASIDE = "set-aside"


class Verdict(StrEnum):
    """Three-way verdict taken from the interval (DESIGN section 6)."""

    GOOD = "Good"
    USABLE = "Usable"
    REJECT = "Reject"


class Severity(StrEnum):
    """Grade of a degradation, bound to a physical amount (SNOMED CT CID 3716)."""

    NONE = "none"
    MILD = "mild"
    MODERATE = "moderate"
    SEVERE = "severe"


@dataclass(frozen=True)
class OutcomeRow:
    """One row of the manual: an end, its reason, a sentence for people and whether doing it again can help."""

    end: End
    reason: Reason | None
    sentence: str
    again_helps: bool


TABLE: tuple[OutcomeRow, ...] = (
    OutcomeRow(End.ASSESSED, None, "The series was scored.", False),
    OutcomeRow(End.ABSTAINED, Reason.OUTSIDE_ENVELOPE, "Too few real patients of this modality, body region and field of view stand behind the model.", False),
    OutcomeRow(End.ABSTAINED, Reason.UNFAMILIAR_CONTENT, "The pixels look unlike anything that the model was tested on.", False),
    OutcomeRow(End.ABSTAINED, Reason.PHANTOM, "The pixels show a test object, not a patient.", False),
    OutcomeRow(End.ABSTAINED, Reason.INCOMPLETE_SERIES, "Too many slices of the series are missing.", True),
    OutcomeRow(End.ABSTAINED, Reason.WIDE_INTERVAL, "The prediction interval is too wide to say anything useful.", False),
    OutcomeRow(End.ABSTAINED, Reason.NO_MODEL, "No model file is installed for this modality.", True),
    OutcomeRow(End.ABSTAINED, Reason.RETRACTED, "An operator withdrew the result.", False),
    OutcomeRow(End.SKIPPED, Reason.NOT_AN_IMAGE, "The objects hold no image to be judged (report, presentation state, document, waveform ...).", False),
    OutcomeRow(End.SKIPPED, Reason.LOCALIZER, "A localizer or scout image.", False),
    OutcomeRow(End.SKIPPED, Reason.DERIVED, "A Secondary Capture, computed map or projection.", False),
    OutcomeRow(End.SKIPPED, Reason.OWN_RESULT, "A result of this node that was sent back.", False),
    OutcomeRow(End.SKIPPED, Reason.COLOUR, "Colour images are not scored.", False),
    OutcomeRow(End.SKIPPED, Reason.MODALITY_NOT_SCORED, "This modality is not scored.", False),
    OutcomeRow(End.SKIPPED, Reason.TOO_SMALL, "The image matrix is too small to be judged.", False),
    OutcomeRow(End.SKIPPED, Reason.MIXED_GEOMETRY, "The images of the series do not form one stack.", False),
    OutcomeRow(End.SKIPPED, Reason.EXCLUDED_BY_RULE, "A rule of the configuration excludes this series.", False),
    OutcomeRow(End.SKIPPED, Reason.SUPERSEDED, "A newer revision of the series took its place before it was scored.", False),
    OutcomeRow(End.UNDECODABLE, Reason.NO_DECODER, "No installed decoder reads this transfer syntax.", False),
    OutcomeRow(End.UNDECODABLE, Reason.CORRUPT_PIXEL_DATA, "The pixel data cannot be decoded.", True),
    OutcomeRow(End.UNDECODABLE, Reason.INCONSISTENT_PIXEL_DESCRIPTION, "The header describes pixel data that is not there.", True),
    OutcomeRow(End.UNDECODABLE, Reason.OVER_LIMIT, "Decoding would exceed a limit of the node (pixels, memory or time).", False),
    OutcomeRow(End.FAILED, Reason.INTERNAL_ERROR, "The node made an error; the log names it.", True),
    OutcomeRow(End.FAILED, Reason.SET_ASIDE, "Three tries ended without a result; an operator can have it tried again.", True),
)

_BY_REASON = {row.reason: row for row in TABLE}


def end_of(reason: Reason | None) -> End:
    """The one end that a reason belongs to; `None` means assessed."""
    return _BY_REASON[reason].end


def sentence(reason: Reason | None) -> str:
    """One sentence for people that explains `reason`."""
    return _BY_REASON[reason].sentence


def manual() -> str:
    """docs/outcomes.md."""
    lines = ["# How a series revision ends", "",
             "Made from `qa_engine/outcome.py`. The same words stand in the report, the audit log, the views `results` and `audit`, the commands and",
             "`mediqa score --json`. Every revision has exactly one end; only `assessed` carries a number. By default only `assessed` sends objects to",
             "the PACS (`report.on` in config.yaml).", "",
             "| end | reason | what it means | does trying again help? |", "|---|---|---|---|"]
    lines += [f"| `{r.end}` | {'-' if r.reason is None else f'`{r.reason}`'} | {r.sentence} | {'yes' if r.again_helps else 'no'} |" for r in TABLE]
    lines += ["", f"Verdicts, taken from the interval: {', '.join(f'`{v}`' for v in Verdict)}. "
                  f"Severities of a degradation: {', '.join(f'`{s}`' for s in Severity)}."]
    return "\n".join(lines) + "\n"
