#!/usr/bin/env python3
"""The evidence behind the quality number: `benchmarks/quality.py [--data DIR] [--json] [--quick] [--jobs N] ...`.

DIR has the form of shared/data/train (index.csv, index-mr.csv). Every slice goes through the ladder of known damage; our network, fitted without
the subjects in question, and the methods beside it are asked for Q. All truth is simulated. Progress goes to stderr, tables to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks import evidence, figures, networks, quality_table  # noqa: E402
from benchmarks.baselines import METHODS  # noqa: E402
from benchmarks.judges import FOLDS, Judge, our_judge  # noqa: E402
from benchmarks.ours import answer_rows  # noqa: E402
from benchmarks.rows import FOREIGN, Rows, load_series, make_rows  # noqa: E402
from qa_engine.training.fold_names import SPLITS  # noqa: E402
from qa_engine.training.folds import folds_of  # noqa: E402

BEGAN = time.monotonic()
QUICK_SUBJECTS = 6
PLAIN_STEPS, PUBLISHED_STEPS = 250, 800
OURS, PLAIN, PUBLISHED = "ours", "plain convolution", "mediqa-base from scratch"
BOOSTING = "measures + boosting"


def say(line: str) -> None:
    """Progress, with the seconds since the start."""
    print(f"quality: {time.monotonic() - BEGAN:5.0f} s  {line}", file=sys.stderr, flush=True)


def default_train() -> Path:
    """`$MEDIQA_DATA/train`, or ../shared/data/train beside the checkout."""
    return Path(os.environ.get("MEDIQA_DATA", ROOT.parent / "shared" / "data")) / "train"


def out_of_fold(method: Any, rows: Rows, fold: np.ndarray) -> np.ndarray | None:
    """Scores (N,) of `method`, each fold by a fit on the others; None where there is one fold only. Foreign damage is never fitted on."""
    score = np.full(len(rows), np.nan)
    for k in np.unique(fold[fold >= 0]):
        train, test = np.flatnonzero((fold != k) & (rows.rung != FOREIGN)), np.flatnonzero(fold == k)
        if len(train) > 30:
            score[test] = method(rows, train, test)
    return score if np.isfinite(score).any() else None


def compare(rows: Rows, modality: str, judge: Judge, quick: bool, resamples: int, fit: Rows | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of every method per split, and our answers per split. With `fit` the other methods are fitted on those rows alone."""
    found: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    cuda = torch.cuda.is_available()
    for split in SPLITS:
        answers[split] = answer_rows(judge.models[split], judge.which(rows, modality, split), rows, modality)
        judged = np.isfinite(answers[split].q)
        if not judged.any():
            continue
        if fit is None:
            every, fold = rows, judge.method_folds(rows, modality, split)
        else:
            every = rows.followed_by(fit)
            fold = np.where(np.arange(len(every)) < len(rows), 0, -1)
        table = {OURS: figures.method_figures(answers[split].q, rows, modality, resamples)}
        methods: dict[str, Any] = dict(METHODS)
        methods[PLAIN] = (lambda r, a, b: networks.plain_convolution(r, a, b, modality, PLAIN_STEPS)) if (split == "subject" or cuda) and not quick else None
        methods[PUBLISHED] = (lambda r, a, b: networks.published_from_scratch(r, a, b, modality, PUBLISHED_STEPS)) if cuda and not quick else None
        for name, method in methods.items():
            began = time.monotonic()
            score = out_of_fold(method, every, fold) if method is not None else None
            score = None if score is None else score[:len(rows)]
            # every method is told on the same rows
            table[name] = figures.method_figures(np.where(judged, score, np.nan), rows, modality, resamples) if score is not None else {}
            if score is not None:
                table[name]["foreign"] = figures.foreign_order(np.where(judged, score, np.nan), rows)
                say(f"{modality} {split}: {name} in {time.monotonic() - began:.0f} s")
        found[split] = table
    return found, answers


def our_figures(rows: Rows, modality: str, judge: Judge, answers: dict[str, Any]) -> dict[str, Any]:
    """What is said of our network alone."""
    answer, models, which = answers["subject"], judge.models["subject"], judge.which(rows, modality, "subject")
    unknown = answer_rows(models, which, rows, modality, known_prompts=False)
    plain = answer_rows(models, which, rows, modality, fingerprints=False)
    judged = np.isfinite(answer.q)
    s = figures.series_scores(answer, rows)
    shipped = judge.calibration(modality) if judge.straight(rows, modality) else None
    if shipped is not None and len(s.score):
        coverage = figures.fixed_coverage(s, shipped)
    else:
        source = dict(zip(rows.subject.tolist(), rows.source.tolist(), strict=True))
        coverage = figures.left_out_coverage(s, folds_of(s.subject, [source[n] for n in s.subject.tolist()], [modality] * len(s.subject), "subject"))

    def series_srcc(weights: str) -> float:
        of = figures.series_scores(answer, rows, weights)
        return round(figures.srcc(of.score, of.truth), 3) if len(of.score) > 2 else float("nan")

    return {
        "subjects": len(set(rows.subject[judged])), "slices": len(set(rows.slice[judged & (rows.rung == 0)])), "coverage": coverage,
        "axes": {split: figures.axis_errors(answers[split].physics, rows) for split in SPLITS},
        "bounds": figures.bounds(rows, modality), "by_kind": figures.by_kind(answer.q, rows, modality), "by_region": figures.by_region(answer.q, rows),
        "foreign": figures.foreign_order(answer.q, rows),
        "likeness": {name: round(figures.likeness_order(answer.q, rows, k), 3) for k, name in enumerate(("haarpsi", "vif"))},
        "ablations": {
            "series_srcc": series_srcc("trained"), "constant_weights_srcc": series_srcc("constant"), "one_slice_srcc": series_srcc("one"),
            "no_fingerprints_srcc": figures.method_figures(plain.q, rows, modality, 0).get("srcc"),
            "unknown_prompts_srcc": figures.method_figures(unknown.q, rows, modality, 0).get("srcc"),
            "unknown_prompts_move": round(float(np.abs(unknown.q - answer.q)[judged].mean()), 2) if judged.any() else None},
    }


