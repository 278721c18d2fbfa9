#!/usr/bin/env python3
"""What each part of the network is worth: `benchmarks/ablations.py CACHES... [--folds subject-0 subject-1] [--steps N] [--json]`.

CACHES are files of `mediqa train simulate`. Every variant is fitted with the same seed, steps and subjects as the network that is shipped, and judged on
subjects that it never saw; differences have an interval by a bootstrap of these subjects. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.baselines import FINGERPRINTS  # noqa: E402
from benchmarks.metrics import bootstrap, same_slice_auc, srcc  # noqa: E402
from benchmarks.rows import mild_rungs  # noqa: E402
from qa_engine.measures import MEASURE_NAMES  # noqa: E402
from qa_engine.training.cache import Cache, leave_out, load_caches  # noqa: E402
from qa_engine.training.calibrate import Predictions, predict  # noqa: E402
from qa_engine.training.fit import FitSettings, chosen_views, fit  # noqa: E402
from qa_engine.training.fold_names import FOLDS  # noqa: E402
from qa_engine.training.pretrain import PretrainSettings, pretrain  # noqa: E402

BEGAN = time.monotonic()
MODALITIES = ("CT", "MR")
RESAMPLES = 200


@dataclass(frozen=True)
class Variant:
    """What differs from the network without trees, by its settings; pretrained: stage one goes before; unknown: asked with prompts unknown;
    blind: fitted and asked without the measures that could read the simulator instead of the damage."""

    name: str
    changes: dict[str, Any]
    pretrained: bool = False
    unknown: bool = False
    blind: bool = False


BASE = "network alone"
VARIANTS = (
    Variant(BASE, {}), Variant("network and trees, as shipped", {"trees": True}), Variant("as shipped, no fingerprint measures", {"trees": True}, blind=True),
    Variant("asked with prompts unknown", {}, unknown=True), Variant("fitted without prompts", {"prompts": False}, unknown=True),
    Variant("native crops alone", {"views": "crops"}), Variant("whole slice alone", {"views": "whole"}),
    Variant("no ranking", {"ranking": False}), Variant("FiLM head", {"head": "film"}), Variant("pre-trained on scan parameters", {}, pretrained=True))


def say(line: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"ablations: {time.monotonic() - BEGAN:5.0f} s  {line}", file=sys.stderr, flush=True)


def shown(cache: Cache, views: str) -> Cache:
    """The cache with the views alone that a variant sees."""
    last = cache.views.shape[1] - 1
    return replace(cache, views=cache.views[:, chosen_views(views, list(range(last)), last)])


def seen(cache: Cache, variant: Variant) -> Cache:
    """The cache with the measures that a variant sees; the others are 0 in every row."""
    if not variant.blind:
        return cache
    measures = cache.measures.clone()
    measures[:, [MEASURE_NAMES.index(name) for name in FINGERPRINTS]] = 0.0
    return replace(cache, measures=measures)


def answers(cache: Cache, variant: Variant, folds: list[str], settings: FitSettings, fitted: dict[str, Any]) -> Predictions:
    """What the variant says of the subjects of `folds`; `fitted` keeps networks, so that equal ones are fitted once."""
    found = []
    for name in folds:
        part = leave_out(seen(cache, variant), name)
        mine = replace(settings, **variant.changes)
        key = f"{name} {mine} {variant.pretrained} {variant.blind}"
        if key not in fitted:
            encoder = None
            if variant.pretrained:
                with tempfile.TemporaryDirectory() as folder:
                    encoder, _ = pretrain(part, PretrainSettings(steps=settings.steps, seed=settings.seed), Path(folder) / "encoder.safetensors")
            fitted[key] = fit(part, mine, pretrained=encoder)[0]
            say(f"{variant.name}, {name}")
        asked = shown(part, mine.views)
        if variant.unknown:
            asked = replace(asked, prompts=torch.zeros_like(asked.prompts))
        found.append(predict(fitted[key], asked, np.flatnonzero(part.held_out)))
    names = Predictions.__dataclass_fields__
    return Predictions(**{n: np.concatenate([getattr(p, n) for p in found]) for n in names})


def figures(p: Predictions, base: Predictions, modality: str) -> dict[str, Any]:
    """SRCC of Q and order of mild damage, and how far they are from the base on the same rows (95 % by subject)."""
    pick = np.flatnonzero(p.is_mr == (modality == "MR"))
    q, other, truth, subject = p.q[pick], base.q[pick], p.truth[pick], p.subject[pick]
    group = np.array([f"{s}/{k}/{d}" for s, k, d in zip(p.series[pick], p.place[pick], p.draw[pick], strict=True)])
    clean, mild = p.rung[pick] == 0, np.isin(p.rung[pick], list(mild_rungs(modality)))

    def order(score: np.ndarray, r: np.ndarray) -> float:
        return same_slice_auc(score[r], group[r], clean[r], mild[r])

    every = np.arange(len(pick))
    apart = bootstrap(lambda r: srcc(q[r], truth[r]) - srcc(other[r], truth[r]), subject, RESAMPLES)
    apart_mild = bootstrap(lambda r: order(q, r) - order(other, r), subject, RESAMPLES)
    return {"subjects": len(set(subject)), "versions": len(pick), "srcc": round(srcc(q, truth), 3), "srcc_less_base": [round(v, 3) for v in apart],
            "mild": round(order(q, every), 3), "mild_less_base": [round(v, 3) for v in apart_mild]}


def run(cache: Cache, folds: list[str], settings: FitSettings, variants: tuple[Variant, ...] = VARIANTS) -> dict[str, Any]:
    """Each variant, the base first: name -> modality -> figures."""
    fitted: dict[str, Any] = {}
    found: dict[str, Any] = {}
    base = None
    for variant in variants:
        said = answers(cache, variant, folds, settings, fitted)
        base = said if base is None else base
        found[variant.name] = {m: figures(said, base, m) for m in MODALITIES}
    return {"folds": folds, "steps": settings.steps, "measure_steps": settings.classical_steps, "seed": settings.seed, "variants": found,
            "seconds": round(time.monotonic() - BEGAN)}


def print_table(found: dict[str, Any]) -> None:
    """To stdout."""
    table = Table(title=f"Q of subjects never seen, folds {', '.join(found['folds'])}, {found['steps']} steps with views", title_justify="left")
    for name in ("variant", "", "subjects", "SRCC", "less base [95 %]", "mild, same slice", "less base [95 %]"):
        table.add_column(name, justify="left" if name in ("variant", "") else "right")
    for name, row in found["variants"].items():
        for modality in MODALITIES:
            f = row[modality]
            table.add_row(name if modality == "CT" else "", modality, str(f["subjects"]), f"{f['srcc']:.3f}",
                          "" if name == BASE else "{:+.3f} to {:+.3f}".format(*f["srcc_less_base"]), f"{f['mild']:.3f}",
                          "" if name == BASE else "{:+.3f} to {:+.3f}".format(*f["mild_less_base"]))
    Console(width=150).print(table)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("caches", type=Path, nargs="+", help="files of mediqa train simulate")
    parser.add_argument("--folds", nargs="+", default=[name for name in FOLDS if name.startswith("subject")], help="folds that are judged")
    parser.add_argument("--steps", type=int, default=60, help="steps with views")
    parser.add_argument("--measure-steps", type=int, default=800, help="steps with measures alone, before them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", default=[], metavar="WORD", help="only variants whose name holds one of these words, and the base")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    missing = [str(f) for f in args.caches if not f.is_file()]
    unknown = [f for f in args.folds if f not in FOLDS]
    if missing or unknown:
        print(f"no such file: {missing[0]}; mediqa train simulate writes it" if missing else
              f"no fold {unknown[0]}: there are {', '.join(FOLDS)}",
              file=sys.stderr)
        return 2
    chosen = tuple(v for v in VARIANTS if v.name == BASE or not args.variants or any(word in v.name for word in args.variants))
    found = run(load_caches(args.caches), args.folds, FitSettings(steps=args.steps, classical_steps=args.measure_steps, seed=args.seed, trees=False), chosen)
    print(json.dumps(found, indent=1)) if args.json else print_table(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
