"""The object store: bytes as they came, whole or not there, durable where the mode says so, under names that nobody else chooses."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import objects
from storage.objects import ObjectStore, PartFile, object_path

HOSTILE = ("../../etc/passwd", "/etc/passwd", "1.2\0.3", "", ".", "..", "a/b", "1.2\n3", "é" * 64, "1.2.3" * 200, "\udcff", "-rf", "CON")
ROOT = Path(__file__).resolve().parents[2]


def put(store: ObjectStore, data: bytes, sop: str = "1.2.3", another: bool = False, study: str = "1", series: str = "2") -> str:
    part = store.begin()
    part.write(data)
    return part.commit(study, series, sop, hashlib.sha256(data).hexdigest(), another)


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order, as paths."""
    seen: list[str] = []

    def noting(name: str) -> None:
        real = getattr(os, name)

        def call(first: object, *rest: object) -> object:
            seen.append(f"{name} {Path(os.readlink(f'/proc/self/fd/{first}') if isinstance(first, int) else str(first)).name}")
            return real(first, *rest)

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync", "rename"):
        noting(name)
    return seen


def test_bytes_come_back_as_they_went_in(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    data = bytes(range(256)) * 4000
    part = store.begin()
    for piece in (b"", data[:1], memoryview(data)[1:70_001], data[70_001:]):
        part.write(piece)
    relative = part.commit("1", "2", "3", hashlib.sha256(data).hexdigest())
    assert store.path(relative).read_bytes() == data
    assert list(store.walk()) == [relative] == [object_path("1", "2", "3")]
    assert list(store.parts.iterdir()) == []


def test_nothing_has_the_final_name_before_commit(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    part = store.begin()
    part.write(b"half")
    assert list(store.walk()) == [] and len(list(store.parts.iterdir())) == 1
    part.discard()
    part.discard()
    assert list(store.parts.iterdir()) == []


def test_discard_after_commit_keeps_the_file(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    part = store.begin()
    part.write(b"whole")
    relative = part.commit("1", "2", "3", "d" * 64)
    part.discard()
    assert store.path(relative).read_bytes() == b"whole"


@pytest.fixture(params=[True, False], ids=["ext4", "other"])
def follow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system is one that makes a name durable with its file."""
    monkeypatch.setattr(objects, "names_follow_files", lambda folder: request.param)
    return request.param


def placing(follow: bool, name: str, target: Path) -> list[str]:
    """What placing a part under `target` is, in order: one sync for both where the name follows, else one for each."""
    return [f"rename {name}", f"fsync {target.name}"] if follow else [f"fdatasync {name}", f"rename {name}", f"fsync {target.parent.name}"]


@pytest.mark.parametrize("mode", ["default", "full"])
def test_a_commit_makes_data_and_name_durable(tmp_path: Path, syncs: list[str], mode: str, follow: bool) -> None:
    store = ObjectStore(tmp_path / "objects", mode)
    relative = Path(object_path("1", "2", "3"))
    syncs.clear()
    part = store.begin()
    part.write(b"x")
    name = part.path.name
    part.commit("1", "2", "3", "d" * 64)
    parents = list(relative.parents)[::-1]  # ".", "aa", "aa/study", "aa/study/series"
    assert syncs[:3] == ["fsync objects", *(f"fsync {p.name}" for p in parents[1:3])]
    assert syncs[3:] == placing(follow, name, relative)
    syncs.clear()
    put(store, b"y", "4")  # the folders are known to be durable
    assert [s.split()[0] for s in syncs] == [s.split()[0] for s in placing(follow, name, relative)]


def test_a_file_that_is_there_is_only_replaced_by_a_durable_one(tmp_path: Path, syncs: list[str], follow: bool) -> None:
    store = ObjectStore(tmp_path / "objects")
    relative = Path(put(store, b"x", "3"))
    syncs.clear()
    part = store.begin()
    part.write(b"y")
    name = part.path.name
    part.commit("1", "2", "3", "d" * 64)
    assert syncs == placing(False, name, relative) and store.path(str(relative)).read_bytes() == b"y"


def test_a_folder_that_somebody_else_made_is_synced_all_the_same(tmp_path: Path, syncs: list[str], follow: bool) -> None:
    store = ObjectStore(tmp_path / "objects")
    (store.root / object_path("1", "2", "3")).parent.mkdir(parents=True)  # as another thread did that has not synced it yet
    syncs.clear()
    put(store, b"x", "3")
    assert [s.split()[0] for s in syncs[:3]] == ["fsync"] * 3
    assert [s.split()[0] for s in syncs[3:]] == [s.split()[0] for s in placing(follow, "", Path("a/b"))]


def test_a_folder_made_again_is_synced_again(tmp_path: Path, syncs: list[str], follow: bool) -> None:
    store = ObjectStore(tmp_path / "objects")
    relative = put(store, b"x", "3")
    store.path(relative).unlink()
    store.path(relative).parent.rmdir()
    syncs.clear()
    put(store, b"x", "3")
    assert [s.split()[0] for s in syncs] == ["fsync", *(s.split()[0] for s in placing(follow, "", Path("a/b")))]


def test_what_is_written_can_be_stamped(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    part = store.begin()
    part.write(b"head....tail")
    part.stamp(4, b"1234")
    part.write(b"more")
    relative = part.commit("1", "2", "3", "d" * 64)
    assert store.path(relative).read_bytes() == b"head1234tailmore"


def test_mode_os_never_syncs(tmp_path: Path, syncs: list[str]) -> None:
    store = ObjectStore(tmp_path / "objects", "os")
    put(store, b"x")
    assert [s.split()[0] for s in syncs] == ["rename"]


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="default, full, os"):
        ObjectStore(tmp_path, "fast")


@pytest.mark.parametrize("uid", HOSTILE)
def test_a_uid_is_never_part_of_a_path(tmp_path: Path, uid: str) -> None:
    relative = object_path(uid, uid, uid, "ab" * 32, True)
    hashed = hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()
    assert relative == f"{hashed[:2]}/{hashed[:16]}/{hashed[:16]}/{hashed[:16]}-abababababababab.dcm"
    store = ObjectStore(tmp_path / "objects", "os")
    data = b"bytes"
    assert store.path(put(store, data, uid, study=uid, series=uid)).read_bytes() == data
    inside = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert all(p.is_relative_to(store.root) for p in inside) and len(inside) == 1


@pytest.mark.parametrize("relative", ["../x", "/etc/passwd", "a/../../x"])
def test_a_stored_path_never_leaves_the_store(tmp_path: Path, relative: str) -> None:
    with pytest.raises(ValueError, match="outside"):
        ObjectStore(tmp_path / "objects").path(relative)


def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    (store.root / "aa").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="outside"):
        store.path("aa/secret")


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_only_this_user_may_look(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = ObjectStore(tmp_path / "a" / "b" / "objects")
        part = store.begin()
        assert stat.S_IMODE(part.path.stat().st_mode) == 0o600
        part.discard()
        put(store, b"x")
        made = [p for p in (tmp_path / "a", *(tmp_path / "a").rglob("*"))]
        assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_dir()} == {0o700}
        assert {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_file()} == {0o600}
    finally:
        os.umask(before)


def test_parts_of_a_killed_receiver_are_swept(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    kept = put(store, b"x")
    for name in ("1-1-aa.part", "2-7-bb.part"):
        (store.parts / name).write_bytes(b"half")
    (store.parts / "README").write_text("not a part")
    assert store.sweep_parts() == 2 and store.sweep_parts() == 0
    assert [p.name for p in store.parts.iterdir()] == ["README"] and list(store.walk()) == [kept]


def test_another_version_carries_its_digest_in_its_name(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    first, second, third = put(store, b"one"), put(store, b"two", another=True), put(store, b"three", another=True)
    assert second == first.removesuffix(".dcm") + f"-{hashlib.sha256(b'two').hexdigest()[:16]}.dcm"
    assert [store.path(p).read_bytes() for p in (first, second, third)] == [b"one", b"two", b"three"]
    os.utime(store.path(third), ns=(1, 1))  # came before the second
    assert store.in_order_of_reception(set(store.walk())) == [first, third, second]


def test_many_at_once(tmp_path: Path) -> None:
    """Different instances of one series from many threads, and one instance from all of them: all whole, no part left."""
    store = ObjectStore(tmp_path / "objects", "os")
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def sender(number: int) -> None:
        try:
            start.wait()
            for k in range(20):
                put(store, f"{number}-{k}".encode() * 1000, f"1.{number}.{k}")
                put(store, bytes([number]) * 50_000, "same")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=sender, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and list(store.parts.iterdir()) == []
    assert len(list(store.walk())) == 161
    for n in range(8):
        for k in range(20):
            assert store.path(object_path("1", "2", f"1.{n}.{k}")).read_bytes() == f"{n}-{k}".encode() * 1000
    same = store.path(object_path("1", "2", "same")).read_bytes()
    assert len(same) == 50_000 and len(set(same)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; skips where this user may not mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing_half_done(small_disk: Path) -> None:
    store = ObjectStore(small_disk / "objects")
    assert 900_000 < store.free_bytes() <= 1 << 20
    kept = put(store, b"x" * 300_000, "kept")
    part = store.begin()
    with pytest.raises(OSError, match="No space left") as caught:
        for _ in range(20):
            part.write(b"y" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    part.discard()
    assert list(store.walk()) == [kept] and list(store.parts.iterdir()) == []
    again = put(store, b"z" * 300_000, "again")  # the space is there again
    assert sorted(store.walk()) == sorted([kept, again]) and store.path(kept).read_bytes() == b"x" * 300_000


LIMITED = """
import resource, sys
from pathlib import Path
from storage.objects import ObjectStore
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = ObjectStore(Path(sys.argv[1]))
part = store.begin()
try:
    part.write(b"x" * 250_000)
except OSError as error:
    part.discard()
    print(error.errno, len(list(store.walk())), len(list(store.parts.iterdir())))
"""


def test_a_write_that_stops_in_the_middle(tmp_path: Path) -> None:
    """The same without a mount: the operating system takes 100 000 bytes of a file and no more."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "objects")], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == [str(errno.EFBIG), "0", "0"]


@pytest.mark.parametrize("step", ["sync", "rename"])
def test_a_commit_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, follow: bool) -> None:
    """An error of the disk at the last moment: no object, and `discard` removes the part and gives its descriptor back."""
    store = ObjectStore(tmp_path / "objects")
    store.make_folder((store.root / object_path("1", "2", "3")).parent)
    step = step if step != "sync" else "fsync" if follow else "fdatasync"

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    open_before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(objects.os, step, broken)
        part = store.begin()
        part.write(b"x")
        with pytest.raises(OSError, match="input/output"):
            part.commit("1", "2", "3", "d" * 64)
        part.discard()
    assert list(store.walk()) == [] and list(store.parts.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_two_parts_never_share_a_name(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    part = store.begin()
    with pytest.raises(FileExistsError):
        PartFile(store, part.path)
    part.discard()
