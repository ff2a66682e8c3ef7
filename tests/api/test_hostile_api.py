"""Requests made to break out or to break the server: paths in every field and address, wrong types, damaged JSON."""

import base64
import json
import logging
import sys
from pathlib import Path
from random import Random

import pytest
from inside import inside, refusal_of
from PIL import Image

from mutations import VALUES, mutated_json
from reeltune.families.vocabulary import INPUT_KEYS, KEYS
from reeltune.jobs import State

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode('ascii')}"
QUICK = {"model": "nano_t2v", "prompt": "x", "num_inference_steps": 1, "size": "32x32", "num_frames": 5}
MODELS = ["nano_t2v", "nano_i2v", "nano_vace", "nano_neon"]
REFERENCES = ["input_reference", "image_reference", "video_reference"]
FIELDS = [
    "model", "prompt", "seconds", "size", "width", "height", "num_frames", "fps", "guidance_scale_2", "boundary_ratio", "lora",
    "settings", "extra_params", "user", "stream", "response_format", "negative_prompt", "n", *REFERENCES,
]  # fmt: skip
PLACES = ["settings", "extra_params", ""]  # where settings are sent; "" for fields of their own


@pytest.fixture
def secret(root):
    """An image outside the root, a link to it among the outputs, and links that lead nowhere."""
    path = root.parent / "secret.png"
    Image.new("RGB", (32, 32), "red").save(path)
    outputs = root / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    (outputs / "link.png").symlink_to(path)
    (outputs / "folder").symlink_to(root.parent)
    (outputs / "loop.png").symlink_to(outputs / "loop.png")
    (root / "loras").mkdir(exist_ok=True)
    (root / "uploads").mkdir(exist_ok=True)
    (root / "uploads" / "link.png").symlink_to(path)
    return path


def breakouts(secret):
    """Texts that name the secret, or other things that aren't the server's to give."""
    name = secret.name
    return [
        str(secret), f"../{name}", f"../../{name}", f"outputs/../../{name}", f"uploads/../../{name}", f"./outputs/./../../{name}",
        f"outputs/{'../' * 30}{str(secret)[1:]}", "outputs/link.png", "uploads/link.png", f"outputs/folder/{name}", "outputs/loop.png",
        f"..\\{name}", f"outputs\\..\\..\\{name}", f"%2e%2e/{name}", f"outputs/%2e%2e/%2e%2e/{name}", f"..%2f{name}", f"%2e%2e%5c{name}",
        f"{secret}\0", f"{secret}\0.png", f"outputs/\0/../../{name}", "\0", f"file://{secret}", f"FILE://localhost{secret}", f"//{secret}",
        f"\\\\host\\share\\{name}", f"//host/share/{name}", "\\\\?\\C:\\x.png", "C:\\x.png", "C:x.png", "~/x.png", "~root/x.png", "~",
        "/", "/etc/passwd", "/proc/self/environ", "/proc/self/root" + str(secret), "/dev/zero", "/dev/stdin", ".", "..", "outputs", "outputs/",
        "outputs/" + "a" * 300, "outputs/" + "a" * 5000, "outputs/" + "a/" * 9000, "../" * 9000 + name, "file-../../x",
        f"file-{'0' * 64}", f"file-{'.' * 64}", "file-", f"data:{secret}", f"data:text/uri-list,file://{secret}", "\ud800", "‥/‥/x", "..／x",
        "http://127.0.0.1/x.png", "http://localhost:1/x", "https://169.254.169.254/latest", "ftp://127.0.0.1/x.png", "reeltune.json", "finetunes",
    ]  # fmt: skip


class Opened:
    """The files that this process has opened while `active`; audit hooks can't be removed."""

    def __init__(self):
        self.active, self.paths = False, []
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if self.active and event == "open":
            self.paths.append(str(arguments[0]))


OPENED = Opened()


@pytest.fixture
def opened():
    OPENED.paths.clear()
    OPENED.active = True
    yield OPENED.paths
    OPENED.active = False


def check_untouched(inside, secret, opened):
    """Nothing names the secret, and nobody has opened it or what lies beside it."""
    real = {str(secret), "/etc/passwd", "/proc/self/environ", "/dev/zero", "/dev/stdin"}
    assert not real & set(opened)
    assert not [path for path in opened if path.endswith(("/link.png", f"folder/{secret.name}"))]
    for job in inside.queue.jobs():
        assert secret.name not in json.dumps(dict(job.settings))
    assert {path.name for path in secret.parent.iterdir()} <= {secret.name, inside.root.name, "hf"}


