#!/usr/bin/env python3
"""Four judges of the description, without a language model: `benchmarks/description.py [--data DIR] [--json]` (MedQ-Bench protocol, arXiv 2510.01691).

Simulated patients, and the real series in DIR (form of shared/data/series) that are scored, are damaged by known amounts and described. Completeness:
are the degradations that are there named? Preciseness: is each grade right (2), one off (1)? Consistency: does the record contradict itself?
Quality accuracy: is the verdict that of the true Q (2), or the one beside it (1)? Each 0 to 2, computed; the truth is simulated.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from qa_engine.assess import judge  # noqa: E402
from qa_engine.assessment import Assessment, Degradation, SeriesFacts  # noqa: E402
from qa_engine.calibration import verdict  # noqa: E402
from qa_engine.degradation_grades import grades, severity_of  # noqa: E402
from qa_engine.description import EXPECTED, Description, describe  # noqa: E402
from qa_engine.envelope import SIMULATED_MARK  # noqa: E402
from qa_engine.expected_noise import constants  # noqa: E402
from qa_engine.model import Model, load_model  # noqa: E402
from qa_engine.outcome import Severity, Verdict  # noqa: E402
from qa_engine.policy import THRESHOLDS, Policy  # noqa: E402
from qa_engine.simulation.degradations import AddedDamage, degrade  # noqa: E402
from qa_engine.targets import quality_of, scale_of  # noqa: E402
from qa_engine.training.ladder import own_physics, stated_damage, total_physics  # noqa: E402
from qa_engine.volume import FrameRef, Reading, Volume  # noqa: E402

JUDGES = ("completeness", "preciseness", "consistency", "quality accuracy")
DAMAGE: dict[str, tuple[tuple[tuple[str, float], ...], ...]] = {
    "CT": ((), (("noise", 20.0),), (("noise", 40.0),), (("noise", 80.0),), (("blur", 2.0),), (("blur", 4.0),), (("streak", 15.0),), (("streak", 40.0),),
           (("noise", 40.0), ("blur", 3.0))),
    "MR": ((), (("noise", 0.05),), (("noise", 0.1),), (("noise", 0.2),), (("blur", 2.0),), (("blur", 4.0),), (("motion", 0.06),), (("motion", 0.16),),
           (("noise", 0.08), ("blur", 2.5))),
}
"""Severities in the units of `degradations.KINDS`."""
GRADE = {s: k for k, s in enumerate(Severity)}
ORDER = (Verdict.REJECT, Verdict.USABLE, Verdict.GOOD)


@dataclass(frozen=True)
class Truth:
    """What is known of a damaged series: its degradations and its Q."""

    degradations: tuple[Degradation, ...]
    quality: float


def completeness(record: Description, truth: Truth) -> int:
    """2 all degradations of the truth are named, 1 some, 0 none."""
    wanted, named = {d.type for d in truth.degradations}, {d.type for d in record.degradations}
    return 2 if wanted <= named else int(bool(wanted & named))


def preciseness(record: Description, truth: Truth) -> int:
    """2 every grade is right, 1 none is more than one off, 0 otherwise; what is not named counts as none."""
    told, true = ({d.type: GRADE[d.severity] for d in one} for one in (record.degradations, truth.degradations))
    off = max((abs(told.get(kind, 0) - true.get(kind, 0)) for kind in told | true), default=0)
    return max(0, 2 - off)


def contradictions(a: Assessment, record: Description) -> list[str]:
    """What in a record does not go together."""
    found = []
    kinds = [(d.type, d.severity) for d in record.degradations]
    if [c.type for c in record.causes] != [k for k, _ in kinds] or [(i.type, i.severity) for i in record.impacts] != kinds:
        found.append("a cause or an impact speaks of something else than what is wrong")
    for d, curve in ((d, {"noise": "noise", "blur": "width"}.get(d.type, "artefact")) for d in record.degradations):
        if d.amount is not None and severity_of(d.amount / getattr(scale_of(a.modality, a.purpose), curve).s50) is not d.severity:
            found.append(f"the amount of {d.type} is of another grade")
    for c in record.causes:
        expected = a.measures.get(EXPECTED)
        amount = next((d.amount for d in record.degradations if d.type == c.type), None)
        if c.compared and (expected is None or isinstance(expected.value, str) or amount is None
                           or (c.compared == "above") != (amount > constants().factor * expected.value)):
            found.append("noise and what the protocol suggests do not stand as the cause says")
    said = record.recommendation
    if a.interval is None or a.thresholds is None or verdict(a.interval, *a.thresholds) is not said.verdict:
        found.append("the verdict is not that of the interval")
    worst = max((GRADE[s] for _, s in kinds), default=0)
    if (worst == GRADE[Severity.SEVERE] and said.verdict is Verdict.GOOD) or (worst == 0 and said.verdict is Verdict.REJECT):
        found.append("verdict and degradations contradict each other")
    if "no action needed" in said.action and said.verdict is not Verdict.GOOD:
        found.append("nothing is to be done about a series that is not Good")
    return found


def consistency(a: Assessment, record: Description) -> int:
    """2 without a contradiction, 1 with one, 0 with more."""
    return max(0, 2 - len(contradictions(a, record)))


def quality_accuracy(record: Description, truth: Truth, modality: str) -> int:
    """2 the verdict is that of the true Q, 1 the one beside it, 0 the opposite."""
    true = verdict((truth.quality, truth.quality), *THRESHOLDS[modality])
    return 2 - abs(ORDER.index(record.recommendation.verdict) - ORDER.index(true))


def truth_of(clean: np.ndarray, added: AddedDamage, volume: Volume, purpose: str, artefact: str) -> Truth:
    """From the slices (N,H,W) as they were and what was added to them; `artefact` is the word for the third axis."""
    image, spacing = torch.from_numpy(clean), torch.tensor([volume.spacing_mm] * len(clean))
    own = own_physics(list(image[:, None]), spacing[:1], volume.modality).astype(float)
    physics = total_physics(own, stated_damage(own, added, volume.modality), volume.modality)
    return Truth(grades(physics, np.full(len(physics), 1 / len(physics)), volume.modality, purpose, artefact),
                 float(quality_of(physics, volume.modality, purpose).mean()))


def damaged(volume: Volume, steps: tuple[tuple[str, float], ...], seed: int) -> tuple[np.ndarray, AddedDamage]:
    """All slices with the damage of `steps`."""
    image, spacing = torch.from_numpy(volume.pixels), torch.tensor([volume.spacing_mm] * len(volume.pixels))
    generator = torch.Generator().manual_seed(seed)
    found, added = degrade("identity", image, spacing, torch.zeros(len(image)), generator, volume.modality)
    for kind, amount in steps:
        found, more = degrade(kind, found, spacing, torch.full((len(image),), amount), generator, volume.modality)
        added = added.then(more)
    return found.numpy(), added


def simulated(seeds: tuple[int, ...] = (77,), size: int = 192) -> Iterator[Reading]:
    """Simulated patients of seven slices."""
    from qa_engine.simulation import patient_ct, patient_mr
    from qa_engine.simulation.dicom_series import simulate_arrays

    for kind, patient in (("ct", patient_ct), ("mr", patient_mr)):
        for seed in seeds:
            pixels = np.round(simulate_arrays(kind, (1.0,), slices=7, size=size, seed=seed)[0]).astype(np.float32)
            frames = tuple(FrameRef(Path("simulated"), "1.2", f"1.2.{k}", None, k + 1) for k in range(len(pixels)))
            volume = Volume(kind.upper(), pixels, "1", (patient.FIELD_MM / size,) * 2, 40.0 * np.arange(len(pixels)), (0.0, 0.0, 1.0), None, frames)
            yield Reading(f"simulated-{kind}-{seed}", kind.upper(), len(pixels), volume, None, SeriesFacts(stack_size=7),
                          hints={"Manufacturer": SIMULATED_MARK})


def real(folder: Path) -> Iterator[Reading]:
    """The series of `folder`, cut down to their salient slices, so that damage of them is damage of the whole."""
    from qa_engine.decode import Decoder
    from qa_engine.salience import salient_slices
    from qa_engine.series import group_files, read_series

    with Decoder() as decoder:
        for one in sorted(p for p in folder.iterdir() if p.is_dir()):
            for files in group_files([one])[0]:
                found = read_series(files, decoder)
                if found.volume is not None and found.reason is None and found.volume.positions_mm is not None:
                    chosen = salient_slices(found.volume)
                    volume = replace(found.volume, pixels=np.ascontiguousarray(found.volume.pixels[chosen]), missing=(),
                                     positions_mm=found.volume.positions_mm[chosen], frames=tuple(found.volume.frames[k] for k in chosen))
                    yield replace(found, volume=volume)


def judged(reading: Reading, model: Model) -> Iterator[tuple[str, tuple[int, int, int, int], list[str]]]:
    """(damage, four judgements, contradictions) of each damaged version that gets a number; none where the series as it is gets none."""
    volume = reading.volume
    assert volume is not None
    for number, steps in enumerate(DAMAGE[volume.modality]):
        pixels, added = damaged(volume, steps, number)
        a = judge(replace(reading, volume=replace(volume, pixels=pixels)), Policy(device="cpu"), model)
        if a.score is None:
            if not steps:
                return
            continue
        record, truth = describe(a), truth_of(volume.pixels, added, volume, a.purpose, next((k for k, _ in steps if k not in ("noise", "blur")), ""))
        yield (" + ".join(f"{kind} {amount:g}" for kind, amount in steps) or "nothing",
               (completeness(record, truth), preciseness(record, truth), consistency(a, record), quality_accuracy(record, truth, a.modality)),
               contradictions(a, record))


def run(readings: Iterator[Reading], model: Model) -> dict[str, dict[str, float]]:
    """Mean of each judge per modality, their sum (of 8) and the number of described series."""
    rows: dict[str, list[tuple[int, int, int, int]]] = {}
    for reading in readings:
        for damage, marks, wrong in judged(reading, model):
            rows.setdefault(reading.modality, []).append(marks)
            print(f"description: {reading.modality} {reading.description or reading.series_uid[:20]}: {damage}: {marks} {'; '.join(wrong)}", file=sys.stderr)
    found = {}
    for modality, marks in sorted(rows.items()):
        means = np.array(marks, float).mean(0)
        each = {name: round(float(v), 3) for name, v in zip(JUDGES, means, strict=True)}
        found[modality] = each | {"sum": round(float(means.sum()), 3), "described": len(marks)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    beside = Path(os.environ.get("MEDIQA_DATA", ROOT.parent / "shared" / "data")) / "series"
    parser.add_argument("--data", type=Path, default=beside, help="folder of real series, one folder each; left out where it is absent")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = load_model()
    found = {"simulated patients": run(simulated((77, 78)), model)}
    if given.data.is_dir():
        found["real series"] = run(real(given.data), model)
    if given.json:
        print(json.dumps(found))
        return
    print(f"{'':20}{'':10}" + "".join(f"{name:>18}" for name in (*JUDGES, "sum of 8", "described")))
    for source, rows in found.items():
        for modality, row in rows.items():
            print(f"{source:20}{modality:10}" + "".join(f"{v:18g}" for v in row.values()))


if __name__ == "__main__":
    main()
