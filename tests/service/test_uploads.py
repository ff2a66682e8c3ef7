"""Uploads are limited, identified by their content and stored once; a refused one leaves nothing."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from reeltune.service import uploads
from reeltune.service.uploads import IncomingFile, RefusalReason, UploadLimit, UploadRefused, copy_to_uploads


def png():
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "PNG")
    return content.getvalue()


def received(folder, name, content, **options):
    file = IncomingFile(folder, name, **options)
    try:
        for start in range(0, len(content), 10):
            file.write(content[start : start + 10])
        return file.finish()
    finally:
        file.discard()


def test_equal_content_is_stored_once_under_a_safe_name_with_a_matching_suffix(tmp_path):
    first = received(tmp_path, "../a/fox.jpg", png())
    assert first.name == "fox.png"
    assert first.parent.parent == tmp_path
    assert first.read_bytes() == png()
    assert received(tmp_path, "fox.png", png()) == first
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [first]


def test_a_refused_file_leaves_nothing(tmp_path):
    with pytest.raises(UploadRefused, match=r"fox\.png is a PDF file") as caught:
        received(tmp_path, "fox.png", b"%PDF-1.7")
    assert caught.value.reason is RefusalReason.UNSUPPORTED
    file = IncomingFile(tmp_path, "a.png")
    file.write(png()[:20])
    file.discard()
    assert list(tmp_path.iterdir()) == []


def npy(array, **options):
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


@pytest.mark.parametrize("media_only", [True, False])
def test_trajectories_are_stored_and_other_numpy_files_are_not(tmp_path, media_only):
    path = received(tmp_path, "tracks.bin", npy(np.zeros((3, 2, 2))), media_only=media_only)
    assert path.name == "tracks.npy"
    for content in (npy(np.zeros(3)), npy(np.full((1, 1, 2), None), allow_pickle=True)):
        with pytest.raises(UploadRefused, match=r"fox\.npy can't be used as trajectories"):
            received(tmp_path, "fox.npy", content, media_only=media_only)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_request_is_limited_by_its_announced_and_its_real_size(tmp_path):
    limit = UploadLimit(tmp_path, 100, envelope_bytes=10)
    limit.announce(110)
    with pytest.raises(UploadRefused, match="at most 100 bytes") as caught:
        limit.announce(111)
    assert caught.value.reason is RefusalReason.TOO_LARGE
    limit.count(bytes(110))
    with pytest.raises(UploadRefused, match="at most 100 bytes"):
        limit.count(b"1")


def test_uploads_leave_a_part_of_the_disk_free(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "free_disk", lambda folder: 1_000_000_005)
    limit = UploadLimit(tmp_path)
    limit.announce(5)
    with pytest.raises(UploadRefused, match="nearly full") as caught:
        limit.announce(6)
    assert caught.value.reason is RefusalReason.NO_SPACE
    monkeypatch.setattr(uploads, "free_disk", lambda folder: 999_999_999)
    with pytest.raises(UploadRefused, match="nearly full"):
        limit.count(b"1")


def test_a_copy_that_fails_leaves_nothing_and_hides_no_whole_one(tmp_path, monkeypatch):
    workspace = SimpleNamespace(uploads=tmp_path / "uploads")
    source = tmp_path / "fox.png"
    source.write_bytes(png())

    def full(_source, target):
        target.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", full)
        with pytest.raises(OSError, match="No space"):
            copy_to_uploads(workspace, source, "fox.png")
    assert [path for path in workspace.uploads.rglob("*") if path.is_file()] == []
    assert copy_to_uploads(workspace, source, "fox.png").read_bytes() == png()
