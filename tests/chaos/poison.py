"""A library that is loaded before libc into the processes of the node: a decoder that opens a poisoned file dies by SIGSEGV, every time.

What a decoder does with real broken pixel data depends on the version of a codec; this is the death of a codec that can be relied on.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void look(const char *path) {
    const char *folder = getenv("POISON_FOLDER"), *name = strrchr(path, '/');
    char line[4096], mark[4096];
    if (!folder || !name || !strstr(name, ".dcm")) return;
    snprintf(mark, sizeof mark, "%s%s", folder, name);
    if (access(mark, F_OK)) return;
    int file = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
    long got = file < 0 ? 0 : read(file, line, sizeof line - 1);
    if (file >= 0) close(file);
    for (long k = 0; k < got; k++) if (!line[k]) line[k] = ' ';
    line[got > 0 ? got : 0] = 0;
    if (strstr(line, "decoder_process")) raise(SIGSEGV);
}

#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more); \
    look(path); \
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
    return real(path, flags, mode); }

OPEN(open)
OPEN(open64)
"""


class Poison:
    """`environment` for the processes; `put` poisons the object with that path in the object store."""

    def __init__(self, folder: Path, compiler: str) -> None:
        self.folder = folder / "poisoned"
        self.folder.mkdir(parents=True)
        source, library = folder / "poison.c", folder / "poison.so"
        source.write_text(SOURCE, encoding="ascii")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "POISON_FOLDER": str(self.folder)}

    def put(self, relative: str) -> None:
        """relative: path of a file below the object root."""
        (self.folder / Path(relative).name).touch()
