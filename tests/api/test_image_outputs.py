"""A model that makes images, through the queue and the HTTP API, and in the gallery."""

import io
import json

import httpx
import numpy as np
import pytest
from api_serving import QUICK, api_server, ended, http
from PIL import Image

from reeltune import load_catalog
from reeltune.jobs import Queue, Runner
from reeltune.jobs.written import mark_of, unreported_videos
from reeltune.media.png import write_png
from reeltune.media.tags import read_metadata
from reeltune.service.continuing import continuation_draft
from reeltune.service.gallery import find_video, list_videos, origin_of
from reeltune.service.workspace import Workspace
from reeltune.web.gallery import video_details
from reeltune.web.markup import video

__all__ = ["api_server", "http"]


@pytest.fixture
def rng_frame():
    return np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)


def write_pictures(root):
    section = json.loads((load_catalog(root)["nano_t2v"].files[0]).read_text(encoding="utf-8"))
    model = {**section.pop("model"), "image_outputs": True}
    (root / "finetunes").mkdir(exist_ok=True)
    text = json.dumps({"model": model, **section})
    (root / "finetunes" / "pictures.json").write_text(text, encoding="utf-8")


def test_images_over_the_api(api_server, http: httpx.Client):
    write_pictures(api_server.root)
    fields = {key: value for key, value in QUICK.items() if key != "num_frames"}
    answer = http.post("/v1/videos", json={**fields, "model": "pictures", "prompt": "a red circle"})
    made = ended(http, answer.json()["id"])
    assert (made["status"], made["seconds"], made["size"]) == ("completed", "0", "32x32")
    content = http.get(f"/v1/videos/{made['id']}/content")
    assert content.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(content.content)) as image:
        assert (image.format, image.size) == ("PNG", (32, 32))
    thumbnail = http.get(f"/v1/videos/{made['id']}/content", params={"variant": "thumbnail"})
    assert thumbnail.headers["content-type"] == "image/webp"
    sync = http.post("/v1/videos/sync", json={**fields, "model": "pictures", "prompt": "a red circle"})
    assert sync.headers["content-type"] == "image/png"
    paths = sorted((api_server.root / "outputs").glob("*.png"))
    assert len(paths) == 2
    stored = [read_metadata(path) for path in paths]
    assert {value["definition"] for value in stored} == {"pictures"}
    assert all("job" in value for value in stored)
    remix = http.post(f"/v1/videos/{made['id']}/remix", json={"prompt": "a blue square"})
    assert ended(http, remix.json()["id"])["status"] == "completed"
    described = http.get("/api/definitions/pictures").json()
    assert described["image_outputs"]
    assert "video_length" not in described["settings"]["properties"]


def test_variants_and_resolutions_over_the_api(api_server, http: httpx.Client):
    configs = {"_name": "Size", "small": {"URLs": ["https://h/small_bf16.safetensors"]}}
    model = {"architecture": "t2v", "URLs": ["https://h/x_bf16.safetensors"], "configs": configs,
             "resolutions": [["Wide", "832x480"]], "fps": 24}  # fmt: skip
    (api_server.root / "finetunes").mkdir(exist_ok=True)
    (api_server.root / "finetunes" / "sizes.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    described = http.get("/api/definitions/sizes").json()
    assert described["configs"] == [{"id": "small", "label": "small"}]
    assert described["resolutions"] == [{"label": "Wide", "value": "832x480"}]
    assert described["fps"] == 24
    assert described["settings"]["properties"]["config"]["enum"] == ["", "small"]
    for config, name in (("", "x_bf16"), ("small", "small_bf16"), (",,,small", "small_bf16"), ("gone", "x_bf16")):
        plan = http.get("/api/definitions/sizes/plan", params={"config": config}).json()
        assert plan["choices"]["transformer"]["url"] == f"https://h/{name}.safetensors"


def test_images_in_the_gallery_and_on_the_page(root, rng_frame):
    write_pictures(root)
    workspace = Workspace(root, Runner(root))
    workspace.outputs.mkdir(exist_ok=True)
    path = workspace.outputs / "fox.png"
    settings = {"prompt": "a fox", "seed": 3, "resolution": "32x32"}
    write_png(path, rng_frame, {"schema_version": 1, "definition": "pictures", "settings": settings})
    (shown,) = list_videos(workspace)
    assert origin_of(shown).settings["prompt"] == "a fox"
    assert find_video(workspace, "fox.png") == path
    assert video(path).startswith("<img ")
    assert 'loading="lazy"' in video(path, poster=True)
    html = video_details(workspace, "fox.png")
    assert "<img " in html
    assert "a fox" in html
    draft = continuation_draft(workspace, "nano_i2v", path)
    assert draft.id == "nano_i2v"
    assert draft.message.text.startswith(f"{load_catalog(root)['nano_i2v'].name} starts with fox.png.")


def test_images_of_an_attempt_that_was_not_reported(root, rng_frame):
    write_pictures(root)
    queue = Queue(root)
    job = queue.add("pictures", {"prompt": "a fox"})
    folder = root / "outputs"
    folder.mkdir(exist_ok=True)
    write_png(folder / "a.png", rng_frame, mark_of(job.attempt))
    assert unreported_videos(root, job) == (str(folder / "a.png"),)
