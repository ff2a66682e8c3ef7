"""A video that was written right before its worker or the program ended belongs to its job, and is made only once."""

import os
import time

import numpy as np
import pytest
from fake_worker import PREPARE, runners, until

from reeltune.errors import QueueError
from reeltune.jobs import State
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done
from reeltune.jobs.queue import Queue
from reeltune.jobs.store import copy_queue
from reeltune.jobs.written import mark_of, unreported_videos
from reeltune.media.mp4 import write_mp4

FRAMES = np.zeros((2, 16, 16, 3), np.uint8)


@pytest.fixture
def start(root, monkeypatch):
    with runners(root, monkeypatch) as begin:
        yield begin


def write(root, name, attempt):
    return str(write_mp4(root / "outputs" / name, FRAMES, 16, mark_of(attempt)))


def test_a_video_that_a_killed_worker_wrote_is_kept_and_not_made_again(root, start):
    def write_and_die(worker, task):
        if task.made:
            worker.tell(Done())
            return
        worker.tell(PREPARE)
        write(root, "a.mp4", task.attempt)
        worker.kill()

    runner, worker = start(write_and_die)
    job = runner.queue.add("nano_t2v", {"prompt": "x"})
    runner.wake()
    until(lambda: runner.queue.get(job.id).state is State.DONE)
    assert runner.queue.get(job.id).outputs == (str(root / "outputs" / "a.mp4"),)
    assert [task.made for task in worker.tasks] == [0, 1]


def test_after_a_restart_the_job_has_the_video_that_was_not_reported(root):
    queue = Queue(root)
    job = queue.add("nano_t2v", {})
    job = queue.take("a", 60)
    queue.store_outputs(job.attempt, ["first.mp4"], "latents")
    second = write(root, "second.mp4", job.attempt)
    assert queue.recover(["a"]) == 1
    found = queue.get(job.id)
    assert (found.state, found.outputs, found.latents) == (State.INTERRUPTED, ("first.mp4", second), "")
    assert queue.retry(job.id).outputs == found.outputs


def test_what_else_lies_in_the_folder_belongs_to_no_job(root):
    queue = Queue(root)
    queue.add("nano_t2v", {})
    job = queue.take("a", 60)
    assert unreported_videos(root, job) == ()  # no folder yet
    write(root, "other_job.mp4", Attempt(job.id + 1, 1))
    write(root, "other_attempt.mp4", Attempt(job.id, 2))
    write(root, ".hidden.mp4", job.attempt)
    write_mp4(root / "outputs" / "without.mp4", FRAMES, 16, {})
    old = write(root, "of_an_earlier_queue.mp4", job.attempt)
    os.utime(old, (time.time() - 100, time.time() - 100))
    (root / "outputs" / "reserved.mp4").touch()
    (root / "outputs" / "damaged.mp4").write_bytes(b"not a video")
    (root / "outputs" / "folder.mp4").mkdir()
    (root / "outputs" / "broken.mp4").symlink_to(root / "nothing")
    later, earlier = write(root, "a.mp4", job.attempt), write(root, "b.mp4", job.attempt)
    os.utime(later, (time.time() + 1, time.time() + 1))
    assert unreported_videos(root, job) == (earlier, later)


def test_videos_of_a_run_with_a_folder_of_its_own_are_found_there(root, tmp_path):
    queue = Queue(root, outputs=tmp_path / "videos")
    queue.add("nano_t2v", {})
    job = queue.take("a", 60)
    path = tmp_path / "videos" / "first.mp4"
    path.parent.mkdir()
    write_mp4(path, FRAMES, 16, mark_of(job.attempt))
    assert queue.recover(["a"]) == 1
    assert queue.get(job.id).outputs == (str(path),)


def test_a_copy_of_the_queue_leaves_its_file_as_it_is(root, tmp_path):
    job = Queue(root).add("nano_t2v", {"prompt": "x"})
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.suffix == ".sqlite"}
    copy_queue(root, tmp_path / "copy")
    assert [copied.id for copied in Queue(tmp_path / "copy").jobs()] == [job.id]
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.suffix == ".sqlite"} == before
    copy_queue(tmp_path / "empty", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (root / "reeltune.sqlite").write_bytes(b"not a queue" * 1000)
    with pytest.raises(QueueError, match="can't be read"):
        copy_queue(root, tmp_path / "third")
