"""`/api/workers`, the metrics of workers, and why a job waits, on a real server with two workers."""

import time

import httpx
import pytest
from api_serving import WAIT_SECONDS, create, ended, error_of
from prometheus_client.parser import text_string_to_metric_families

from servers import ApiServer

LONG = {"num_inference_steps": 1000, "size": "128x128", "num_frames": 33}  # minutes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = ApiServer(tmp_path_factory.mktemp("workers") / "root", "--workers", "cpu,cpu")
    yield running.start()
    running.stop()


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def workers(http):
    return {row["name"]: row for row in http.get("/api/workers").json()["workers"]}


def job_of(http, video):
    return http.get(f"/api/jobs/{video['id'].removeprefix('video_')}").json()


def until(true):
    end = time.monotonic() + WAIT_SECONDS
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def test_the_workers_are_listed_with_what_they_do_and_hold(http):
    assert set(workers(http)) == {"cpu-1", "cpu-2"}
    row = workers(http)["cpu-1"]
    assert (row["device"], row["state"], row["job"], row["used_bytes"]) == ("cpu", "free", None, 0)
    assert row["node"]
    assert row["memory_bytes"] > 10**8
    videos = [create(http, **LONG), create(http, **LONG), create(http, **LONG)]
    until(lambda: all(row["state"] == "busy" for row in workers(http).values()))
    assert {row["holds"] for row in workers(http).values()} == {"nano_t2v"}
    running = [job_of(http, video) for video in videos[:2]]
    assert {job["worker"] for job in running} == {"cpu-1", "cpu-2"}
    assert {row["job"] for row in workers(http).values()} == {job["id"] for job in running}
    waiting = job_of(http, videos[2])
    assert (waiting["state"], waiting["wait_reason"][:9]) == ("queued", "waits for")
    in_queue = {job["id"]: job for job in http.get("/api/queue").json()["jobs"]}
    assert in_queue[waiting["id"]]["wait_reason"]
    assert in_queue[running[0]["id"]]["wait_reason"] == ""
    until(lambda: all(row["used_bytes"] > 10**7 for row in workers(http).values()))  # their processes have started
    metrics = {
        family.name: {sample.labels["worker"]: sample.value for sample in family.samples}
        for family in text_string_to_metric_families(http.get("/metrics").text)
        if family.name.startswith("reeltune_worker_")
    }
    assert metrics["reeltune_worker_busy"] == {"cpu-1": 1, "cpu-2": 1}
    assert min(metrics["reeltune_worker_memory_bytes"].values()) > 10**7
    assert set(metrics) >= {"reeltune_worker_jobs", "reeltune_worker_loads"}
    for video in reversed(videos):
        http.post(f"/api/jobs/{video['id'].removeprefix('video_')}/cancel")
    until(lambda: all(row["state"] == "free" for row in workers(http).values()))


def test_a_worker_is_drained_ended_and_resumed(http):
    for name in ("cpu-1", "cpu-2"):
        assert http.post(f"/api/workers/{name}/drain").status_code == 200
    video = create(http)
    assert {row["state"] for row in workers(http).values()} == {"drained"}
    assert "drained" in until(lambda: job_of(http, video)["wait_reason"])
    listed = http.post("/api/workers/cpu-2/resume").json()["workers"]
    assert {row["name"]: row["state"] for row in listed}["cpu-1"] == "drained"
    assert ended(http, video["id"])["status"] == "completed"
    assert job_of(http, video)["worker"] == "cpu-2"
    http.post("/api/workers/cpu-2/end")
    until(lambda: workers(http)["cpu-2"]["used_bytes"] == 0)
    for name in ("cpu-1", "cpu-2"):
        http.post(f"/api/workers/{name}/resume")
    assert {row["state"] for row in workers(http).values()} == {"free"}


@pytest.mark.parametrize("name", ["cpu-9", "x" * 5000, "%2e%2e", "a%00b", "ü"])
@pytest.mark.parametrize("request_", ["drain", "end", "resume"])
def test_a_worker_that_is_not_there_is_not_found(http, name, request_):
    error_of(http.post(f"/api/workers/{name}/{request_}"), 404)


def test_another_request_is_no_route(http):
    error_of(http.post("/api/workers/cpu-1/explode"), 404)