def run(train: Path, quick: bool, jobs: int, slices: int, folds: Path, fit: Path | None) -> dict[str, Any]:
    """Everything, as the object that --json prints."""
    judge = our_judge(train, default_train(), folds)
    resamples, data = (50 if quick else 300), default_train().parent
    found: dict[str, Any] = {"data": train.name, "quick": quick, "notes": list(judge.notes), "modalities": {}}
    if quick:
        found["notes"].append(f"quick: {QUICK_SUBJECTS} subjects per modality, one slice per series, no networks beside ours; figures are rough")
    if fit is not None:
        found["notes"].append(f"the other methods are fitted on {fit.name}, not by folds")
    for modality in ("CT", "MR"):
        def made(folder: Path, modality: str = modality) -> Rows | None:
            series = load_series(folder, modality, QUICK_SUBJECTS if quick else None)
            say(f"{modality}: {len(series)} series of {len({s.subject for s in series})} subjects")
            return make_rows(series, modality, 1 if quick else slices, jobs, lambda k, n: say(f"{modality}: series {k} of {n}") if k % 10 == 0 else None,
                             pictures=torch.cuda.is_available() and not quick)

        rows = made(train)
        if rows is None:
            continue
        torch.set_num_threads(max(1, jobs))
        methods, answers = compare(rows, modality, judge, quick, resamples, made(fit) if fit is not None else None)
        own = our_figures(rows, modality, judge, answers)
        found["modalities"][modality.lower()] = {"methods": methods, **own}
        del rows
    gather_evidence(found, judge, data, quick)
    contract(found)
    found["seconds"] = round(time.monotonic() - BEGAN)
    return found


def gather_evidence(found: dict[str, Any], judge: Judge, data: Path, quick: bool) -> None:
    """Pairs, slabs, abstention: of the data folder of the checkout, whatever DIR is."""
    model = judge.shipped
    torch.set_num_threads(1)  # slices one by one: threads would wait for each other
    phantoms = evidence.phantom_series(data)
    say("pairs")
    found["pair_details"] = evidence.real_pairs(model, data / "train") | evidence.dose_ladders(model, 1 if quick else 3) | evidence.phantom_order(
        model, phantoms[::3] if quick else phantoms)
    more, found["noise_witness"] = evidence.neighbour_evidence(lambda one: judge.model_for(one.subject, one.source, one.modality), data / "train")
    found["pair_details"] |= more
    say("slabs")
    found["slabs"] = evidence.slabs(model, data, 1 if quick else 6, say)
    say("abstention")
    found["abstention"] = evidence.abstention(model, data, phantoms[::3] if quick else phantoms, 8 if quick else 1, say)
    found["slice_counts"] = {} if quick else evidence.slice_counts(model, data)


def contract(found: dict[str, Any]) -> None:
    """The keys that every reader of --json may rely on; null for what could not be computed."""
    of = found["modalities"]

    def per_modality(path: tuple[str, ...]) -> dict[str, Any]:
        result = {}
        for modality in ("ct", "mr"):
            value: Any = of.get(modality)
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            result[modality] = value
        return result

    names = list(dict.fromkeys(n for m in of.values() for n in m["methods"].get("subject", {}) if n != OURS))
    found["srcc"] = per_modality(("methods", "subject", OURS, "srcc"))
    found["srcc_source_out"] = per_modality(("methods", "source", OURS, "srcc"))
    found["auc_mild"] = per_modality(("methods", "subject", OURS, "auc_mild"))
    found["baselines"] = {name: per_modality(("methods", "subject", name, "srcc")) for name in names}
    found["coverage"] = per_modality(("coverage", "observed"))
    found["width"] = per_modality(("coverage", "median_width"))
    found["pairs"] = {name: round(row["right"] / row["total"], 3) if row["total"] else None for name, row in found["pair_details"].items()}


def _plain(value: Any) -> Any:
    """nan is no JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with index.csv and index-mr.csv (default: ../shared/data/train or $MEDIQA_DATA/train)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="few subjects, under three minutes")
    parser.add_argument("--jobs", type=int, default=2, help="processes that make the versions")
    parser.add_argument("--slices", type=int, default=2, help="slices of each series")
    parser.add_argument("--folds", type=Path, default=FOLDS, help="folder of the networks of the folds (mediqa train fit)")
    parser.add_argument("--fit", type=Path, help="fit the other methods on this folder instead of by folds within DIR")
    args = parser.parse_args()
    train = args.data or default_train()
    if not any((train / name).is_file() for name in ("index.csv", "index-mr.csv")):
        print(f"no index.csv or index-mr.csv in {train}; give a folder of the form of shared/data/train with --data", file=sys.stderr)
        return 2
    found = run(train, args.quick, max(1, args.jobs), args.slices, args.folds, args.fit)
    if args.json:
        print(json.dumps(_plain(found), indent=1))
    else:
        quality_table.print_tables(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
