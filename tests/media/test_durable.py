"""Files that a job depends on are on the disk before they get their names, so that a power cut leaves no empty ones."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reeltune.errors import MediaError
from reeltune.media.mp4 import write_mp4
from reeltune.media.png import write_png
from reeltune.service.uploads import IncomingFile


@pytest.fixture
def synced(monkeypatch):
    """The inodes of files, with the sizes at which they were written to the disk."""
    sizes = {}
    fsync = os.fsync

    def recorded(handle):
        fsync(handle)
        facts = os.fstat(handle)
        sizes[facts.st_ino] = facts.st_size

    monkeypatch.setattr(os, "fsync", recorded)
    return sizes


def mp4(folder):
    return write_mp4(folder / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 16, {"x": 1})


def png(folder):
    return write_png(folder / "a.png", np.zeros((16, 16, 3), np.uint8), {"x": 1})


def latents(folder):
    import torch

    from reeltune.engine.latents import store

    return store(torch.zeros(1, 16, 2, 4, 4), {"seed": 1}, "x", folder)


def upload(folder):
    Image.new("RGB", (16, 16)).save(folder / "source.png")
    file = IncomingFile(folder, "a.png")
    file.write((folder / "source.png").read_bytes())
    return file.finish()


@pytest.mark.parametrize("write", [mp4, png, latents, upload])
def test_a_file_is_on_the_disk_when_it_gets_its_name(tmp_path, synced, write, monkeypatch):
    replace = Path.replace
    order = []
    monkeypatch.setattr(Path, "replace", lambda path, target: (order.append(dict(synced)), replace(path, target))[1])
    facts = write(tmp_path).stat()
    assert facts.st_size
    assert order[-1][facts.st_ino] == facts.st_size


@pytest.mark.parametrize(("number", "written"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_file_system_that_cannot_sync_keeps_no_video_from_being_written(tmp_path, monkeypatch, number, written):
    def refused(handle):
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "fsync", refused)
    if written:
        assert mp4(tmp_path).stat().st_size
    else:
        with pytest.raises(MediaError, match="refused"):
            mp4(tmp_path)
        assert list(tmp_path.iterdir()) == []
