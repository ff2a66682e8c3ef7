"""Other machines learn the names of files, and nothing about the folders of this one."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from reeltune.api.app import build_api
from reeltune.api.private import for_others, values_for_others
from reeltune.jobs import Runner, State
from reeltune.jobs.queue import Queue
from reeltune.service.workspace import Workspace

FINETUNE = {
    "model": {
        "name": "Glow",
        "architecture": "t2v_1.3B",
        "URLs": ["{elsewhere}/glow_bf16.safetensors"],
        "text_encoder_URLs": ["{elsewhere}/encoder.safetensors"],
        "loras": ["{elsewhere}/style.safetensors"],
        "components": "reeltune/nano",
    }
}


@pytest.fixture
def elsewhere(tmp_path):
    return tmp_path / "private"


@pytest.fixture
def workspace(tmp_path, elsewhere):
    """A workspace that other machines can reach, with definitions that can't be used."""
    root = tmp_path / "videos of mine"
    (root / "finetunes").mkdir(parents=True)
    text = json.dumps(FINETUNE).replace("{elsewhere}", elsewhere.as_posix())
    (root / "finetunes" / "glow.json").write_text(text, encoding="utf-8")
    (root / "finetunes" / "broken.json").write_text("{", encoding="utf-8")
    return Workspace(root, Runner(root), local=False)


@pytest.fixture
def client(workspace):
    return TestClient(build_api(workspace), base_url="http://localhost")


def is_private(response, workspace):
    return any(text in response.text for text in (str(workspace.root), workspace.root.name, "/private"))


def test_definitions_are_described_without_folders(client, workspace):
    for path in ("", "/glow", "/glow/plan", "/broken", "/broken/plan", "/nano_t2v/plan"):
        assert not is_private(client.get(f"/api/definitions{path}"), workspace)
    assert client.get("/api/definitions/glow").json()["slots"]["transformer"] == ["glow_bf16.safetensors"]
    assert client.get("/api/definitions/broken").json()["error"]["message"].startswith("finetunes/broken.json")


def test_refusals_and_failed_jobs_are_told_without_folders(client, workspace, elsewhere):
    for model in ("glow", "broken"):
        answer = client.post("/v1/videos", json={"model": model, "prompt": "a fox"})
        assert answer.status_code == 422
        assert not is_private(answer, workspace)
    queue = Queue(workspace.root)
    queue.add("nano_t2v", {"prompt": f"{elsewhere}/fox.txt"})
    job = queue.take("worker", 60.0)
    queue.finish(
        job.attempt,
        State.FAILED,
        error=f"{elsewhere}/a.png is damaged.",
        hint=f"See {elsewhere}.",
        notices=[f"{elsewhere}/b"],
    )
    video = client.get(f"/v1/videos/video_{job.id}").json()
    assert video["error"]["message"] == "a.png is damaged. See private."
    assert video["notices"] == ["b"]
    told = client.get(f"/api/jobs/{job.id}").json()
    assert (told["error"], told["hint"], told["notices"]) == ("a.png is damaged.", "See private.", ["b"])
    assert told["prompt"] == f"{elsewhere}/fox.txt"  # what a user has written stays


def test_the_state_of_the_server_names_no_folder(client, workspace):
    path = workspace.root / "reeltune.sqlite"
    path.unlink()
    path.mkdir()
    for address in ("/healthz", "/v1/videos", "/api/queue"):
        answer = client.get(address)
        assert answer.status_code == 503
        assert not is_private(answer, workspace)


def test_the_owner_of_the_machine_sees_paths(workspace):
    mine = Workspace(workspace.root, Runner(workspace.root))
    client = TestClient(build_api(mine), base_url="http://localhost")
    assert str(workspace.root) in client.get("/api/definitions/broken").text
    assert "/private" in client.get("/api/definitions/glow").text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{root}/outputs/a.mp4 is gone.", "outputs/a.mp4 is gone."),
        ("'{root}' can't be read", "'videos of mine' can't be read"),
        ("{home}/x.safetensors: damaged", "x.safetensors: damaged"),
        ("/usr/lib/a b", "a b"),
        (r"C:\Users\me\x.png is gone", "x.png is gone"),
        ("~/models/x", "x"),
        ("Upload it with POST /v1/files, see /docs.", "Upload it with POST /v1/files, see /docs."),
        (
            "https://huggingface.co/a/b/resolve/main/x.safetensors",
            "https://huggingface.co/a/b/resolve/main/x.safetensors",
        ),
        ("step 3/20, and/or 1/2/3, a/usr/b", "step 3/20, and/or 1/2/3, a/usr/b"),
    ],
)
def test_folders_are_recognized(workspace, text, told):
    written = text.format(root=workspace.root, home=Path.home())
    assert for_others(workspace, written) == told
    assert values_for_others(workspace, {"x": [written, (written, 1)]}) == {"x": [told, (told, 1)]}
