"""The real openai client on nano: what it makes, follows, lists, downloads, remixes and deletes, and its errors."""

import base64
import io
import json
import time
import warnings

import httpx
import openai
import pytest
from api_serving import QUICK, WAIT_SECONDS, api_server, ended, http
from PIL import Image

from reeltune.media.mp4 import read_frames
from reeltune.media.origin import read_stored

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
EXTRA = {key: value for key, value in QUICK.items() if key not in ("model", "size")}


@pytest.fixture
def client(api_server):
    with openai.OpenAI(base_url=f"{api_server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def make(client, prompt="a red circle moves right", **given):
    extra = {**EXTRA, **given.pop("extra_body", {})}
    return client.videos.create(model="nano_t2v", prompt=prompt, size="32x32", extra_body=extra, **given)


def test_a_video_is_made_followed_downloaded_remixed_and_deleted(client, tmp_path, api_server):
    video = client.videos.create_and_poll(
        model="nano_t2v",
        prompt="a red circle",
        size="40x40",
        seconds="1",
        extra_body={"seed": 7, "num_inference_steps": 2},
    )
    assert (video.status, video.progress, video.model, video.object) == ("completed", 100, "nano_t2v", "video")
    assert (video.size, video.seconds, video.prompt) == ("32x32", "1.0625", "a red circle")
    assert any("40x40 becomes 32x32" in notice for notice in video.notices)
    assert any("1 seconds become 1.0625" in notice for notice in video.notices)
    assert video.completed_at >= video.created_at > 1_700_000_000
    path = tmp_path / "video.mp4"
    client.videos.download_content(video.id).write_to_file(path)
    assert read_frames(path).shape == (17, 32, 32, 3)
    assert read_stored(path).settings["seed"] == 7
    thumbnail = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read()))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (32, 32))
    sheet = Image.open(io.BytesIO(client.videos.download_content(video.id, variant="spritesheet").read()))
    assert (sheet.format, sheet.size) == ("JPEG", (4 * 32, 3 * 32))
    remixed = client.videos.remix(video.id, prompt="a blue square")
    assert (remixed.remixed_from_video_id, remixed.prompt) == (video.id, "a blue square")
    remixed = client.videos.poll(remixed.id)
    assert remixed.status == "completed"
    client.videos.download_content(remixed.id).write_to_file(path)
    stored = read_stored(path).settings
    assert (stored["prompt"], stored["seed"], stored["num_inference_steps"]) == ("a blue square", 7, 2)
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)
    assert len(list((api_server.root / "outputs").glob("*.mp4"))) == 2


def test_lists_have_pages_in_both_orders(client):
    ids = [make(client).id for _ in range(5)]
    newest = client.videos.list(limit=2)
    assert [video.id for video in newest.data] == ids[:-3:-1]
    assert newest.has_more
    followed = [video.id for video in client.videos.list(limit=2)]  # the client asks for the further pages itself
    assert followed[:5] == ids[::-1]
    assert len(set(followed)) == len(followed)
    oldest = client.videos.list(limit=100, order="asc").data
    assert [video.id for video in oldest][-5:] == ids
    assert [video.id for video in client.videos.list(after=ids[2], order="asc").data] == ids[3:]


def test_models_are_listed(client):
    models = {model.id: model for model in client.models.list()}
    assert models["nano_t2v"].owned_by == "reeltune"
    assert client.models.retrieve("nano_i2v").id == "nano_i2v"


def picture(color="red"):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_is_uploaded_with_the_request_or_before_it(client, http, tmp_path):
    given = {"model": "nano_i2v", "prompt": "a red circle moves right", "size": "32x32"}
    uploaded = client.files.create(file=("start.png", picture()), purpose="user_data")
    assert uploaded.id.startswith("file-")
    assert uploaded.bytes == len(picture())
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    given["extra_body"] = EXTRA
    videos = [client.videos.create(input_reference=("start.png", picture(), "image/png"), **given)]
    for reference in (
        {"file_id": uploaded.id},
        {"image_url": url},
    ):  # the client itself refuses to send these as an argument
        given["extra_body"] = {**EXTRA, "input_reference": reference}
        videos.append(client.videos.create(**given))
    frames = []
    for number, video in enumerate(videos):
        assert ended(http, video.id)["status"] == "completed"
        path = tmp_path / f"{number}.mp4"
        client.videos.download_content(video.id).write_to_file(path)
        frames.append(read_frames(path))
    assert all((other == frames[0]).all() for other in frames[1:])
    red, green, _ = frames[0][0].reshape(-1, 3).mean(axis=0)
    assert red > green + 30  # it begins with the red image, as far as one step can tell


def test_a_video_that_is_made_can_be_cancelled(client, http):
    video = client.videos.create(
        model="nano_t2v", prompt="a slow one", size="128x128", seconds="4", extra_body={"num_inference_steps": 1000}
    )
    while client.videos.retrieve(video.id).status == "queued":
        time.sleep(0.05)
    with pytest.raises(openai.NotFoundError, match="isn't finished yet"):
        client.videos.download_content(video.id)
    assert client.videos.delete(video.id).deleted
    after = ended(http, video.id)
    assert (after["status"], after["error"]["code"]) == ("failed", "cancelled")
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError, match="There is no video"):
        client.videos.retrieve(video.id)


def test_the_poll_header_is_there_while_something_changes(http):
    answer = http.post("/v1/videos", json={**QUICK, "prompt": "a red circle"})
    assert answer.headers["openai-poll-after-ms"] == "1000"
    assert ended(http, answer.json()["id"])["progress"] == 100
    assert "openai-poll-after-ms" not in http.get(f"/v1/videos/{answer.json()['id']}").headers


