"""The gallery with files of other programs, damaged files, and names that can't be displayed."""

import json
import os
import sys
import urllib.parse
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from reeltune.errors import MediaError
from reeltune.media.mp4 import write_mp4
from reeltune.service.continuing import continuation_draft
from reeltune.service.drafts import draft_with_settings
from reeltune.service.gallery import PAGE_SIZE, GalleryQuery, find_video, gallery_page, list_videos, select_videos
from reeltune.service.settings_files import read_settings_of
from reeltune.web.gallery import video_details, video_grid
from reeltune.web.gallery_state import GalleryState

FRAMES = np.zeros((5, 32, 32, 3), np.uint8)


def test_settings_of_wangps_videos_are_shown_and_read_back(workspace, root):
    path = root / "outputs" / "wangp.mp4"
    settings = {"type": "WanGP v10", "model_type": "t2v_1.3B", "prompt": "a fox", "seed": 12, "resolution": "832x480"}
    with av.open(str(path), "w") as container:
        container.metadata["comment"] = json.dumps(settings)
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode())
    assert "a fox" in video_grid(workspace, GalleryState())
    shown = video_details(workspace, "wangp.mp4")
    assert "t2v_1.3B" in shown
    assert "WanGP v10" in shown
    stored = read_settings_of(path)
    assert (stored.definition, stored.settings["seed"]) == ("t2v_1.3B", 12)
    assert stored.settings["resolution"] == "832x480"


def test_one_damaged_file_hides_no_other(workspace, root):
    outputs = root / "outputs"
    good = write_mp4(outputs / "good.mp4", FRAMES, 16, {"definition": "x", "settings": {"prompt": "MARK"}})
    (outputs / "tag.mp4").write_bytes(good.read_bytes().replace(b"MARK", b"M\xff\xfeK"))
    for name, content in (("text.mp4", b"text"), ("cut.mp4", good.read_bytes()[:-99]), ("empty.mp4", b"")):
        (outputs / name).write_bytes(content)
    (outputs / "nowhere.mp4").symlink_to(outputs / "absent")
    (outputs / "folder.mp4").mkdir()
    videos = list_videos(workspace)
    assert {video.path.name for video in videos} == {"good.mp4", "tag.mp4", "text.mp4", "cut.mp4"}
    assert video_grid(workspace, GalleryState()).encode("utf-8")
    for video in videos:
        assert video_details(workspace, video.path.name).encode("utf-8")
    assert "M\ufffd\ufffdK" in video_details(workspace, "tag.mp4")
    assert "is a text file" in video_details(workspace, "text.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep names as text")
@pytest.mark.parametrize("raw", [b"caf\xe9.mp4", b"\xff\xfe \xed\xa0\x80.mp4", "a\u202eb\x07.mp4".encode()])
def test_a_name_that_cannot_be_shown_is_listed_found_and_served(workspace, root, raw):
    path = root / "outputs" / os.fsdecode(raw)
    write_mp4(path, FRAMES, 16, {"definition": "x", "settings": {"prompt": "p"}})
    html = video_grid(workspace, GalleryState())
    html.encode("utf-8")
    source = html.split('src="gradio_api/file=')[1].split('"')[0]
    assert urllib.parse.unquote_to_bytes(source) == os.fsencode(path)
    shown = html.split('data-name="')[1].split('"')[0]
    assert find_video(workspace, shown) == path
    assert "no settings" not in video_details(workspace, shown)