# --- paths in every field ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_no_input_names_a_file_outside(inside, secret, opened, model):
    inputs = [key for key in INPUT_KEYS if not KEYS[key].depends_on]  # the others have no effect
    for text in breakouts(secret):
        for key in (*inputs, *REFERENCES, "activated_loras", "lora"):
            for value in (text, [text]):
                error = refusal_of(inside.ask("POST", "/v1/videos", {**QUICK, "model": model, key: value}))
                assert str(secret.parent) not in error["message"].replace(text, "").replace(text[:60], "")
    assert inside.queue.jobs() == []
    check_untouched(inside, secret, opened)


@pytest.mark.parametrize("place", PLACES)
def test_no_setting_names_a_file_outside(inside, secret, opened, place):
    for text in breakouts(secret)[:16]:
        for key in KEYS:
            given = {place: {key: text}} if place else {key: text}
            answer = inside.ask("POST", "/v1/videos", {**QUICK, **given})
            if answer.status_code != 200:  # a prompt may be any text
                refusal_of(answer)
    for job in inside.queue.jobs():  # those with settings that the model doesn't use
        for key in {*INPUT_KEYS, "activated_loras"} & set(job.settings):
            assert (inside.root / str(job.settings[key])).resolve().is_relative_to(inside.root)
    assert not {str(secret), "/etc/passwd"} & set(opened)


def test_no_shape_of_a_reference_leads_outside(inside, secret, opened):
    for text in breakouts(secret):
        for shape in (
            {"file_id": text},
            {"image_url": text},
            {"video_url": text},
            {"url": text},
            {"image_url": {"url": text}},
            json.dumps({"file_id": text}),
            json.dumps({"image_url": {"url": text}}),
            [text],
            {"path": text},
            {"file": text},
            {"file_id": text, "url": text},
            {"file_id": {"url": {"url": text}}},
            {text: text},
        ):
            for key in REFERENCES:
                refusal_of(inside.ask("POST", "/v1/videos", {**QUICK, "model": "nano_i2v", key: shape}))
    assert inside.queue.jobs() == []
    check_untouched(inside, secret, opened)


def test_no_shape_of_a_lora_leads_outside(inside, secret, opened):
    for text in breakouts(secret):
        for shape in (
            {"name": text},
            {"path": text, "scale": 1},
            {"local_path": text, "weight": 1},
            [{"lora_path": text}],
            ["x.safetensors", text],
            json.dumps([{"name": text}]),
            {"name": "x.safetensors", "path": text},
            f"{text}|sub",
            f" {text}",
            f"loras/{text}",
        ):
            refusal_of(inside.ask("POST", "/v1/videos", {**QUICK, "lora": shape}))
    assert inside.queue.jobs() == []
    check_untouched(inside, secret, opened)


def test_what_is_outside_is_not_told_from_what_does_not_exist(inside):
    """Otherwise requests could find out which files this machine has."""
    for key, model in (("image_start", "nano_i2v"), ("activated_loras", "nano_t2v"), ("input_reference", "nano_i2v")):
        messages = set()
        for path in (Path("/etc/passwd"), Path("/etc"), Path("/nowhere/x"), Path(sys.executable), Path("/dev/null")):
            error = refusal_of(inside.ask("POST", "/v1/videos", {**QUICK, "model": model, key: str(path)}))
            messages.add(error["message"].replace(str(path), "PATH").replace(path.name, "PATH"))
        assert len(messages) == 1


def test_a_remix_leads_nowhere_else_either(inside, secret, opened):
    job = inside.queue.add("nano_t2v", {"prompt": "x", "activated_loras": [str(secret)]})  # as the owner's page could
    finish(inside, job.id)
    refusal_of(inside.ask("POST", f"/v1/videos/video_{job.id}/remix", {"prompt": "y"}))
    refusal_of(
        inside.ask("POST", f"/v1/videos/video_{job.id}/remix", {"prompt": "y", "activated_loras": [str(secret)]})
    )
    assert len(inside.queue.jobs()) == 1
    assert str(secret) not in opened


