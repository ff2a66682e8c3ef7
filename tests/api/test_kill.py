"""kill -9 of the server and of its worker at random moments of a load: no job is lost, and none is made twice."""

import http.client
import itertools
import json
import random
import threading
import time
from collections import Counter

import psutil
import pytest
from api_serving import QUICK

from reeltune.media.origin import read_origin
from servers import ApiServer

KILLS = 20  # of the server and of its worker in turn
MAKING, WRITTEN = (2, 7, 12, 17), (4, 9, 14, 19)  # while a video is made, when one was just written; others: anywhere
ADDERS = 2
WAIT_SECONDS = 300
END_STATES = {"done", "failed", "cancelled", "interrupted"}


class Load:
    """Clients that add jobs and ask for them, whatever happens to the server."""

    def __init__(self, server):
        self.server = server
        self.answered = {}  # id of the job by prompt, of each creation that was answered
        self.unanswered = set()  # prompts of creations whose answer was lost
        self.wrong = []
        self.wanted = threading.Semaphore(0)  # jobs to add
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._add, args=(index,)) for index in range(ADDERS)]
        self._threads.append(threading.Thread(target=self._poll))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, method, path, values=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request(method, path, json.dumps(values) if values else None)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def _add(self, index):
        """A job for each one that is wanted, a short time later."""
        pause = random.Random(index)
        while not self._stopped.is_set():
            if not self.wanted.acquire(timeout=0.1) or self._stopped.wait(pause.uniform(0, 0.5)):
                continue
            prompt = f"a red circle, number {next(self._numbers)}"
            try:
                status, video = self._ask("POST", "/v1/videos", {**QUICK, "prompt": prompt})
            except ConnectionRefusedError:  # nothing was sent
                continue
            except (OSError, http.client.HTTPException, ValueError):
                self.unanswered.add(prompt)
                continue
            if status == 200:
                self.answered[prompt] = int(video["id"].removeprefix("video_"))
            else:
                self.wrong.append((status, video))

    def _poll(self):
        """Ask for one of the videos after the other: each one is there."""
        for number in itertools.count():
            if self._stopped.wait(0.05):
                return
            answered = list(self.answered.items())
            if not answered:
                continue
            prompt, id = answered[number % len(answered)]
            try:
                status, video = self._ask("GET", f"/v1/videos/video_{id}")
            except (OSError, http.client.HTTPException, ValueError):
                continue
            if status != 200 or video["prompt"] != prompt:
                self.wrong.append((status, video))


def jobs_of(server):
    return json.loads(server.ask("/api/queue")[1])["jobs"]


def worker_of(server):
    """The process of the worker; None while there is none."""
    return next(iter(psutil.Process(server.process.pid).children()), None)


def kill_worker(server):
    """End the worker of the server where it has one."""
    worker = worker_of(server)
    if worker is not None:
        worker.kill()


def wait_for_a_video(server, load):
    """Wait until one is being made."""
    end = time.monotonic() + WAIT_SECONDS
    jobs = jobs_of(server)
    while not any(job["stage"] not in ("", "prepare") for job in jobs):
        assert time.monotonic() < end, jobs
        resume(server)
        add_where_all_ended(load, jobs)
        time.sleep(0.02)
        jobs = jobs_of(server)


def wait_for_a_file(server, load):
    """Wait until another video was written, which the server can't have stored yet."""
    end = time.monotonic() + WAIT_SECONDS
    before = len(written(server.root))
    for look in itertools.count():
        if len(written(server.root)) != before:
            return
        assert time.monotonic() < end, jobs_of(server)
        if look % 500 == 0:
            resume(server)
            add_where_all_ended(load, jobs_of(server))
        time.sleep(0.001)


def add_where_all_ended(load, jobs):
    """Let another job be added where all have ended between two looks."""
    if all(job["state"] in END_STATES for job in jobs):
        load.wanted.release()


def written(root):
    """The paths of the finished videos."""
    return [path for path in (root / "outputs").glob("*.mp4") if path.stat().st_size]  # others are reserved names


def resume(server):
    """The queue pauses where a worker was killed before it began its job."""
    assert server.ask("/api/queue/resume", method="POST")[0] == 200


def finish_everything(server):
    """Run what was interrupted or failed again, until all jobs are done."""
    end = time.monotonic() + WAIT_SECONDS
    while (states := Counter(job["state"] for job in jobs_of(server))) != Counter(done=states["done"]):
        assert time.monotonic() < end, states
        resume(server)
        for job in jobs_of(server):
            if job["state"] in END_STATES - {"done"}:
                assert job["error"], job
                assert server.ask(f"/api/jobs/{job['id']}/retry", method="POST")[0] == 200
        time.sleep(0.2)


def made_videos(root):
    """The prompt of each finished video by its path."""
    return {path: read_origin(path).settings["prompt"] for path in written(root)}


@pytest.fixture
def killed(tmp_path):
    server = ApiServer(tmp_path / "root")
    server.start()
    yield server
    server.stop()


def test_no_job_is_lost_or_made_twice_whatever_is_killed(killed):
    rng = random.Random(20)
    with Load(killed) as load:
        for number in range(KILLS):
            load.wanted.release(ADDERS)
            if number in WRITTEN:
                wait_for_a_file(killed, load)
            else:
                if number in MAKING:
                    wait_for_a_video(killed, load)
                time.sleep(rng.uniform(0, 1.0))
            if number % 2:
                kill_worker(killed)
                continue
            killed.kill()
            known = dict(load.answered)
            killed.start()
            there = {job["id"]: job["prompt"] for job in jobs_of(killed)}
            assert {prompt: there.get(id) for prompt, id in known.items()} == {prompt: prompt for prompt in known}
            resume(killed)
    assert load.wrong == []
    finish_everything(killed)
    jobs, videos = jobs_of(killed), made_videos(killed.root)
    added = Counter(job["prompt"] for job in jobs)
    assert added.keys() >= load.answered.keys()
    assert added.keys() <= load.answered.keys() | load.unanswered
    assert set(added.values()) == {1}
    assert Counter(videos.values()) == added
    assert {job["prompt"]: len(job["outputs"]) for job in jobs} == dict.fromkeys(added, 1)
    for job in jobs:
        status, content = killed.ask(f"/v1/videos/{job['video_id']}/content")
        path = next(path for path, prompt in videos.items() if prompt == job["prompt"])
        assert (status, content) == (200, path.read_bytes())
