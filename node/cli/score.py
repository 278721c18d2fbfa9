"""`mediqa score PATH...`: score files or folders without a node, with the same engine (DESIGN section 7)."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.output import FAILED, WRONG_USE, ConfigOption, JsonOption, QuietOption, fail, load_config, print_json, print_table, printable

OFFLINE = "offline"
"""Node id of objects that no node has made."""


def command(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders.")],
    slices: Annotated[str | None, typer.Option(help="salient (seven) or full (every slice); default: the configuration.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for SR, Secondary Capture and overlay PNG of each series.")] = None,
    config: ConfigOption = None, quiet: QuietOption = False, as_json: JsonOption = False,
) -> None:
    """Score files or folders without a node."""
    if slices not in (None, "salient", "full"):
        fail("--slices is salient or full", WRONG_USE)
    missing = [str(p) for p in paths if not p.exists()]
    if missing:
        fail(f"no such file or folder: {missing[0]}", WRONG_USE)
    settings = load_config(config)
    from rich.console import Console
    from rich.progress import Progress

    from node.build import new_decoder, policy_of
    from qa_engine.model import ModelMissing, load_model
    from qa_engine.series import group_files

    policy = policy_of(settings)
    policy = policy if slices is None else dataclasses.replace(policy, slices=slices)
    groups, rejected = group_files(paths)
    try:
        model = load_model(policy.profile)
    except ModelMissing:
        model = None  # the engine then says so of each series
    found, failed, silent = [], False, 0
    with new_decoder(settings) as decoder, Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("score", total=len(groups))
        for files in groups:
            assessment = _assess(files, policy, model, decoder)
            found.append(assessment)
            failed |= str(assessment.end) == "failed"
            if out is not None:
                try:
                    silent += not _write(assessment, files, settings, policy, out)
                except OSError as error:
                    failed = True
                    print(f"mediqa: cannot write to {out}: {error.strerror or type(error).__name__}", file=sys.stderr)
            progress.advance(task)
    if as_json:
        print_json({"series": [a.to_json() for a in found], "rejected": [{"file": str(r.file), "reason": r.reason} for r in rejected]})
    elif not quiet:
        print_table("", ["series", "modality", "region", "end", "quality", "90 % interval", "verdict", "worst", "seconds"],
                    [_row(a) for a in found], numeric=("quality", "seconds"))
        if silent:
            print(f"no report in {out} for {silent} series: report.on in the configuration says which ends have one, it has "
                  f"{', '.join(map(str, settings.report.on))}")
        for one in rejected:
            print(f"rejected: {printable(str(one.file))}: {one.reason}")
    if not found:
        fail("no DICOM series there")
    if failed:
        raise typer.Exit(FAILED)


def _assess(files: list[Path], policy: Any, model: Any, decoder: Any) -> Any:
    """The Assessment of a series; an error of ours ends it as failed and holds up no other."""
    from qa_engine.assess import assess
    from qa_engine.assessment import Assessment
    from qa_engine.header import raw, read_header, text
    from qa_engine.outcome import End, Reason

    try:
        return assess(files, policy, model, decoder)
    except Exception as error:
        print(f"mediqa: {printable(str(files[0]))}: {type(error).__name__}: {printable(str(error))}", file=sys.stderr)
        header = read_header(files[0])
        uid, modality = ("", "") if header is None else (text(raw(header, k)) for k in ("SeriesInstanceUID", "Modality"))
        return Assessment(uid, modality, End.FAILED, Reason.INTERNAL_ERROR, len(files))


def _row(a: Any) -> list[Any]:
    worst = a.worst_slice
    return [a.description or a.series_uid, a.modality, a.region, str(a.end) if a.reason is None else f"{a.end}/{a.reason}",
            None if a.score is None else f"{a.score:.1f}", None if a.interval is None else f"{a.interval[0]:.0f} to {a.interval[1]:.0f}",
            a.verdict, None if worst is None else f"slice {worst.ordinal}", f"{a.seconds.get('total', 0):.1f}"]


def _write(assessment: Any, files: list[Path], settings: Any, policy: Any, out: Path) -> bool:
    """SR (the first class of the configuration), Secondary Capture and PNG into a folder named by a digest of the series; False where
    the configuration asks for none."""
    if str(assessment.end) not in settings.report.on:
        return False
    from node import __version__
    from node.report.context import RenderContext
    from node.report.render import render_overlay_png, render_results
    from node.reporting import model_digest

    content = hashlib.sha256("".join(sorted(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)).encode()).hexdigest()
    report = settings.report
    context = RenderContext(node_id=OFFLINE, node_name=OFFLINE, version=__version__, revision=1, made_at=datetime.now(UTC),
                            content_digest=content, model_digest=model_digest(assessment, policy), charset=report.charset,
                            assumed_charset=report.assumed_charset,
                            series_numbers={"sr": report.series_number.sr, "sc": report.series_number.sc},
                            standard_verdict=report.standard_verdict)
    folder = out / hashlib.sha256(assessment.series_uid.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for made in render_results(assessment, files, context, report.sr_classes[:1], report.secondary_capture):
        (folder / f"{made.kind}.dcm").write_bytes(made.data)
    (folder / "overlay.png").write_bytes(render_overlay_png(assessment, context))
    return True
