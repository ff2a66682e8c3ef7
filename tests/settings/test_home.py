"""Settings that are stored in videos and files tell nobody the name of the home folder."""

import json
from pathlib import Path

import numpy as np
import pytest

from reeltune.files import expand
from reeltune.media.origin import Origin, read_origin
from reeltune.media.video import Video
from reeltune.settings import portable, settings_text


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "alice"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def test_paths_in_the_home_folder_begin_with_a_tilde_and_lead_to_the_same_files(tmp_path, home):
    settings = {
        "prompt": f"{home}/is what somebody wrote",
        "image_start": f"{home}/pictures/fox.png",
        "image_refs": [f"{home}/a.png", f"{tmp_path}/alice2/b.png", "uploads/c.png"],
        "activated_loras": [f"{home}/style.safetensors", "style.safetensors", "https://h/home/x.safetensors"],
    }
    stored = portable(settings)
    assert stored["prompt"] == settings["prompt"]
    assert stored["image_start"] == "~/pictures/fox.png"
    assert stored["image_refs"] == ["~/a.png", f"{tmp_path}/alice2/b.png", "uploads/c.png"]
    assert stored["activated_loras"] == ["~/style.safetensors", "style.safetensors", "https://h/home/x.safetensors"]
    assert expand(stored["image_start"]) == Path(settings["image_start"])
    assert json.loads(settings_text("x", settings))["image_start"] == "~/pictures/fox.png"
    video = Video(np.zeros((1, 16, 16, 3), np.uint8), 16, Origin("x", "i2v", "y", settings, {}))
    path = video.save(tmp_path / "v.mp4")
    assert read_origin(path).settings["image_start"] == "~/pictures/fox.png"


def test_a_home_folder_that_is_no_persons_is_kept(monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/")
    assert portable({"image_start": "/videos/fox.png"})["image_start"] == "/videos/fox.png"
