"""A model that makes sound, from the command line to the MP4, and from the queue to the gallery and the HTTP API."""

import json
import subprocess
import sys

import av
import httpx
import pytest
from api_serving import QUICK, create, ended, http

from reeltune import load_catalog
from reeltune.jobs import Runner
from reeltune.jobs.written import unreported_videos
from reeltune.media.origin import read_origin
from reeltune.media.tags import read_metadata
from reeltune.service.gallery import list_videos, sound_of
from reeltune.service.workspace import Workspace
from reeltune.web.gallery import video_details, video_grid
from reeltune.web.gallery_state import GalleryState
from servers import ApiServer
from sounding import assert_tone, sounding

__all__ = ["http"]


@pytest.fixture(scope="module")
def api_server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        sounding(monkeypatch)
        running = ApiServer(tmp_path_factory.mktemp("sound") / "root")
        yield running.start()
        running.stop()


def frames_and_rate(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames, int(stream.average_rate)


def test_from_the_command_line_to_the_file(root, monkeypatch):
    sounding(monkeypatch)
    command = [sys.executable, "-m", "reeltune", "generate", "nano_t2v", "a red circle", "--root", str(root)]
    options = ["--set", "resolution=32x32", "--set", "video_length=9", "--set", "num_inference_steps=1", "--seed", "7"]
    options += ["-o", str(root / "out.mp4")]
    monkeypatch.setenv("REELTUNE_OFFLINE", "1")
    answer = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    frames, fps = frames_and_rate(root / "out.mp4")
    assert frames == 9
    assert_tone(root / "out.mp4", fps, frames)
    assert read_origin(root / "out.mp4").settings["prompt"] == "a red circle"


def test_from_the_queue_to_the_gallery_and_the_download(api_server, http: httpx.Client, tmp_path):
    asked = create(http, num_frames=9)
    assert asked["sound"] is False
    made = ended(http, asked["id"])
    assert (made["status"], made["sound"]) == ("completed", True)
    assert http.get("/v1/videos").json()["data"][0]["sound"] is True
    path = tmp_path / "download.mp4"
    path.write_bytes(http.get(f"/v1/videos/{made['id']}/content").content)
    frames, fps = frames_and_rate(path)
    assert frames == 9
    assert_tone(path, fps, frames)
    assert read_metadata(path)["job"]["id"] == int(made["id"].removeprefix("video_"))
    for variant in ("thumbnail", "spritesheet"):
        assert http.get(f"/v1/videos/{made['id']}/content", params={"variant": variant}).status_code == 200

    workspace = Workspace(api_server.root, Runner(api_server.root))
    (shown,) = list_videos(workspace)
    assert str(sound_of(shown.path)) == f"AAC, 24 kHz, stereo, {frames / fps:.1f} s"
    assert "nano_t2v · with sound" in video_grid(workspace, GalleryState())
    details = video_details(workspace, shown.path.name)
    assert "<th>Sound</th><td>AAC, 24 kHz, stereo" in details
    assert "data-unmute" in details
    job = workspace.queue.get(int(made["id"].removeprefix("video_")))
    assert unreported_videos(api_server.root, job) == ()
    shown.path.unlink()
    assert http.get(f"/v1/videos/{made['id']}").json()["sound"] is False


def test_images_are_silent(api_server, http: httpx.Client):
    fields = {key: value for key, value in QUICK.items() if key != "num_frames"}
    section = json.loads(load_catalog(api_server.root)["nano_t2v"].files[0].read_text(encoding="utf-8"))
    section["model"]["image_outputs"] = True
    (api_server.root / "finetunes").mkdir(exist_ok=True)
    (api_server.root / "finetunes" / "pictures.json").write_text(json.dumps(section), encoding="utf-8")
    answer = http.post("/v1/videos", json={**fields, "model": "pictures", "prompt": "a red circle"})
    made = ended(http, answer.json()["id"])
    assert (made["status"], made["sound"]) == ("completed", False), made
    assert any("is an image, which has no sound" in notice for notice in made["notices"])
    assert http.get(f"/v1/videos/{made['id']}/content").headers["content-type"] == "image/png"
