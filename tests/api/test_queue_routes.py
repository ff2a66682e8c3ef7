"""The routes of the queue, of definitions, and of the server itself, on a real server."""

import json

import jsonschema
import pytest
from api_serving import QUICK, api_server, create, ended, error_of, http
from prometheus_client.parser import text_string_to_metric_families


def queue_of(http):
    return http.get("/api/queue").json()


def job_number(video):
    return int(video["id"].removeprefix("video_"))


@pytest.fixture
def paused(http):
    """A queue that takes no job."""
    assert http.post("/api/queue/pause").json()["paused"]
    yield
    assert not http.post("/api/queue/resume").json()["paused"]


def test_waiting_jobs_are_moved_cancelled_retried_and_removed(http, paused):
    first, second, third = (job_number(create(http, prompt=f"number {number}")) for number in range(3))
    assert "paused by the user" in queue_of(http)["problem"]
    assert http.post(f"/api/jobs/{third}/move", json={"place": 0}).json()["place"] == 0
    waiting = [job["id"] for job in queue_of(http)["jobs"] if job["state"] == "queued"]
    assert waiting == [third, first, second]
    cancelled = http.post(f"/api/jobs/{first}/cancel").json()
    assert (cancelled["state"], cancelled["place"]) == ("cancelled", None)
    assert http.get(f"/v1/videos/video_{first}").json()["error"]["code"] == "cancelled"
    error_of(http.post(f"/api/jobs/{first}/move", json={"place": 0}), 409)
    error_of(http.post(f"/api/jobs/{first}/cancel"), 409)
    again = http.post(f"/api/jobs/{first}/retry").json()
    assert (again["state"], again["place"]) == ("queued", 2)
    error_of(http.post(f"/api/jobs/{first}/retry"), 409)
    for number in (first, second, third):
        assert http.delete(f"/api/jobs/{number}").status_code == 204
        error_of(http.get(f"/api/jobs/{number}"), 404)
    for place in (-1, "0", None, True, 1.5, [0]):
        assert error_of(http.post(f"/api/jobs/{first}/move", json={"place": place}), 400)["param"] == "place"


def test_a_job_tells_what_it_has_made(http):
    video = create(http, repeat_generation=2)
    assert ended(http, video["id"])["outputs"] == 2
    job = http.get(f"/api/jobs/{job_number(video)}").json()
    assert (job["state"], job["percent"], job["resumable"]) == ("done", 100, False)
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    contents = [http.get(link).content for link in job["outputs"]]
    assert len(contents) == 2
    assert contents[0] != contents[1]
    assert error_of(http.get(f"/v1/videos/{video['id']}/content?number=2"), 404)["code"] == "video_not_ready"


def test_definitions_have_their_settings_as_json_schema(http):
    listed = {row["id"]: row for row in http.get("/api/definitions").json()}
    assert listed["nano_t2v"]["ready"]
    assert not listed["t2v_1.3B"]["ready"]
    for id in ("nano_t2v", "nano_i2v", "t2v_2_2", "hunyuan", "ltxv_13B"):
        if id not in listed:
            continue
        definition = http.get(f"/api/definitions/{id}").json()
        schema = definition["settings"]
        jsonschema.Draft202012Validator.check_schema(schema)
        values = {key: value for key, value in definition["defaults"].items() if key in schema["properties"]}
        jsonschema.validate(
            {"prompt": "x", "image_start": "file-…", **values}, {**schema, "additionalProperties": True}
        )
    error_of(http.get("/api/definitions/nothing"), 404)


def test_a_plan_says_which_files_are_used(http, api_server):
    plan = http.get("/api/definitions/nano_t2v/plan").json()
    assert plan["choices"]["transformer"]["quantization"] == "quanto_int8"
    assert all(item["present"] for item in plan["downloads"])
    missing = http.get("/api/definitions/t2v_1.3B/plan").json()
    paths = [item["path"] for item in missing["downloads"] if not item["present"]]
    assert paths
    assert not any(str(api_server.root) in path for path in paths)


def test_the_servers_numbers_and_health(http):
    video = create(http)
    ended(http, video["id"])
    assert http.get("/healthz").json()["status"] == "ok"
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    metrics = {family.name: family.samples for family in text_string_to_metric_families(answer.text)}
    states = {sample.labels["state"]: sample.value for sample in metrics["reeltune_jobs"]}
    assert states["done"] >= 1
    assert states["running"] == 0
    seconds = {sample.labels["stage"]: sample.value for sample in metrics["reeltune_stage_seconds"]}
    assert seconds["denoise"] > 0
    memory = {sample.labels["process"]: sample.value for sample in metrics["reeltune_memory_bytes"]}
    assert 50_000_000 < memory["server"] < 1_000_000_000
    assert memory["workers"] > 100_000_000


def test_more_jobs_than_the_preference_allows_are_told_to_wait(http, paused, api_server):
    file = api_server.root / "reeltune.json"
    before = file.read_bytes() if file.exists() else None
    file.write_text(json.dumps({"queue_limit": 2}), encoding="utf-8")
    try:
        made = [create(http)["id"] for _ in range(2)]
        answer = http.post("/v1/videos", json={**QUICK, "prompt": "one too many"})
        assert error_of(answer, 429)["type"] == "rate_limit_error"
        assert int(answer.headers["retry-after"]) > 0
        for id in made:
            assert http.delete(f"/v1/videos/{id}").json()["deleted"]
    finally:
        file.unlink() if before is None else file.write_bytes(before)


def test_a_remix_refuses_another_model_and_accepts_several_prompts(http):
    id = create(http)["id"]
    ended(http, id)
    answer = http.post(f"/v1/videos/{id}/remix", json={"prompt": "x", "model": "nano_neon"})
    assert error_of(answer, 400)["param"] == "model"
    assert http.post(f"/v1/videos/{id}/remix", json={"prompt": ["a", "b"], "model": "nano_t2v"}).status_code == 200


def test_only_images_and_videos_are_uploaded(http):
    error = error_of(http.post("/v1/files", files={"file": ("settings.json", b'{"prompt": "x"}')}), 415)
    assert "LoRA" not in error["message"]
