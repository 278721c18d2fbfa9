"""A wall clock that a test can step for the processes of one node: a library loaded before libc that adds seconds from a file.

Needs a C compiler; the monotonic clocks stay as they are, as when an administrator or NTP steps the clock.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *step;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WALL_CLOCK_STEP");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) step = map;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int failed = syscall(SYS_clock_gettime, id, t);
    if (!failed && step && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *step;
    return failed;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """`environment` for the processes; `step` moves their wall clock at once."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc): the wall clock of a process cannot be stepped")
        folder.mkdir(parents=True, exist_ok=True)
        source, library, self._file = folder / "wall_clock.c", folder / "wall_clock.so", folder / "step"
        source.write_text(SOURCE, encoding="ascii")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self.seconds = 0
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_STEP": str(self._file)}

    def step(self, hours: float) -> None:
        """Forward, or backward where negative."""
        self.seconds += round(hours * 3600)
        with self._file.open("r+b", buffering=0) as file:  # in place: the processes have it mapped
            file.write(struct.pack("=q", self.seconds))
