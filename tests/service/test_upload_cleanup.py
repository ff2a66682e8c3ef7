"""Uploads that nothing uses are deleted, and all others stay."""

import os
from pathlib import Path

import numpy as np
import pytest

from reeltune.jobs import Runner
from reeltune.media.mp4 import write_mp4
from reeltune.service.drafts import VideoDraft
from reeltune.service.upload_cleanup import remove_unused
from reeltune.service.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    root = tmp_path / "root"
    for name in ("uploads", "outputs", "settings", "finetunes"):
        (root / name).mkdir(parents=True)
    return Workspace(root, Runner(root))


def test_uploads_are_deleted_when_nothing_names_them(workspace):
    root, old = workspace.root, 1_000_000_000

    def put(name, content=b"content"):
        path = root / "uploads" / name / "a.png"
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, (old, old))
        return path

    names = ("job", "unused", "new", "video", "saved", "definition", "draft", "extra")
    paths = {name: put(name) for name in names}
    os.utime(paths["new"])
    workspace.queue.add("nano_t2v", {"prompt": "x", "image_start": "uploads/job/a.png"})
    workspace.queue.add("nano_t2v", {"prompt": "x", "image_refs": [str(paths["extra"])]})
    settings = {"prompt": "x", "image_start": "uploads/video/a.png"}
    write_mp4(
        root / "outputs" / "v.mp4", np.zeros((1, 16, 16, 3), np.uint8), 16, {"definition": "x", "settings": settings}
    )
    (root / "outputs" / "damaged.mp4").write_bytes(b"damaged")
    (root / "settings" / "x_settings.json").write_text('{"image_end": "uploads/saved/a.png"}')
    (root / "finetunes" / "x.json").write_text('{"model": {}, "image_end": "uploads/definition/a.png"}')
    (root / "finetunes" / "broken.json").write_text("{")
    partial = root / "uploads" / ".0123.partial"
    partial.write_bytes(b"half")
    os.utime(partial, (old, old))
    draft = VideoDraft("i2v", {"image_start": str(paths["draft"])}, initial={})
    assert set(remove_unused(workspace, [draft])) == {paths["unused"], partial}
    assert not paths["unused"].parent.exists()
    stored = {path for path in (root / "uploads").rglob("*") if path.is_file()}
    assert stored == set(paths.values()) - {paths["unused"]}
    assert set(remove_unused(workspace, [])) == {paths["draft"]}


def test_an_upload_that_cannot_be_deleted_keeps_no_other_one(workspace, monkeypatch):
    paths = [workspace.uploads / name / "a.png" for name in "abc"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"content")
        os.utime(path, (1_000_000_000, 1_000_000_000))
    unlink = Path.unlink

    def refusing(path, missing_ok=False):
        if path == paths[1]:
            raise PermissionError(13, "The file is open in another program")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    assert sorted(remove_unused(workspace)) == [paths[0], paths[2]]
    assert [path.exists() for path in paths] == [False, True, False]
