"""Saved queues in zip archives: what is read of them, and which are refused before anything of them is stored."""

import hashlib
import io
import json
import stat
import struct
import zipfile

import numpy as np
import pytest

from conftest import png_bytes, saved_queue
from reeltune.errors import FileError, ReeltuneError
from reeltune.service import archives
from reeltune.service.archives import ArchiveRefused, open_archive
from reeltune.service.uploads import UploadRefused

IMAGE = "task1_image_start_0.png"


def write(path, *files, method=zipfile.ZIP_DEFLATED):
    """An archive of (name or ZipInfo, content) pairs, after an empty queue."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("queue.json", "[]")
        for name, content in files:
            archive.writestr(name, content)
    return path


def entry(name, *, mode=0, flags=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.flag_bits |= flags
    return info


def everything(root):
    return sorted(path for path in root.rglob("*") if path.is_file() and "sqlite" not in path.name)


def test_files_are_stored_once_under_their_sha256(tmp_path, workspace):
    content = png_bytes()
    path = saved_queue(
        tmp_path / "q.zip", [{"model_type": "t2v"}], {IMAGE: content, "copy.png": content, "rest.png": b"x"}
    )
    with open_archive(path) as archive:
        assert archive.manifest()[0]["params"]["model_type"] == "t2v"
        stored = archive.store(workspace, IMAGE)
        assert stored == workspace.uploads / hashlib.sha256(content).hexdigest() / IMAGE
        assert stored.read_bytes() == content
        assert archive.store(workspace, IMAGE) == stored
        assert archive.store(workspace, "copy.png").parent == stored.parent
        assert archive.unused() == ["rest.png"]


def test_the_content_decides_and_not_the_name(tmp_path, workspace, root):
    files = {"a.png": b"#!/bin/sh\n", "b.png": png_bytes()[:100], "c.png": b'{"a": 1}', "d.txt": png_bytes()}
    path = saved_queue(tmp_path / "q.zip", [], files)
    with open_archive(path) as archive:
        for name, error in (("a.png", ArchiveRefused), ("b.png", UploadRefused), ("c.png", ArchiveRefused)):
            for _ in range(2):  # asked again, it is refused again
                with pytest.raises(error):
                    archive.store(workspace, name)
        assert everything(root) == []
        assert archive.store(workspace, "d.txt").name == "d.png"


def test_trajectories_are_inputs_too(tmp_path, workspace):
    content = io.BytesIO()
    np.save(content, np.zeros((3, 2, 2)))
    files = {"tracks.npy": content.getvalue(), "other.npy": content.getvalue()[:-1]}
    with open_archive(saved_queue(tmp_path / "q.zip", [], files)) as archive:
        assert archive.store(workspace, "tracks.npy").read_bytes() == content.getvalue()
        with pytest.raises(UploadRefused, match="can't be used as trajectories"):
            archive.store(workspace, "other.npy")


@pytest.mark.parametrize("name", ["nothing.png", "../secret.png", "/etc/passwd", "", "queue.json/"])
def test_only_files_of_the_archive_can_be_named(name, tmp_path, workspace, root):
    (root.parent / "secret.png").write_bytes(png_bytes())
    with open_archive(saved_queue(tmp_path / "q.zip", [])) as archive, pytest.raises(ArchiveRefused, match="is not in"):
        archive.store(workspace, name)


HOSTILE = {
    "a path that leads out": [("../../evil.png", b"x")],
    "an absolute path": [("/tmp/evil.png", b"x")],
    "a path of Windows": [("..\\evil.png", b"x")],
    "a drive": [("C:evil.png", b"x")],
    "a control character": [("a\nb.png", b"x")],
    "a link": [(entry("link.png", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")],
    "a device": [(entry("pipe.png", mode=stat.S_IFIFO | 0o600), b"")],
}


@pytest.mark.parametrize("files", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_as_a_whole(files, tmp_path, root, workspace):
    path = write(tmp_path / "q.zip", *files)
    before = everything(tmp_path)
    with pytest.raises(ArchiveRefused), open_archive(path):
        pass
    assert everything(tmp_path) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path):
    path = write(tmp_path / "q.zip", ("a.png", b"x"), ("a.png", b"y"))
    with pytest.raises(ArchiveRefused, match="twice"), open_archive(path):
        pass


def test_other_methods_of_compression_and_encryption_are_refused(tmp_path):
    with (
        pytest.raises(ArchiveRefused, match="compressed"),
        open_archive(write(tmp_path / "a.zip", method=zipfile.ZIP_LZMA)),
    ):
        pass
    path = write(tmp_path / "b.zip", ("a.png", b"x"))
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the list of files
    path.write_bytes(raw)
    with pytest.raises(ArchiveRefused, match="encrypted"), open_archive(path):
        pass


def test_numbers_and_sizes_are_limited(tmp_path, monkeypatch, workspace):
    path = write(tmp_path / "q.zip", ("a.png", bytes(50_000)), ("b.png", bytes(50_000)))
    for name, value, words in (
        ("MAX_FILES", 2, "3 files, of 2"),
        ("MAX_TOTAL_BYTES", 99_000, "of 99,000 at most"),
        ("MAX_BYTES", 49_000, "50,000 bytes, of 49,000"),
        ("_MAX_DIRECTORY_BYTES", 100, "list of files is too long"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(archives, name, value)
            with pytest.raises(ArchiveRefused, match=words), open_archive(path):
                pass
    monkeypatch.setattr(archives, "MAX_JSON_BYTES", 1)
    with open_archive(path) as archive, pytest.raises(ArchiveRefused, match="more than 1 bytes"):
        archive.manifest()


def test_a_bomb_is_stopped_by_its_kind_before_it_is_unpacked(tmp_path, workspace, root, monkeypatch):
    path = write(tmp_path / "q.zip", ("bomb.png", bytes(30_000_000)))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(archives, "_receive", lambda *_: pytest.fail("it was unpacked"))
    with open_archive(path) as archive, pytest.raises(ArchiveRefused, match="unknown kind"):
        archive.store(workspace, "bomb.png")


def test_a_file_that_is_longer_than_its_archive_says_is_not_stored(tmp_path, workspace, root):
    """The list declares 100 bytes, the data has many more: no more than these are read, and their checksum is wrong."""
    path = saved_queue(tmp_path / "q.zip", [], {IMAGE: png_bytes(side=512)})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 100)
    path.write_bytes(raw)
    with open_archive(path) as archive, pytest.raises(ReeltuneError):
        archive.store(workspace, IMAGE)
    assert everything(root) == []


def test_damaged_archives_are_refused(tmp_path):
    good = saved_queue(tmp_path / "good.zip", [{"model_type": "t2v"}] * 20, {IMAGE: png_bytes()}).read_bytes()
    path = tmp_path / "q.zip"
    for content in (good[:-30], good[:50], b"PK\x03\x04", b"", good[:60] + bytes(40) + good[100:]):
        path.write_bytes(content)
        with pytest.raises(ArchiveRefused), open_archive(path) as archive:
            archive.manifest()
    for manifest in (b"{", b"\xff\xfe", b"[" * 500):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("queue.json", manifest)
        with open_archive(path) as archive, pytest.raises(ArchiveRefused):
            archive.manifest()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", json.dumps([]))
    with open_archive(path) as archive, pytest.raises(ArchiveRefused, match=r"no queue\.json"):
        archive.manifest()
    with pytest.raises(FileError), open_archive(tmp_path / "nowhere.zip"):
        pass


def test_a_long_manifest_is_read_whole(tmp_path):
    """`zipfile` would read what isn't compressed in one go, and only its list of files has to be short."""
    tasks = [{"prompt": "x" * 5000}] * 1200
    path = tmp_path / "q.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("queue.json", json.dumps(tasks))
    with open_archive(path) as archive:
        assert archive.manifest() == tasks