def finish(inside, id, outputs=()):
    """Let a job be done, with outputs."""
    job = inside.queue.take("test", 60)
    assert job.id == id
    inside.queue.finish(job.attempt, State.DONE, outputs=list(outputs))


# --- paths in every address -------------------------------------------------------------------------------------------

IDS = [
    "..", "../..", "%2e%2e", "%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5c..%5cx", "%252e%252e%252f", "%00", "video_1%00", "video_1%00.mp4",
    "video_0", "video_-1", "video_1.0", "video_1e3", "video_+1", "video_%201", "video_1%0a", "video_０１", "video_１", "video_" + "9" * 18,
    "video_" + "9" * 19, "video_" + "9" * 5000, "VIDEO_1", "video_", "video", "1", "0", "-1", "9223372036854775807", "9223372036854775808",
    "18446744073709551616", "-9223372036854775809", "1" * 400, "1e400", "0x1", "1_0", "NaN", "Infinity", "true", "null", "%ff%fe", "%ed%a0%80",
    "file-" + "0" * 64, "file-" + "%2e" * 64, "file-..%2f..%2fx", "file-" + "0" * 63 + "%0a", "FILE-" + "0" * 64, "//", "%2f%2fhost%2fshare",
    "%5c%5chost%5cshare", "C:%5cx", "~", "~root", "{id}", "%7bid%7d", "*", "'", "%22", ";", "'%20OR%201=1--", "<script>", "%3cscript%3e",
    "a" * 5000, "é", "%e2%80%ae", "%0d%0aSet-Cookie:%20x=y",
]  # fmt: skip
ROUTES = [
    ("GET", "/v1/videos/{}"), ("DELETE", "/v1/videos/{}"), ("GET", "/v1/videos/{}/content"), ("POST", "/v1/videos/{}/remix"),
    ("GET", "/v1/videos/{}/content?variant=thumbnail"), ("GET", "/v1/files/{}"), ("GET", "/v1/models/{}"), ("GET", "/api/definitions/{}"),
    ("GET", "/api/definitions/{}/plan"), ("GET", "/api/jobs/{}"), ("POST", "/api/jobs/{}/move"), ("POST", "/api/jobs/{}/cancel"),
    ("POST", "/api/jobs/{}/retry"), ("DELETE", "/api/jobs/{}"), ("GET", "/v1/videos?after={}"), ("GET", "/v1/videos?limit={}x"),
    ("GET", "/v1/videos?order={}"), ("GET", "/api/events?job={}x"), ("GET", "/v1/videos/video_1/content?variant={}"),
    ("GET", "/v1/videos/video_1/content?number={}x"), ("GET", "/v1/{}"), ("POST", "/api/{}"), ("GET", "/docs/{}"), ("GET", "/metrics/{}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda value: value.replace("/", "_"))
def test_no_address_leads_anywhere_else(inside, secret, opened, method, path):
    for id in IDS:
        body = {"prompt": "x", "place": 0} if method == "POST" else b""
        answer = inside.ask(method, path.format(id), body)
        error = refusal_of(answer)
        assert "\n" not in error["message"]
        assert "set-cookie" not in answer.headers
    check_untouched(inside, secret, opened)


def test_videos_are_only_read_among_the_outputs(inside, secret, opened):
    """Whatever the queue says, a download never leaves the folder of videos."""
    outputs = [text for text in breakouts(secret) if "\ud800" not in text and len(text) < 1000]
    job = inside.queue.add("nano_t2v", {"prompt": "x"})
    finish(inside, job.id, outputs)
    for number in range(len(outputs)):
        for variant in ("video", "thumbnail", "spritesheet"):
            answer = inside.ask("GET", f"/v1/videos/video_{job.id}/content?variant={variant}&number={number}")
            assert refusal_of(answer)["code"] in ("video_not_ready", "invalid_file"), answer.text
    check_untouched(inside, secret, opened)


@pytest.mark.parametrize(
    ("range", "status"),
    [
        ("bytes=0-3", 206), ("bytes=-3", 206), ("bytes=0-0,5-6", 206), ("bytes=" + "0-1," * 20_000, 200), ("x", 400), ("bytes", 400),
        ("bytes=", 400), ("bytes=a-b", 400), ("bytes=5-2", 400), ("items=0-3", 400), ("bytes=" + "9" * 5000 + "-", 400),
        ("bytes=1000-", 416), ("bytes=99999999999999999999-", 416),
    ],
)  # fmt: skip
def test_ranges_are_served_or_refused(inside, range, status):
    (inside.root / "outputs" / "x.mp4").write_bytes(b"0123456789")
    job = inside.queue.add("nano_t2v", {"prompt": "x"})
    finish(inside, job.id, ["outputs/x.mp4"])
    answer = inside.ask("GET", f"/v1/videos/video_{job.id}/content", headers={"range": range})
    assert answer.status_code == status
    if status >= 400:
        assert refusal_of(answer)["param"] == "range"
        assert (answer.headers.get("content-range") == "bytes */10") == (status == 416)


# --- names of uploads -------------------------------------------------------------------------------------------------


def form(*parts, boundary=b"b"):
    """A multipart form from the headers and the content of each part."""
    lines = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, headers, content) for headers, content in parts)
    return lines + b"--%s--\r\n" % boundary


