"""What was sent and what was acknowledged, known to the driver alone and written to disk as it happens.

Series are made from a few templates by putting fresh UIDs of the same length into their bytes: thousands of valid series for the price of
a copy, each instance with a known digest.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from blake3 import blake3
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from tests.support.small_objects import CT, image, write

KINDS = {"mr": 2, "compressed": 3, "ct": 1, "too-small": 4, "localizer": 3, "not-scored": 3, "poison": 1}
"""Kind of series -> how often it is sent. Three are assessed; the others end soon, so that kills meet every stage."""
ENDS = {"mr": ("assessed",), "compressed": ("assessed", "undecodable"), "ct": ("assessed",), "too-small": ("skipped",),
        "localizer": ("skipped",), "not-scored": ("skipped",), "poison": ("undecodable",)}
"""Kind of series -> the ends that its newest revision may have. A file whose decoder is killed twice from outside counts as corrupt."""
SET_ASIDE = "failed"
"""The end of what was killed too often, whatever it is."""
POISON_SLICE = 1
"""Place of the slice that kills the decoder in a poison series."""


def placeholder(what: str, number: int = 0) -> str:
    """A UID of 44 characters that is replaced later."""
    return f"2.25.1{'0' * 30}{ {'study': 1, 'series': 2, 'frame': 3, 'sop': 4}[what] }{number:07}"


def body_at(data: bytes) -> int:
    """Where the data set begins in a file with preamble and file meta information (PS3.10 7.1)."""
    return 144 + int.from_bytes(data[140:144], "little")


def digest(data: bytes) -> str:
    """BLAKE3 hex, as the index has it, of the data set of a file."""
    return blake3(memoryview(data)[body_at(data):]).hexdigest()


@dataclass(frozen=True)
class Instance:
    sop_uid: str
    digest: str
    path: Path


@dataclass
class Series:
    """One series on the sender's disk; `left` are the instances without SUCCESS so far."""

    kind: str
    study_uid: str
    series_uid: str
    instances: tuple[Instance, ...]
    folder: Path
    left: list[Instance] = field(default_factory=list)


def make_templates(folder: Path) -> dict[str, list[bytes]]:
    """Kind -> files of one series with placeholder UIDs."""
    from qa_engine.simulation.dicom_series import write_sample

    write_sample("mr", folder / "mr", slices=6, size=96, seed=5)
    write_sample("ct", folder / "ct", slices=5, size=96, seed=5)
    samples = {kind: [pydicom.dcmread(p) for p in sorted((folder / kind).iterdir())] for kind in ("mr", "ct")}
    packed = [pydicom.dcmread(p) for p in sorted((folder / "mr").iterdir())]
    for ds in packed:
        ds.compress(RLELossless)
    small = [image(CT, number=n, rows=32) for n in (1, 2, 3)]
    scout = [image(CT, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]
    other = [image(number=n) for n in (1, 2)]
    sets = {**samples, "compressed": packed, "poison": packed[:3], "too-small": small, "localizer": scout, "not-scored": other}
    return {kind: [_template(ds, n, folder / "template.dcm") for n, ds in enumerate(found)] for kind, found in sets.items()}


def _template(ds: Dataset, number: int, file: Path) -> bytes:
    ds.StudyInstanceUID, ds.SeriesInstanceUID = placeholder("study"), placeholder("series")
    ds.FrameOfReferenceUID = placeholder("frame")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = placeholder("sop", number)
    return write(ds, file).read_bytes()


class Truth:
    """Makes series and keeps what was acknowledged. Safe for many threads.

    folder: `acknowledged.txt` (seconds since the start, SOP Instance UID, digest) and `series.jsonl` lie there. since: seconds since the start.
    """

    def __init__(self, folder: Path, seed: int, since: Callable[[], float], poison: Callable[[str, str, str], object] | None = None) -> None:
        """poison: called with study, series and SOP Instance UID of what shall kill decoders; None = no such series are made."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.since, self._poison = folder, since, poison
        self._kinds = {kind: often for kind, often in KINDS.items() if poison is not None or kind != "poison"}
        self._templates = make_templates(folder / "templates")
        self._dice = random.Random(f"series {seed}")
        self._lock = threading.Lock()
        self._acknowledged = os.open(folder / "acknowledged.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._made = (folder / "series.jsonl").open("a", encoding="ascii", buffering=1)
        self.series: dict[str, Series] = {}
        self.acknowledged: dict[tuple[str, str], float] = {}
        """(SOP Instance UID, digest) -> seconds since the start of its first SUCCESS."""
        self.answers = 0

    def make(self, kind: str | None = None) -> Series:
        """A new series, its files written."""
        with self._lock:
            kind = kind or self._dice.choices(list(self._kinds), list(self._kinds.values()))[0]
            fresh = {word: self._uid() for word in ("study", "series", "frame")}
            sops = [self._uid() for _ in self._templates[kind]]
        folder = self.folder / "outbox" / fresh["series"]
        folder.mkdir(parents=True)
        found = []
        for n, (template, sop) in enumerate(zip(self._templates[kind], sops, strict=True)):
            data = template.replace(placeholder("sop", n).encode(), sop.encode())
            for word, uid in fresh.items():
                data = data.replace(placeholder(word).encode(), uid.encode())
            path = folder / f"{n:03}.dcm"
            path.write_bytes(data)
            found.append(Instance(sop, digest(data), path))
        if kind == "poison" and self._poison is not None:
            self._poison(fresh["study"], fresh["series"], sops[POISON_SLICE])
        made = Series(kind, fresh["study"], fresh["series"], tuple(found), folder, list(found))
        with self._lock:
            self.series[made.series_uid] = made
            self._made.write(json.dumps({"at": round(self.since(), 2), "kind": kind, "study": made.study_uid, "series": made.series_uid,
                                         "instances": {i.sop_uid: i.digest for i in found}}) + "\n")
        return made

    def _uid(self) -> str:
        return "2.25.1" + "".join(self._dice.choices("123456789", k=38))

    def acknowledge(self, instances: Sequence[Instance]) -> None:
        """These got SUCCESS."""
        at = self.since()
        with self._lock:
            self.answers += len(instances)
            for one in instances:
                if (one.sop_uid, one.digest) not in self.acknowledged:
                    self.acknowledged[one.sop_uid, one.digest] = at
                    os.write(self._acknowledged, f"{at:.3f} {one.sop_uid} {one.digest}\n".encode("ascii"))

    def complete(self) -> list[Series]:
        """Series of which at least one instance was acknowledged."""
        with self._lock:
            known = {sop for sop, _ in self.acknowledged}
        return [s for s in list(self.series.values()) if any(i.sop_uid in known for i in s.instances)]


class Stopwatch:
    """Monotonic seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began
