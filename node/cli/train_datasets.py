"""`mediqa train evaluate --dataset NAME DIR`: the public protocols (docs/training.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from node.cli.output import WRONG_USE, fail, print_json, print_table, printable

DATASETS = ("ldctiqac2023", "mr-art")
FIGURES = ("plcc", "srocc", "krocc", "sum")


def evaluate_dataset(name: str, folders: list[Path], profile: str, weights: Path | None, as_json: bool) -> None:
    """Score the data set in the folder and print its figures beside published ones."""
    if name not in DATASETS:
        fail(f"--dataset is {' or '.join(DATASETS)}", WRONG_USE)
    if len(folders) != 1 or not folders[0].is_dir():
        fail(f"--dataset {name} takes one folder, that of the data set", WRONG_USE)
    from qa_engine.model import WEIGHTS, ModelMissing, load_model
    from qa_engine.training.public_datasets import EVALUATE, NotThisDataset

    try:
        model = load_model(profile, weights or WEIGHTS)
        found = EVALUATE[name](folders[0], model, say=lambda line: print(f"evaluate: {line}", file=sys.stderr, flush=True))
    except (ModelMissing, NotThisDataset) as error:
        fail(printable(str(error)))
    found |= {"profile": profile, "sha256": model.identity.sha256}
    if as_json:
        print_json(found)
    elif name == "ldctiqac2023":
        _show_ldct(found)
    else:
        _show_mr_art(found)


def _show_ldct(found: dict[str, Any]) -> None:
    rows = [[found["profile"], found["raw"], "as it is"], [found["profile"], found["recalibrated"], found["map"]]]
    rows += [[name, figures, "arXiv 2511.12256, 300 test images, trained on the 1000"] for name, figures in found["published"].items()]
    print_table(f"LDCTIQAC 2023, {found['images']} images ({found['part']})", ["method", "PLCC", "SROCC", "KROCC", "sum", "how"],
                [[method, *(figures[k] for k in FIGURES), how] for method, figures, how in rows])


def _show_mr_art(found: dict[str, Any]) -> None:
    print_table(f"MR-ART, {found['volumes']} volumes of {found['subjects']} subjects",
                ["score", "SRCC with readers", "AUC still, moving", "AUC good, rest", "AUC bad, rest"],
                [[name, *found[name].values()] for name in ("raw", "recalibrated")])
    order = found["within_subject"]
    print(f"runs of one subject in the readers' order: {order['right']} of {order['pairs']} pairs; still above moving: "
          f"{order['right_still_moving']} of {order['pairs_still_moving']} pairs")
