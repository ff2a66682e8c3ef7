"""Downloads that meet a full disk and are resumed: the file is right to the byte, or it isn't there."""

import errno
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import safetensors_bytes
from reeltune.errors import FetchError
from reeltune.fetch import transfer
from reeltune.fetch.download import Downloader
from reeltune.fetch.task import DownloadTask
from reeltune.files import write_all
from reeltune.library.journal import BLOCK, FileState, Journal
from reeltune.preferences import Preferences

NAME = "x_bf16.safetensors"
PATH = f"/m/{NAME}"
COUNT = 3 * 2**20 // 2 + 11  # values: a file of some MB and an odd size
RUNS = 15


class Disk:
    """Free bytes that files share. As on a real disk the write that no longer fits is short, and the next one fails."""

    def __init__(self) -> None:
        self.free = 10**12

    def take(self, count):
        if self.free == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(count, self.free)
        self.free -= taken
        return taken


class FileOnDisk(io.FileIO):
    """An unbuffered file of a disk that may be full."""

    disk: Disk

    def write(self, data):
        data = memoryview(data)
        return super().write(data[: self.disk.take(len(data))])


@pytest.fixture
def disk(monkeypatch):
    """The disk that partial files are written to."""
    disk, plain = Disk(), Path.open

    def opened(path, mode="r", buffering=-1, *args, **kwargs):
        if buffering == 0 and "+" in mode and path.name == f"{NAME}.partial":
            file = FileOnDisk(path, mode)
            file.disk = disk
            return file
        return plain(path, mode, buffering, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    return disk


@pytest.fixture
def served(server, monkeypatch):
    """A checkpoint whose bytes differ everywhere, downloaded in small pieces; nothing is checked before."""
    monkeypatch.setattr(transfer, "_MIN_PIECE_BYTES", 2 * BLOCK)
    monkeypatch.setattr(transfer, "_MAX_PIECE_BYTES", 2 * BLOCK)
    monkeypatch.setattr("reeltune.fetch.download.check_disk", lambda link, needed: None)
    content = random.Random(0).randbytes(2 * COUNT)
    server.files[PATH] = safetensors_bytes({"w": ("BF16", [COUNT])}, data=content)
    return server


def fetch(server, folder, sha256=None, connections=4):
    with Downloader(Preferences(stall_seconds=5, connections=connections)) as downloader:
        downloader.fetch(DownloadTask(server.url + PATH, folder / NAME, True, sha256))


def sum_of(content, known):
    return hashlib.sha256(content).hexdigest() if known else None


@pytest.mark.parametrize("known", [False, True], ids=["no sha256", "sha256 known"])
@pytest.mark.parametrize("seed", range(2))
def test_downloads_interrupted_by_a_full_disk_are_resumed_correctly(served, disk, tmp_path, known, seed):
    content, chance = served.files[PATH], random.Random(seed)
    for number in range(RUNS):
        folder = tmp_path / str(number)
        disk.free = chance.randrange(len(content))
        with pytest.raises(FetchError, match="No space left"):
            fetch(served, folder, sum_of(content, known))
        assert not (folder / NAME).exists()
        disk.free = 10**12
        fetch(served, folder, sum_of(content, known))
        assert (folder / NAME).read_bytes() == content
        shutil.rmtree(folder)


def test_bytes_written_before_the_disk_was_full_are_not_downloaded_again(served, disk, tmp_path):
    content = served.files[PATH]
    disk.free = len(content) - BLOCK
    with pytest.raises(FetchError):
        fetch(served, tmp_path, connections=1)
    disk.free = 10**12
    served.requests.clear()
    fetch(served, tmp_path)
    assert (tmp_path / NAME).read_bytes() == content
    begins = [int(headers["Range"][6:].partition("-")[0]) for _, headers in served.requests if "If-Range" in headers]
    assert min(begins) > len(content) // 2


def test_short_writes_are_repeated_and_empty_writes_are_errors():
    taken = bytearray()

    def write(data):
        taken.extend(data[:3])
        return min(3, len(data))

    write_all(write, b"0123456789")
    assert bytes(taken) == b"0123456789"
    with pytest.raises(OSError, match="no more bytes"):
        write_all(lambda data: 0, b"x")
    with pytest.raises(OSError, match="no more bytes"):
        write_all(lambda data: None, b"x")


def test_blocks_that_could_not_be_synced_are_absent_again(tmp_path, monkeypatch):
    known, sync = FileState(3 * BLOCK, '"a"', None), os.fsync
    with (tmp_path / "data").open("w+b") as file, Journal(tmp_path / "journal", known) as journal:
        journal.mark(0)
        journal.sync(file)
        journal.mark(1)

        def fails(handle):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(OSError):
            journal.sync(file)
        monkeypatch.setattr(os, "fsync", sync)
        assert (journal.has_block(0), journal.has_block(1)) == (True, False)
    with Journal(tmp_path / "journal", known) as journal:
        assert (journal.has_block(0), journal.has_block(1)) == (True, False)


# --- a true file system --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or not sys.platform.startswith("linux"):
        pytest.skip("NOT RUN: this system has no tmpfs to fill")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT RUN: a tmpfs can't be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("known", [False, True], ids=["no sha256", "sha256 known"])
def test_a_real_full_disk(served, small_disk, known):
    content = served.files[PATH]
    for number in range(5):
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(100_000 + 4096 * number))
        with pytest.raises(FetchError, match="No space left"):
            fetch(served, small_disk, sum_of(content, known))
        assert not (small_disk / NAME).exists()
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        fetch(served, small_disk, sum_of(content, known))
        assert (small_disk / NAME).read_bytes() == content
        for path in small_disk.iterdir():
            path.unlink()
        subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
