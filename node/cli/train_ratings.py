"""`mediqa train finetune`: a profile out of a site's own ratings (docs/training.md)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import WRONG_USE, JsonOption, QuietOption, fail, print_json, print_table, printable


def finetune(labels: Annotated[Path, typer.Option(help="Table with the columns series (a path or a Series Instance UID), score, rater.")],
             out: Annotated[Path, typer.Option(help="Folder for weights, card and the table of ratings out of fold.")],
             data: Annotated[Path | None, typer.Option(help="Folder below which series named by UID or relative path lie.")] = None,
             scale: Annotated[tuple[float, float] | None, typer.Option(help="LOW HIGH of the scale; default: as found in the table.")] = None,
             lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="1 is the best grade.")] = False,
             base: Annotated[str, typer.Option("--from", help="Profile to start from.")] = "mediqa-compact",
             weights: Annotated[Path | None, typer.Option(help="Folder of its weights; default: the installed ones.")] = None,
             profile: Annotated[str, typer.Option(help="Name of the new profile.")] = "mediqa-rated",
             device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "cpu",
             as_json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Recalibrate on a few dozen rated patients, fine-tune the last layers on hundreds; splits are by patient."""
    if not labels.is_file():
        fail(f"no such file: {labels}", WRONG_USE)
    if data is not None and not data.is_dir():
        fail(f"no such folder: {data}", WRONG_USE)
    from qa_engine.model import WEIGHTS, ModelMissing, load_model
    from qa_engine.training.rating_labels import RatingsRefused, read_labels, scale_of
    from qa_engine.training.ratings import finetune as finetune_model

    folder = weights or WEIGHTS
    said = (lambda line: None) if quiet else (lambda line: print(f"finetune: {line}", file=sys.stderr, flush=True))
    try:
        model = load_model(base, folder)
        table = read_labels(labels)
        found = finetune_model(table, scale_of(table, scale, lower_is_better), labels, data, model, folder / f"{base}.safetensors", out, profile,
                               device, said)
    except (RatingsRefused, ModelMissing) as error:
        fail(printable(str(error)))
    except (UnicodeDecodeError, csv.Error):
        fail(f"{printable(labels.name)} is no table of text", WRONG_USE)
    if as_json:
        print_json(found)
        return
    for name, why in found["unreadable"].items():
        print(f"unreadable: {printable(name)}: {printable(why)}", file=sys.stderr)
    if not quiet:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    rows = found["modalities"]
    print_table("Ratings, patients left out", ["modality", "patients", "series", "raters", "alpha", "SRCC of raters", "SRCC before", "SRCC", "mean error",
                                               "half width"],
                [[m, r["patients"], r["series"], r["raters"], r["alpha"], r["srcc_of_raters"], r["srcc_before"], r.get("srcc"), r.get("error"),
                  r["half_width"]] for m, r in rows.items()])
    for modality, row in rows.items():
        print(f"{modality}: {row['map']}" + (f" ({row['why']})" if "why" in row else ""))
        if row["half_width"] > 30:
            print(f"{modality}: the interval is wider than 60 points, so engine.max_interval keeps every series without a number")
    for modality, why in found["refused"].items():
        print(f"{modality} is answered as before: {why}")
    for reason, count in found["left_out"].items():
        print(f"left out: {count} series that end as {reason}")
    print(f"{found['weights']}: install it with mediqa model import, then set engine.profile and engine.thresholds")
