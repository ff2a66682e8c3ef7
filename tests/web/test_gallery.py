"""The gallery over files that other programs wrote, damaged ones, and names that aren't text."""

import json
import os
import sys
import urllib.parse
from types import SimpleNamespace

import av
import numpy as np
import pytest

from reeltune.jobs.queue import Queue
from reeltune.media.mp4 import write_mp4
from reeltune.web.gallery import detail, films, find, grid
from reeltune.web.studio import Studio
from reeltune.web.uploads import settings_of

FRAMES = np.zeros((5, 32, 32, 3), np.uint8)


@pytest.fixture
def studio(root):
    (root / "uploads").mkdir()
    (root / "outputs").mkdir()
    return Studio(root, SimpleNamespace(queue=Queue(root), live=None, trouble=None, wake=lambda: None), local=True)


def test_settings_of_wangps_videos_are_shown_and_read_back(studio, root):
    path = root / "outputs" / "wangp.mp4"
    settings = {"type": "WanGP v10", "model_type": "t2v_1.3B", "prompt": "a fox", "seed": 12, "resolution": "832x480"}
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = json.dumps(settings)
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    assert "a fox" in grid(films(studio), 0)
    shown = detail(studio, "wangp.mp4")
    assert "t2v_1.3B" in shown
    assert "WanGP v10" in shown
    id, read, _ = settings_of(path)
    assert (id, read["seed"], read["resolution"]) == ("t2v_1.3B", 12, "832x480")


def test_one_damaged_file_hides_no_other(studio, root):
    outputs = root / "outputs"
    good = write_mp4(outputs / "good.mp4", FRAMES, 16, {"definition": "x", "settings": {"prompt": "MARK"}})
    (outputs / "tag.mp4").write_bytes(good.read_bytes().replace(b"MARK", b"M\xff\xfeK"))
    for name, content in (("text.mp4", b"text"), ("cut.mp4", good.read_bytes()[:-99]), ("empty.mp4", b"")):
        (outputs / name).write_bytes(content)
    (outputs / "nowhere.mp4").symlink_to(outputs / "absent")
    (outputs / "folder.mp4").mkdir()
    rows = films(studio)
    assert {row.path.name for row in rows} == {"good.mp4", "tag.mp4", "text.mp4", "cut.mp4"}
    assert grid(rows, 0).encode("utf-8")
    for row in rows:
        assert detail(studio, row.path.name).encode("utf-8")
    assert "M\ufffd\ufffdK" in detail(studio, "tag.mp4")
    assert "is a text file" in detail(studio, "text.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
@pytest.mark.parametrize("raw", [b"caf\xe9.mp4", b"\xff\xfe \xed\xa0\x80.mp4", "a\u202eb\x07.mp4".encode()])
def test_a_name_that_cannot_be_shown_is_listed_found_and_served(studio, root, raw):
    path = root / "outputs" / os.fsdecode(raw)
    write_mp4(path, FRAMES, 16, {"definition": "x", "settings": {"prompt": "p"}})
    html = grid(films(studio), 0)
    html.encode("utf-8")
    source = html.split('src="gradio_api/file=')[1].split('"')[0]
    assert urllib.parse.unquote_to_bytes(source) == os.fsencode(path)
    shown = html.split('data-name="')[1].split('"')[0]
    assert find(studio, shown) == path
    assert "no settings" not in detail(studio, shown)
