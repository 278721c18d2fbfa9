"""A real worker process whose engine and report are small and quick, with a kill -9 where a test wants one.

`python -m tests.support.worker --config PATH` runs `node.worker.Worker` with an Assessment built by hand from the file names and result
objects of a few kilobytes. `$KILL_AT` names places (POINTS) and `$KILL_MARK` a folder: the process kills itself at each of them once.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom

POINTS = ("before-assess", "in-assess", "after-assess", "in-render", "after-render", "before-report", "after-report",
          "before-send", "first-byte", "after-send")
RETENTION_POINTS = ("before-delete", "in-delete", "after-delete")


def kill_at(point: str) -> None:
    """kill -9 of this process at `point`, once."""
    if point not in os.environ.get("KILL_AT", "").split(","):
        return
    mark = Path(os.environ["KILL_MARK"], point)
    if not mark.exists():
        mark.write_text(point)
        os.kill(os.getpid(), signal.SIGKILL)


def assess(files: Any) -> Any:
    from tests.support.assessments import assessed

    kill_at("in-assess")
    time.sleep(float(os.environ.get("ASSESS_SECONDS", "0")))
    if os.environ.get("ASSESS_FAILS") == "error":
        raise ValueError("SIMULATED^NAME in the text of an error")
    if os.environ.get("ASSESS_FAILS") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sets = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    with open(os.environ["ASSESS_COUNT"], "a", encoding="ascii") as count:
        count.write(f"{sets[0].SeriesInstanceUID}\n")
    return assessed(sets[0].SeriesInstanceUID, [d.SOPInstanceUID for d in sets], study_uid=sets[0].StudyInstanceUID)


def renderer(place: Any, policy: Any) -> Callable[..., Any]:
    """Objects whose UIDs derive from what was assessed, as the report's do."""
    from node.reporting import Kept, Rendering, retractions
    from node.workplace import SR_CLASSES
    from storage import index
    from tests.support.small_objects import SC, image

    def render(row: Any, versions: Any, assessment: Any) -> Rendering:
        assert bool(assessment.pictures) == (assessment.reason is None)
        with place.reader.connect() as conn:
            said = "" if assessment.reason is None and not retractions(conn, row) else f"/{assessment.reason}/{retractions(conn, row)}"
        kept = []
        for kind, sop_class in [("sc", SC), *(("sr", uid) for uid in SR_CLASSES.values())]:
            key = f"{row.series_uid}/{row.content_digest}/{sop_class}{said}"
            ds = image(sop_class, study=row.study_uid, sop="2.25." + str(int(hashlib.sha256(key.encode()).hexdigest()[:30], 16)),
                       series="2.25." + str(int(hashlib.sha256((row.series_uid + kind).encode()).hexdigest()[:30], 16)))
            out = BytesIO()
            ds.save_as(out, enforce_file_format=True)
            part = place.results.begin()
            part.write(out.getvalue())
            digest = hashlib.sha256(out.getvalue()).hexdigest()
            path = part.commit(row.study_uid, ds.SeriesInstanceUID, ds.SOPInstanceUID, digest)
            kept.append(Kept(kind, sop_class, ds.SOPInstanceUID, ds.SeriesInstanceUID, row.study_uid, path, digest, len(out.getvalue())))
            kill_at("in-render")
        kill_at("after-render")
        with place.reader.connect() as conn:
            return Rendering(tuple(k for k in kept if not index.is_result_object(conn, k.sop_uid)))

    return render


def main() -> int:
    import node.build
    import node.deliver.attempt
    import node.reporting
    import node.retention
    import node.steps
    import node.workflow
    from node import worker
    from storage import objects

    steps, attempt = node.steps.RevisionSteps, node.deliver.attempt
    real_assess, real_report, real_offer, real_remove = steps.assess, steps.report, attempt.offer, objects.ObjectStore.remove

    def stepped(name: str, real: Any) -> Any:
        def run(self: Any, revision_id: int) -> None:
            kill_at(f"before-{name}")
            real(self, revision_id)
            kill_at(f"after-{name}")
        return run

    def offered(association: Any, items: Any, before: Any) -> Any:
        def first_byte(item: Any) -> None:
            before(item)
            kill_at("first-byte")
        kill_at("before-send")
        done = real_offer(association, items, first_byte)
        kill_at("after-send")
        return done

    def removed(self: Any, relatives: Any) -> None:
        paths = list(relatives)
        kill_at("before-delete")
        real_remove(self, paths[:1])
        kill_at("in-delete")
        real_remove(self, paths[1:])
        kill_at("after-delete")

    steps.assess, steps.report, attempt.offer = stepped("assess", real_assess), stepped("report", real_report), offered
    objects.ObjectStore.remove = removed
    worker.TICK = 0.1  # the pace of the loops is no part of what is tested here
    node.retention.LOOK_EVERY = 0.2
    node.workflow.WorkflowEngine = partial(node.workflow.WorkflowEngine, polling_seconds=0.1)
    node.build.assess_with = lambda config: assess
    node.reporting.renderer = renderer
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
