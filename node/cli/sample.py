"""`mediqa sample ct|mr DIR`: write a simulated patient as a DICOM series, one series per dose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import WRONG_USE, JsonOption, QuietOption, fail, print_json


def command(
    kind: Annotated[str, typer.Argument(help="ct (chest) or mr (head).")],
    folder: Annotated[Path, typer.Argument(help="Folder to write to; several doses get a folder each below it.")],
    dose: Annotated[list[float] | None, typer.Option(help="Share of the full dose (CT) or signal (MR); may be given again.")] = None,
    slices: Annotated[int, typer.Option(help="Number of slices.")] = 20,
    size: Annotated[int, typer.Option(help="Rows and columns.")] = 256,
    views: Annotated[int, typer.Option(help="CT projections over half a turn.")] = 360,
    seed: Annotated[int, typer.Option(help="Another seed is another patient.")] = 0,
    kernel: Annotated[str, typer.Option(help="CT reconstruction: hann, cosine, shepp-logan, ramp.")] = "shepp-logan",
    sheet: Annotated[Path | None, typer.Option(help="Also write a contact sheet as PNG.")] = None,
    quiet: QuietOption = False, as_json: JsonOption = False,
) -> None:
    """Write a simulated patient as a DICOM series."""
    from qa_engine.simulation.dicom_series import write_samples

    doses = dose or [1.0]
    if kind == "pet":
        fail("a simulated PET patient comes with a later release; there are ct and mr", WRONG_USE)
    folders = [folder] if len(doses) == 1 else [folder / f"dose-{d:g}" for d in doses]
    said = (lambda stage: None) if quiet else (lambda stage: print(f"sample: {stage}", file=sys.stderr))
    try:
        written = write_samples(kind, folders, doses, slices=slices, size=size, views=views, seed=seed, kernel=kernel, progress=said)
    except ValueError as error:
        fail(str(error), WRONG_USE)
    except OSError as error:
        fail(f"cannot write to {folder}: {error.strerror}")
    if sheet is not None:
        try:
            contact_sheet(folders, sheet)
        except (OSError, ValueError) as error:
            fail(f"cannot write the contact sheet {sheet}: {getattr(error, 'strerror', None) or error}")
    if as_json:
        print_json({"series": [{"folder": str(w.folder), "kind": w.kind, "dose": w.dose, "files": w.files, "series_uid": w.series_uid}
                               for w in written]})
    elif not quiet:
        for w in written:
            print(f"{w.folder}: {w.files} images, dose {w.dose:g}")


def contact_sheet(folders: list[Path], out: Path) -> None:
    """Eight slices of each series in a row, as PNG."""
    import numpy as np
    import pydicom
    from PIL import Image

    rows = []
    for folder in folders:
        files = sorted(folder.glob("*.dcm"))
        chosen = [pydicom.dcmread(files[round(k)]) for k in np.linspace(0, len(files) - 1, min(8, len(files)))]
        images = [ds.pixel_array * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0)) for ds in chosen]
        low, width = float(chosen[0].WindowCenter - chosen[0].WindowWidth / 2), float(chosen[0].WindowWidth)
        rows.append(np.concatenate([np.clip((i - low) / width * 255, 0, 255).astype(np.uint8) for i in images], 1))
    Image.fromarray(np.concatenate(rows)).save(out)