def file_part(name, content=PNG, field=b"file"):
    return b'Content-Disposition: form-data; name="%s"; filename="%s"' % (field, name), content


FORM = {"content-type": "multipart/form-data; boundary=b"}


def test_uploads_stay_in_their_folder_whatever_their_names(inside, secret):
    names = [
        text.encode("utf-8", "surrogatepass") for text in breakouts(secret) if '"' not in text and len(text) < 4000
    ]
    names += [
        b"",
        b".",
        b"CON",
        b"nul.png",
        b"a\x00b.png",
        b"\xff\xfe",
        b"a:b.png",
        b"x.png.",
        b"<b>.png",
        b"\xe2\x80\xae.png",
        b".reeltune.lock",
    ]
    for name in names:
        answer = inside.ask("POST", "/v1/files", form(file_part(name)), FORM)
        assert answer.status_code == 200, answer.text
        stored = answer.json()
        assert stored["filename"].isprintable()
        assert not set("/\\:\0") & set(stored["filename"])
        assert inside.ask("GET", f"/v1/files/{stored['id']}").status_code == 200
    folders = [path for path in (inside.root / "uploads").iterdir() if not path.is_symlink()]
    assert len(folders) == 1  # equal content
    others = {path.name for path in inside.root.iterdir() if not path.name.startswith("reeltune.sqlite")}
    assert others <= {"uploads", "outputs", "finetunes", "loras"}
    assert {path.name for path in secret.parent.iterdir()} <= {secret.name, inside.root.name, "hf"}


@pytest.mark.parametrize(
    "field",
    [b"../../x", b"model_type", b"settings[a]", b"image_start[]", b"input_reference", b"", b"\xff", b"a" * 5000],
)
def test_files_in_odd_fields_are_refused_or_used(inside, field):
    body = form(
        (b'Content-Disposition: form-data; name="prompt"', b"x"),
        (b'Content-Disposition: form-data; name="model"', b"nano_i2v"),
    )
    body = body.removesuffix(b"--b--\r\n") + form(file_part(b"x.png", field=field))
    answer = inside.ask("POST", "/v1/videos", body, FORM)
    if answer.status_code != 200:
        refusal_of(answer)
    for job in inside.queue.jobs():
        assert str(job.settings["image_start"]).startswith("uploads/")


# --- wrong types ------------------------------------------------------------------------------------------------------


