"""What the benchmark of reception sends, and how: files of one size, DCMTK's storescu with Nagle's algorithm off or as it comes."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, MR, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2.1"
SECONDS = 600
INDEX = ("node.db", "index")
"""How the files of an index are called: a receiver at work has them in memory."""


@dataclass(frozen=True)
class Workload:
    """One association per folder; `stock` leaves the environment of DCMTK as it comes."""

    name: str
    folders: tuple[Path, ...]
    instances: int
    bytes: int
    stock: bool = False


def make(folder: Path, quick: bool) -> list[Workload]:
    """A few objects to warm up with, and the five workloads, each with SOP Instance UIDs of its own, so that no receiver sees one twice."""
    ct, mr, share, stock, frames = (60, 30, 6, 20, 80) if quick else (500, 200, 50, 100, 600)
    return [_series(folder / "warm", "warm", CT, 64, [10]), _series(folder / "one", "one", CT, 512, [ct]),
            _series(folder / "ten", "ten", CT, 512, [share] * 10),
            _series(folder / "multiframe", "multiframe", ENHANCED_CT, 512, [1], frames), _series(folder / "mr", "mr", MR, 256, [mr]),
            _series(folder / "nagle", "nagle", CT, 512, [stock], stock=True)]


def make_more(folder: Path, quick: bool, rounds: int) -> list[Workload]:
    """CT slices on one association for each round, with UIDs of their own."""
    return [_series(folder / f"more-{k}", "more", CT, 512, [40 if quick else 200]) for k in range(rounds)]


def _series(folder: Path, name: str, sop_class: str, side: int, counts: list[int], frames: int = 1, stock: bool = False) -> Workload:
    """`counts` instances in a folder each: one series of noise in Explicit VR Little Endian."""
    study, series, number = generate_uid(), generate_uid(), 0
    noise = np.random.default_rng(1).integers(0, 4096, side * side, np.uint16).tobytes() * frames
    folders = []
    for k, count in enumerate(counts):
        folders.append(folder / str(k))
        folders[-1].mkdir(parents=True)
        for _ in range(count):
            number += 1
            ds = Dataset()
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = sop_class, generate_uid(), study, series
            ds.Modality, ds.PatientName, ds.PatientID, ds.InstanceNumber = "MR" if sop_class == MR else "CT", "SIMULATED^LOAD", "SIM-LOAD", number
            ds.StudyDate = ds.SeriesDate = ds.ContentDate = "20260101"
            ds.StudyTime = ds.ContentTime = "120000"
            ds.Manufacturer, ds.StudyID, ds.AccessionNumber, ds.SeriesNumber = "SIMULATED", "1", "", 1
            ds.ImageType, ds.ImagePositionPatient, ds.ImageOrientationPatient = ["ORIGINAL", "PRIMARY"], [0, 0, number], [1, 0, 0, 0, 1, 0]
            ds.PixelSpacing, ds.SliceThickness, ds.Rows, ds.Columns = [1, 1], 1, side, side
            ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
            ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
            if frames > 1:
                ds.NumberOfFrames = frames
            ds.PixelData = noise
            ds.save_as(folders[-1] / f"{number:05}.dcm", enforce_file_format=True)
    size = sum(file.stat().st_size for f in folders for file in f.iterdir())
    return Workload(name, tuple(folders), sum(counts), size, stock)


def environment(stock: bool) -> dict[str, str]:
    """Of DCMTK's programs: TCP_NODELAY=1 unless `stock`."""
    kept = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return kept if stock else kept | {"TCP_NODELAY": "1"}


def settle(folder: Path) -> None:
    """Lets the disk finish, and gives the memory of what was received below `folder` back to the system.

    Memory that a virtual machine has never touched costs its first user much more than memory that was used before; receivers that keep
    filling the page cache would measure that.
    """
    os.sync()
    for at, _, names in os.walk(folder):
        for name in names:
            if name.startswith(INDEX):
                continue
            try:
                handle = os.open(Path(at) / name, os.O_RDONLY)
            except OSError:
                continue  # a socket, or gone
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def send(work: Workload, port: int) -> float:
    """Seconds from the start of the senders to the end of the last one; SystemExit when one of them fails."""
    began = time.perf_counter()
    senders = [subprocess.Popen(["storescu", "-R", "-aet", "SENDER", "-aec", "MEDIQA", "127.0.0.1", str(port), "+sd", str(folder)],
                                env=environment(work.stock), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for folder in work.folders]
    ends = [sender.communicate(timeout=SECONDS) for sender in senders]
    seconds = time.perf_counter() - began
    if any(sender.returncode for sender in senders):
        raise SystemExit(f"receive: storescu failed: {b''.join(e[1] for e in ends).decode(errors='replace')[:500]}")
    return seconds


def plain_writing(work: Workload, folder: Path) -> float:
    """Seconds that writing and fdatasyncing the same files takes, one after the other, with nothing else done."""
    folder.mkdir(parents=True)
    contents = [file.read_bytes() for f in work.folders for file in sorted(f.iterdir())]
    began = time.perf_counter()
    for k, content in enumerate(contents):
        handle = os.open(folder / str(k), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, content)
        os.fdatasync(handle)
        os.close(handle)
    return time.perf_counter() - began
