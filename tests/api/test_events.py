"""`/api/events`: what a client sees of a job from beginning to end, of one job only, and across a restart."""

import json
import socket
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest
from api_serving import api_server, create, ended, http

from servers import ApiServer

__all__ = ["api_server", "http"]

WAIT_SECONDS = 300  # a machine may be busy with other things
LONG = {"size": "64x64", "num_frames": 33, "num_inference_steps": 1000}  # ended by the test long before its end


class Follower:
    """A client of the stream: collects its events as pairs of a name and a content, until it ends or is closed."""

    def __init__(self, server, query=""):
        self.events = []
        self.lines = []
        self.headers = {}
        self._url = f"{server.url}/api/events{query}"
        self._socket = None
        self._thread = threading.Thread(target=self._read)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        if self._socket is not None:
            with suppress(OSError):  # the server has closed it
                self._socket.shutdown(socket.SHUT_RDWR)  # ends the reading at once
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    def _read(self):
        try:
            with httpx.stream("GET", self._url, timeout=httpx.Timeout(WAIT_SECONDS)) as answer:
                self._socket = answer.extensions["network_stream"].get_extra_info("socket")
                self.headers = {"status": answer.status_code, **answer.headers}
                name = ""
                for line in answer.iter_lines():
                    self.lines.append(line)
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        self.events.append((name, json.loads(line.removeprefix("data: "))))
        except httpx.HTTPError:  # the connection was closed, or the server killed
            return

    def named(self, name):
        return [content for event, content in list(self.events) if event == name]

    def states(self, job):
        return [content.get("state") for content in self.named("job") if content["id"] == job]

    def until(self, true):
        end = time.monotonic() + WAIT_SECONDS
        while not true(self):
            assert time.monotonic() < end, self.events
            time.sleep(0.02)


def job_of(video):
    return int(video["id"].removeprefix("video_"))


def test_a_client_sees_a_job_from_queued_to_done(api_server, http):
    ended(http, create(http)["id"])  # so that there is a worker
    (worker,) = psutil.Process(api_server.process.pid).children()
    assert http.post("/api/queue/pause").status_code == 200
    with Follower(api_server) as client:
        client.until(lambda it: it.named("queue"))
        job = job_of(create(http, seconds="0.3", num_frames=None, num_inference_steps=3))
        client.until(lambda it: it.states(job))
        worker.suspend()  # so that the job doesn't end between two looks
        try:
            assert http.post("/api/queue/resume").status_code == 200
            client.until(lambda it: "running" in it.states(job))
        finally:
            worker.resume()
        client.until(lambda it: "done" in it.states(job))
    assert client.headers["status"] == 200
    assert client.headers["content-type"].startswith("text/event-stream")
    assert client.headers["cache-control"] == "no-store"
    assert client.lines[0].startswith("retry: ")
    assert [queue["paused"] for queue in client.named("queue")][:2] == [True, False]
    assert client.states(job)[0] == "queued"
    assert client.states(job)[-2:] == ["running", "done"]
    progress = [content for content in client.named("progress") if content["id"] == job]
    assert progress
    assert {content["model"] for content in progress} == {"nano_t2v"}
    assert {"preview"}.isdisjoint(name for name, _ in client.events)
    done = client.named("job")[-1]
    assert len(done["outputs"]) == 1
    assert http.get(done["outputs"][0]).status_code == 200
    assert any("seconds" in notice for notice in done["notices"])


def test_a_notice_of_a_running_job_is_sent_once(api_server, http):
    with Follower(api_server) as client:
        client.until(lambda it: it.named("queue"))  # what ended before isn't told again
        job = job_of(create(http, sample_solver="causvid", num_inference_steps=12))  # this solver makes 9 steps
        client.until(lambda it: "done" in it.states(job))
    messages = [content["message"] for content in client.named("notice") if content["id"] == job]
    assert len(messages) == len(set(messages))
    assert any("12 steps become 9" in message for message in messages), messages


def test_one_job_is_followed_alone(api_server, http):
    first = job_of(create(http))
    second = job_of(create(http))
    with Follower(api_server, f"?job={second}") as client:
        client.until(lambda it: "done" in it.states(second))
    assert client.named("queue")
    assert {content["id"] for name, content in client.events if name != "queue"} == {second}
    assert first != second
    with Follower(api_server, "?job=999999") as client:
        client.until(lambda it: it.named("queue"))
        ended(http, create(http)["id"])  # meanwhile the others are told of it
    assert [name for name, _ in client.events] == ["queue"]


def test_previews_are_sent_where_they_are_asked_for(api_server, http):
    with Follower(api_server, "?previews=true") as client:
        job = job_of(create(http, **LONG))
        client.until(lambda it: it.named("preview"))
        assert http.post(f"/api/jobs/{job}/cancel").status_code == 200
        client.until(lambda it: "cancelled" in it.states(job))
    previews = client.named("preview")
    assert {content["id"] for content in previews} == {job}
    assert all(content["image"].startswith("data:image/webp;base64,") for content in previews)


def test_a_removed_job_is_reported(api_server, http):
    job = job_of(create(http))
    with Follower(api_server) as client:
        client.until(lambda it: "done" in it.states(job))
        assert http.delete(f"/api/jobs/{job}").status_code == 204
        client.until(lambda it: None in it.states(job))
    assert client.named("job")[-1] == {"id": job, "removed": True}


@pytest.mark.parametrize("query", ["?job=0", "?job=x", "?previews=perhaps"])
def test_an_invalid_query_is_refused(http, query):
    answer = http.get(f"/api/events{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("job", "previews")


def test_a_client_that_connects_again_after_a_restart_sees_every_job_as_it_is(tmp_path):
    server = ApiServer(tmp_path / "root")
    server.start()
    try:
        with httpx.Client(base_url=server.url, timeout=60) as http, Follower(server) as client:
            done = job_of(create(http))
            client.until(lambda it: "done" in it.states(done))
            running = job_of(create(http, **LONG))
            waiting = job_of(create(http, prompt="waits"))
            client.until(lambda it: any(content["id"] == running for content in it.named("progress")))
            server.kill()
        server.start()
        with httpx.Client(base_url=server.url, timeout=60) as http, Follower(server) as again:
            again.until(lambda it: "done" in it.states(waiting))
            assert again.states(done) == ["done"]
            assert again.states(running) == ["interrupted"]
            interrupted = next(content for content in again.named("job") if content["id"] == running)
            assert interrupted["resumable"]
            assert interrupted["error"]
            assert http.get(f"/v1/videos/video_{running}").json()["error"]["code"] == "interrupted"
            assert again.named("queue")[0] == {"paused": False, "problem": ""}
            assert http.delete(f"/api/jobs/{running}").status_code == 204
    finally:
        server.stop()