def test_sync_answers_with_the_video(http):
    answer = http.post("/v1/videos/sync", json={**QUICK, "prompt": "a red circle"}, timeout=WAIT_SECONDS)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.content[4:8] == b"ftyp"
    assert http.get(f"/v1/videos/{answer.headers['x-video-id']}").json()["status"] == "completed"


@pytest.mark.parametrize("kind", ["json", "data", "files"])
def test_every_settings_key_and_the_names_of_other_servers_are_understood(kind, http, api_server):
    fields = {
        "width": "32", "height": "32", "num_frames": "9", "fps": "8", "num_inference_steps": "3", "guidance_scale": "2.5",
        "negative_prompt": "blue", "flow_shift": "4", "seed": "11", "settings": json.dumps({"sample_solver": "euler"}),
        "prompt": f"a red circle\non black, {kind}",
    }  # fmt: skip
    if kind == "files":  # a multipart form
        fields = {name: (None, text) for name, text in {"model": "nano_t2v", **fields}.items()}
    video = http.post("/v1/videos", **{kind: {"model": "nano_t2v"} | fields}).json()
    assert video.get("size") == "32x32", video
    assert video["seconds"] == "1.125"
    assert ended(http, video["id"])["outputs"] == 1  # two lines are one prompt
    path = max((api_server.root / "outputs").glob("*_11*.mp4"), key=lambda path: path.stat().st_mtime_ns)
    stored = read_stored(path).settings
    expected = {
        "resolution": "32x32", "video_length": 9, "num_inference_steps": 3, "guidance_scale": 2.5, "negative_prompt": "blue",
        "flow_shift": 4.0, "seed": 11, "sample_solver": "euler", "prompt": f"a red circle\non black, {kind}",
    }  # fmt: skip
    assert {key: stored[key] for key in expected} == expected


WRONG = [
    # what is wrong, the call, the exception, what its message says, and the field that it names
    ("no prompt", lambda client: client.videos.create(prompt="", model="nano_t2v"), openai.BadRequestError, "prompt is missing", "prompt"),
    ("unknown model", lambda client: make_with(client, model="sora-2"), openai.NotFoundError, "sora-2", "model"),
    ("a size that is none", lambda client: make_with(client, size="large"), openai.BadRequestError, "WIDTHxHEIGHT", "size"),
    ("seconds that are none", lambda client: make_with(client, seconds="long"), openai.BadRequestError, "for seconds", "seconds"),
    ("no seconds at all", lambda client: make_with(client, seconds="0"), openai.BadRequestError, "for seconds", "seconds"),
    ("too long", lambda client: make_with(client, seconds="99999"), openai.BadRequestError, "duration up to", "seconds"),
    ("unknown field", lambda client: make(client, extra_body={"num_inference_step": 3}), openai.BadRequestError, "num_inference_steps", "num_inference_step"),
    ("negative steps", lambda client: make(client, extra_body={"num_inference_steps": -1}), openai.BadRequestError, "num_inference_steps", "num_inference_steps"),
    ("two lengths", lambda client: make(client, seconds="2"), openai.BadRequestError, "seconds and num_frames", "num_frames"),
    ("an image for a model without", lambda client: make(client, input_reference=("a.png", picture())), openai.BadRequestError, "input_reference", "input_reference"),
    ("a text as an image", lambda client: make(client, input_reference=("a.png", b"hello")), openai.APIStatusError, "not an image", None),
    ("an unknown file", lambda client: make(client, extra_body={"input_reference": {"file_id": "file-" + "0" * 64}}), openai.BadRequestError, "There is no file", None),
    ("a URL", lambda client: make(client, extra_body={"input_reference": {"image_url": "http://127.0.0.1/a.png"}}), openai.BadRequestError, "downloads nothing", "input_reference"),
    ("an unknown video", lambda client: client.videos.retrieve("video_999"), openai.NotFoundError, "video_999", None),
    ("an id of another kind", lambda client: client.videos.delete("../../etc"), openai.NotFoundError, "", None),
    ("no variant", lambda client: client.videos.download_content("video_1", variant="audio"), openai.BadRequestError, "variant", "variant"),
    ("a limit of nothing", lambda client: client.videos.list(limit=0), openai.BadRequestError, "limit", "limit"),
    ("after nothing", lambda client: client.videos.list(after="video_999"), openai.NotFoundError, "video_999", None),
    ("remix of nothing", lambda client: client.videos.remix("video_999", prompt="x"), openai.NotFoundError, "video_999", None),
    ("unknown model to describe", lambda client: client.models.retrieve("gpt-5"), openai.NotFoundError, "gpt-5", "model"),
    ("something else", lambda client: client.images.generate(prompt="x"), openai.NotFoundError, "There is nothing at POST", None),
]  # fmt: skip


def make_with(client, **given):
    return client.videos.create(**{"model": "nano_t2v", "prompt": "a red circle", **given})


@pytest.mark.parametrize(("call", "kind", "words", "param"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_request_gets_the_right_exception(call, kind, words, param, client, api_server):
    before = len(client.videos.list(limit=100).data)
    with pytest.raises(kind) as caught:
        call(client)
    error = caught.value
    assert isinstance(error.body, dict), error.body
    assert words in error.body["message"]
    assert 400 <= error.status_code < 500
    if param is not None:
        assert error.param == param
    assert len(client.videos.list(limit=100).data) == before
    api_server.assert_no_faults()