def sent(value):
    """A value as JSON, with whatever Python can write and JSON doesn't have."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def check_values(inside, body_of, values):
    for value in values:
        answer = inside.ask("POST", "/v1/videos", sent(body_of(value)), {"content-type": "application/json"})
        if answer.status_code == 200:
            inside.queue.remove(int(answer.json()["id"].removeprefix("video_")))
        else:
            refusal_of(answer)
        assert inside.queue.states() == {}


@pytest.mark.parametrize("field", FIELDS)
def test_any_value_in_any_field_is_used_or_refused(inside, field):
    check_values(inside, lambda value: {**QUICK, field: value}, VALUES)


@pytest.mark.parametrize("place", PLACES)
def test_any_value_of_any_setting_is_used_or_refused(inside, place):
    random = Random(place)
    for key in KEYS:

        def body(value, key=key):
            return {**QUICK, **({place: {key: value}} if place else {key: value})}

        check_values(inside, body, random.sample(VALUES, 6))


def test_any_value_in_the_other_bodies_is_used_or_refused(inside):
    done = inside.queue.add("nano_t2v", {"prompt": "x"})
    finish(inside, done.id)
    waiting = inside.queue.add("nano_t2v", {"prompt": "x"})
    for value in VALUES:
        for path, body in (
            (f"/api/jobs/{waiting.id}/move", {"place": value}),
            (f"/api/jobs/{waiting.id}/move", value),
            (f"/v1/videos/video_{done.id}/remix", {"prompt": value}),
            (f"/v1/videos/video_{done.id}/remix", value),
            ("/v1/videos", value),
            ("/v1/videos/sync", value),
            ("/v1/files", value),
        ):
            answer = inside.ask("POST", path, sent(body), {"content-type": "application/json"})
            if answer.status_code != 200:
                refusal_of(answer)


# --- damaged JSON -----------------------------------------------------------------------------------------------------

TEMPLATES = [
    QUICK,
    {**QUICK, "settings": {"seed": 7, "guidance_scale": 2}, "user": "me"},
    {"model": "nano_i2v", "prompt": "x", "seconds": "2", "width": 32, "height": 32, "input_reference": {"file_id": "file-" + "0" * 64}},
    {"model": "nano_i2v", "prompt": ["x"], "fps": 8, "image_start": DATA_URL, "extra_params": {"flow_shift": 3}},
    {"model": "nano_t2v", "prompt": "x", "lora": [{"name": "a.safetensors", "scale": 1}], "boundary_ratio": 0.9},
    {"model": "nano_vace", "prompt": "x", "video_guide": "outputs/in.png", "image_reference": DATA_URL, "video_prompt_type": "V"},
    {"prompt": "x", "activated_loras": ["../x"], "loras_multipliers": "1", "negative_prompt": "y"},
]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_two_thousand_damaged_bodies_are_refused_or_make_a_job(inside, seed):
    random = Random(seed)
    names = [*KEYS, *FIELDS, "prompts", "tea_cache_setting"]
    accepted = jobs = 0  # in all, and in the queue
    for number in range(2000):
        body = mutated_json(random, random.choice(TEMPLATES), names)
        answer = inside.ask("POST", "/v1/videos", body, {"content-type": "application/json"})
        if answer.status_code == 200:
            accepted += 1
            jobs += 1
        else:
            refusal_of(answer)
        if number % 100 == 99:
            assert len(inside.queue.states()) == jobs
            for id in inside.queue.states():
                inside.queue.remove(id)
            jobs = 0
    assert 0 < accepted < 1000


REFUSED = [
    b"", b" ", b"{", b"}", b"[]", b"null", b"true", b"5", b'"x"', b"{}", b'{"prompt"}', b"{'prompt': 'x'}", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf",
    b'{"prompt": "x"', b'{"prompt": "\xff"}', b'{"a":' * 60 + b"1" + b"}" * 60, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"prompt": 5}', b'{"prompt": {}}', b'{"prompt": ""}', b'{"place": 1e999}', b"<x/>",
    b"--b\r\n", "{}".encode("utf-16"), "{}".encode("utf-32"),
]  # fmt: skip
CREATING = ["/v1/videos", "/v1/videos/sync", "/v1/files", "/api/jobs/1/move"]


@pytest.mark.parametrize("path", CREATING)
@pytest.mark.parametrize(
    "kind", ["application/json", "", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
def test_bodies_that_are_no_request_are_refused(inside, path, kind):
    for body in REFUSED:
        refusal_of(inside.ask("POST", path, body, {"content-type": kind} if kind else {}))
    assert inside.queue.jobs() == []


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "text/html",
        "application/xml",
        "image/png",
        "application/octet-stream",
        "x",
        "/",
        "multipart/mixed",
    ],
)
def test_other_kinds_of_bodies_are_refused(inside, kind):
    for path in CREATING:
        answer = inside.ask("POST", path, QUICK, {"content-type": kind})
        assert refusal_of(answer)["code"] == "unsupported_media_type"
        assert answer.status_code == 415


# --- errors of ours ---------------------------------------------------------------------------------------------------


def test_an_error_of_ours_is_answered_and_logged_once(inside, monkeypatch, caplog):
    def fail(*_):
        raise ZeroDivisionError("a secret of the server")

    monkeypatch.setattr("reeltune.api.models.list_models", fail)
    with caplog.at_level(logging.ERROR):
        answer = inside.ask("GET", "/v1/models")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert [record.name for record in caplog.records] == ["reeltune.api"]