def test_videos_are_searched_by_name_prompt_and_model_and_sorted(workspace, root):
    for number, (name, prompt) in enumerate((("b.mp4", "a Red fox"), ("a.mp4", "a blue fox"), ("C.mp4", "ÄRGER <b>"))):
        path = root / "outputs" / name
        write_mp4(
            path,
            np.zeros((5 + 8 * number, 32, 32, 3), np.uint8),
            16,
            {"definition": "t2v", "settings": {"prompt": prompt}},
        )
        os.utime(path, (1000 + number, 1000 + number))
    (root / "outputs" / "text.mp4").write_bytes(b"text")
    os.utime(root / "outputs" / "text.mp4", (1, 1))

    def names(**query):
        return [video.path.name for video in select_videos(list_videos(workspace), GalleryQuery(**query))]

    assert names() == ["C.mp4", "a.mp4", "b.mp4", "text.mp4"]
    assert names(order="old") == ["text.mp4", "b.mp4", "a.mp4", "C.mp4"]
    assert names(order="name") == ["a.mp4", "b.mp4", "C.mp4", "text.mp4"]
    assert names(order="size")[-1] == "text.mp4"
    assert names(words="FOX a") == ["a.mp4", "b.mp4"]
    assert names(words="red T2V") == ["b.mp4"]
    assert names(words="ärger") == ["C.mp4"]
    assert names(words="text") == ["text.mp4"]
    assert "No video matches “&lt;b&gt; x”" in video_grid(workspace, GalleryState(GalleryQuery("<b> x")))


def test_a_video_continues_from_its_last_frame_with_a_model_that_takes_one(workspace, root):
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    frames[-1] = (200, 30, 30)
    settings = {"prompt": "a fox", "seed": 5, "image_end": "uploads/x.png", "resolution": "64x64"}
    path = write_mp4(root / "outputs" / "a.mp4", frames, 16, {"definition": "nano_i2v", "settings": settings})
    draft = continuation_draft(workspace, "t2v", path)
    assert (draft.id, draft.settings["prompt"], draft.settings["seed"]) == ("nano_i2v", "a fox", 5)
    assert not draft.settings.get("image_end")
    with Image.open(draft.settings["image_start"]) as image:
        assert image.size == (64, 64)
        assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() < 25
    assert continuation_draft(workspace, "t2v", path).settings["image_start"] == draft.settings["image_start"]
    other = write_mp4(
        root / "outputs" / "b.mp4", frames, 16, {"definition": "t2v", "architecture": "t2v", "settings": {}}
    )
    assert continuation_draft(workspace, "ti2v_2_2", other).id == "ti2v_2_2"
    assert any(
        row.key == "image_start"
        for row in workspace.catalog()[continuation_draft(workspace, "t2v", other).id].architecture.inputs
    )
    (root / "outputs" / "text.mp4").write_bytes(b"text")
    with pytest.raises(MediaError, match="is a text file"):
        continuation_draft(workspace, "t2v", root / "outputs" / "text.mp4")


def test_settings_bring_images_from_elsewhere_on_this_machine_and_only_to_it(workspace, root, tmp_path):
    place = tmp_path / "elsewhere"
    place.mkdir()
    Image.new("RGB", (32, 32), "red").save(place / "own.png")
    (place / "secret.txt").write_text("secret")
    settings = {"image_start": str(place / "own.png")}
    draft = draft_with_settings(workspace, "ti2v_2_2", settings)
    copy = Path(draft.settings["image_start"])
    assert copy.is_relative_to(root / "uploads")
    assert copy.read_bytes() == (place / "own.png").read_bytes()
    assert draft.notices == ()
    for name in ("secret.txt", "absent.png"):
        assert not draft_with_settings(workspace, "ti2v_2_2", {"image_start": str(place / name)}).settings.get(
            "image_start"
        )
    workspace.local = False
    assert not draft_with_settings(workspace, "ti2v_2_2", settings).settings.get("image_start")
    assert {row.name for row in (root / "uploads").rglob("*") if row.is_file()} == {"own.png"}


def test_a_page_beyond_the_last_one_is_the_last_one(workspace, root):
    for number in range(PAGE_SIZE + 1):
        (root / "outputs" / f"{number:03}.mp4").write_bytes(b"x")
    pages = [gallery_page(workspace, GalleryQuery(order="name", page=page)) for page in (-1, 0, 1, 99)]
    assert [(page.page, len(page.videos), page.page_count) for page in pages] == [
        (0, PAGE_SIZE, 2), (0, PAGE_SIZE, 2), (1, 1, 2), (1, 1, 2),
    ]  # fmt: skip
    empty = gallery_page(workspace, GalleryQuery(words="fox"))
    assert (empty.matches, empty.total, empty.page_count) == (0, PAGE_SIZE + 1, 1)
