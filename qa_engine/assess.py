"""The one door of the engine: files of one series -> Assessment. A pure function of files, model and policy (DESIGN section 2).

Gates in order: what the header rules out, what cannot be decoded, phantoms by their pixels, missing slices, the envelope, the width of the
interval. An abstention is a valid end with its reason, never an exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qa_engine import envelope
from qa_engine.assessment import Assessment, Finding, Quantity, SliceScore
from qa_engine.body import Body, find_body, water_equivalent_diameter
from qa_engine.calibration import Calibration, verdict
from qa_engine.decode import Decoder
from qa_engine.degradation_grades import grades
from qa_engine.description import EXPECTED, describe, describe_other
from qa_engine.expected_noise import constants, expected_noise, exposure_of
from qa_engine.measures.public import public_measures
from qa_engine.model import Model, ModelMissing, NetworkResult, load_model
from qa_engine.outcome import End, Reason, end_of
from qa_engine.outliers import Outlier, find_outliers, limited_weights, outlier_findings
from qa_engine.phantom import shows_phantom
from qa_engine.pictures import pictures
from qa_engine.policy import Policy
from qa_engine.prompts import Prompts, mr_type
from qa_engine.region import RegionFound, estimate_regions
from qa_engine.salience import hollow_slices, regions_hit, relevant_slices, salient_slices
from qa_engine.series import read_series
from qa_engine.targets import purpose_of
from qa_engine.volume import Reading, Volume

MISSING_SHARE = 0.2
MISSING_REGIONS = 2
Progress = Callable[[str, float], None]
"""(stage, share done 0..1)"""


@dataclass(frozen=True, eq=False)
class Looked:
    """What the gates looked at: indices of the relevant and the salient slices, bodies and regions of the salient ones."""

    relevant: np.ndarray
    salient: list[int]
    bodies: list[Body | None]
    regions: RegionFound


def assess(files: Sequence[Path], policy: Policy | None = None, model: Model | None = None, decoder: Decoder | None = None,
           progress: Progress | None = None) -> Assessment:
    """Assess the files of one series. `model` and `decoder` may be handed over to be used again; otherwise they are made here."""
    policy = policy or Policy()
    tell = progress or (lambda stage, share: None)
    began = time.monotonic()
    own = decoder is None
    used = decoder or Decoder(policy.decode_seconds, policy.max_pixels)
    try:
        tell("read", 0.0)
        reading = read_series([Path(f) for f in files], used)
    finally:
        if own:
            used.close()
    read = time.monotonic() - began
    tell("read", 1.0)
    result = judge(reading, policy, model, tell)
    seconds = {"read": read, "network": result.seconds.get("network"), "total": time.monotonic() - began}
    tell("done", 1.0)
    return replace(result, seconds=seconds)


def _base(reading: Reading) -> Assessment:
    return Assessment(series_uid=reading.series_uid, modality=reading.modality, end=End.FAILED, reason=Reason.INTERNAL_ERROR,
                      instances=reading.instances, description=reading.description, acquisition=reading.acquisition.values,
                      findings=reading.findings, facts=reading.facts)


def _without_number(base: Assessment, reason: Reason, *more: Finding, **fields: Any) -> Assessment:
    return replace(base, end=end_of(reason), reason=reason, findings=(*base.findings, *more), text=describe_other(reason), **fields)


def judge(reading: Reading, policy: Policy, model: Model | None = None, tell: Progress = lambda stage, share: None) -> Assessment:
    """The Assessment of what was read: all gates behind decoding, then the score."""
    base = _base(reading)
    if reading.volume is None or reading.reason is not None:
        return _without_number(base, reading.reason or Reason.CORRUPT_PIXEL_DATA)
    volume = reading.volume
    relevant = relevant_slices(volume)
    indices = salient_slices(volume, relevant)
    shown = [volume.pixels[k] for k in indices]
    problem = envelope.content_problem(volume, indices)
    if problem is not None:
        return _without_number(base, Reason.UNFAMILIAR_CONTENT, Finding("content", f"The images are {problem}."))
    bodies = [find_body(image, volume.spacing_mm, volume.modality) for image in shown]
    regions = estimate_regions(bodies, volume.modality, reading.hints)
    base = replace(base, region=regions.text)
    if hollow := hollow_slices(volume, relevant):
        base = replace(base, findings=(*base.findings, Finding(
            "empty-slices", f"{len(hollow)} slice{'s show' if len(hollow) > 1 else ' shows'} nothing between others that do: look at slice {hollow[0] + 1}.")))
    if regions.contradicted:
        base = replace(base, findings=(*base.findings, Finding(
            "region-mismatch", f"The header names {' and '.join(regions.tags)}; the pixels show something else.")))
    if not envelope.simulated(reading.hints) and shows_phantom(bodies, volume.modality):
        return _without_number(base, Reason.PHANTOM)
    if _incomplete(volume):
        return _without_number(base, Reason.INCOMPLETE_SERIES)
    # where header and pixels disagree either may be wrong, so both must lie inside
    claims = (regions.words, regions.seen) if regions.contradicted else (regions.words,)
    if not envelope.simulated(reading.hints) and not all(envelope.inside(volume.modality, words, volume.dimension) for words in claims):
        return _without_number(base, Reason.OUTSIDE_ENVELOPE)
    field = None if envelope.simulated(reading.hints) else envelope.field_problem(volume, regions.words)
    if field is not None:
        return _without_number(base, Reason.OUTSIDE_ENVELOPE, Finding("field-of-view", field))
    try:
        model = model or load_model(policy.profile)
        calibration = model.calibration(volume.modality)
    except (ModelMissing, KeyError) as error:
        return _without_number(base, Reason.NO_MODEL, Finding("no-model", str(error) if isinstance(error, ModelMissing) else
                                                              f"The model has no calibration for {volume.modality}."))
    return _score(base, reading, volume, Looked(relevant, indices, bodies, regions), policy, model, calibration, tell)


def _incomplete(volume: Volume) -> bool:
    lost = len(volume.missing)
    return lost > MISSING_SHARE * (lost + len(volume.frames)) or regions_hit(volume, volume.missing) >= MISSING_REGIONS


def _score(base: Assessment, reading: Reading, volume: Volume, looked: Looked, policy: Policy, model: Model,
           calibration: Calibration, tell: Progress) -> Assessment:
    purpose = _purpose(reading)
    outliers = {} if policy.slices == "full" else {one.index: one for one in find_outliers(volume, looked.relevant, looked.salient)}
    scored = [int(k) for k in looked.relevant] if policy.slices == "full" else sorted({*looked.salient, *outliers})
    tell("network", 0.0)
    began = time.monotonic()
    found = model.score(volume, scored, _prompts(reading, volume, looked.regions, purpose), purpose, policy.device)
    network = time.monotonic() - began
    tell("network", 1.0)
    base = replace(base, findings=(*base.findings, *found.findings), seconds={"network": network}, device=found.device, purpose=purpose)
    if np.median(found.strangeness[[k not in outliers for k in scored]]) > envelope.STRANGE and not envelope.simulated(reading.hints):
        return _without_number(base, Reason.UNFAMILIAR_CONTENT,
                               Finding("unfamiliar", "Noise and texture are unlike those of any known series."))
    found = _limited(found, np.array([outliers[k].share if k in outliers else 0.0 for k in scored]), volume.modality, purpose)
    low, high = calibration.interval(found.score, found.disagreement)
    if high - low > policy.max_interval:
        return _without_number(base, Reason.WIDE_INTERVAL)
    thresholds = policy.thresholds[volume.modality]
    word = verdict((low, high), *thresholds)
    slices = _slices(volume, scored, found, outliers)
    base = replace(base, findings=(*base.findings, *outlier_findings(outliers, {k: s.score for k, s in zip(scored, slices, strict=True)})))
    mean = (found.weight[:, None] * found.axes).sum(0)
    measures = public_measures(found.measured, volume.modality)
    result = replace(
        base, end=End.ASSESSED, reason=None, score=found.score, interval=(low, high),
        interval_parts=calibration.parts(found.score, found.disagreement), verdict=str(word), noise=float(mean[0]),
        sharpness=float(mean[1]), artefact=float(mean[2]), slices=slices, degradations=found.degradations,
        measures=measures | _predicted(found, volume.modality) | _expected(base, looked.bodies), model=model.identity, thresholds=thresholds,
        pictures=pictures(volume, scored, purpose, looked.regions.text))
    return replace(result, text=describe(result).text())


def _purpose(reading: Reading) -> str:
    kernel = reading.acquisition.values.get("ConvolutionKernel")
    return purpose_of(reading.modality, str(kernel.value) if kernel is not None else "", reading.description)


def _prompts(reading: Reading, volume: Volume, regions: RegionFound, purpose: str) -> Prompts:
    def value(name: str) -> float | None:
        found = reading.acquisition.values.get(name)
        return float(found.value) if found is not None and not isinstance(found.value, str) else None

    kind: str | None = purpose
    if volume.modality == "MR":
        words = " ".join([reading.description, *(reading.hints.get(n, "") for n in ("ProtocolName", "SequenceName"))])
        kind = mr_type(words, value("EchoTime"), value("RepetitionTime"), value("InversionTime"))
    first = regions.text.split(" ")[0] if regions.text and not regions.contradicted else None
    return Prompts(volume.dimension.lower(), volume.modality.lower(), first, kind or None)


def _limited(found: NetworkResult, share: np.ndarray, modality: str, purpose: str) -> NetworkResult:
    """The result when no outlier weighs more than the part of the stack that it stands for."""
    if not share.any():
        return found
    weight = limited_weights(found.weight, share)
    return replace(found, weight=weight, score=float((weight * found.q).sum()), degradations=grades(found.physics, weight, modality, purpose, found.artefact))


def _slices(volume: Volume, scored: list[int], found: NetworkResult, outliers: Mapping[int, Outlier]) -> tuple[SliceScore, ...]:
    rows = []
    for n, k in enumerate(scored):
        frame = volume.frames[k]
        rows.append(SliceScore(
            sop_uid=frame.sop_uid, sop_class_uid=frame.sop_class_uid, frame=frame.frame,
            position_mm=None if volume.positions_mm is None else round(float(volume.positions_mm[k]), 2), score=float(found.q[n]),
            weight=float(found.weight[n]), ordinal=k + 1, noise=float(found.axes[n, 0]), sharpness=float(found.axes[n, 1]),
            artefact=float(found.axes[n, 2]), instance_number=frame.instance_number, outlier=outliers[k].kind if k in outliers else ""))
    return tuple(rows)


def _predicted(found: NetworkResult, modality: str) -> Mapping[str, Quantity]:
    """The physics behind the axes, as the network sees them: weighted geometric means over the slices."""
    noise, width, artefact = np.exp((found.weight[:, None] * np.log(np.maximum(found.physics, 1e-9))).sum(0))
    unit = "[hnsf'U]" if modality == "CT" else "1"
    return {"PredictedNoise": Quantity(round(float(noise), 4), unit), "PredictedWidth": Quantity(round(float(width), 3), "mm"),
            "PredictedArtefact": Quantity(round(float(artefact), 4), unit)}


def _expected(base: Assessment, bodies: list[Body | None]) -> Mapping[str, Quantity]:
    """The noise that a CT protocol suggests for this body, where it can be told."""
    scan = exposure_of(base.acquisition, water_equivalent_diameter(bodies)) if base.modality == "CT" else None
    return {} if scan is None else {EXPECTED: Quantity(round(expected_noise(scan, constants()), 2), "[hnsf'U]")}
