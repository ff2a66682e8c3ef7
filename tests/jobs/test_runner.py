"""Real worker processes making nano's videos: done, failed, cancelled, killed, warm, and gone with their parent."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_worker
import psutil
import pytest

from reeltune.engine.latents import read
from reeltune.errors import QueueError, SettingsError
from reeltune.events import LatentsStored
from reeltune.jobs import Runner, State
from reeltune.jobs.codec import pack_task, unpack_event
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Ready, RunTask
from reeltune.media.mp4 import read_metadata

QUICK = {"num_inference_steps": 2, "video_length": 5, "seed": 1}
LONG = {"num_inference_steps": 1000, "video_length": 33, "resolution": "128x128", "seed": 1}  # minutes
WAIT = 300  # a machine may be busy with other things


@pytest.fixture
def runner(root):
    with Runner(root) as running:
        yield running


def until(true):
    fake_worker.until(true, WAIT)


def live(runner):
    return next(iter(runner.running()), None)


def worker_pid(runner):
    (thread,) = runner._threads.values()
    return thread._handle.pid


def ended(runner, id):
    until(lambda: runner.queue.get(id).state not in (State.QUEUED, State.RUNNING))
    until(lambda: live(runner) is None)
    return runner.queue.get(id)


def add(runner, settings, definition="nano_t2v"):
    job = runner.queue.add(definition, settings)
    runner.wake()
    return job.id


def denoising(now):
    """Whether a job, if any runs, makes its first steps."""
    return now is not None and now.progress is not None and now.progress.stage == "denoise" and now.progress.done > 3


def test_a_job_becomes_a_video_an_error_a_reason_and_the_worker_stays_warm(runner):
    done = ended(runner, add(runner, QUICK | {"repeat_generation": 2}))
    assert done.state is State.DONE, done
    assert len(done.outputs) == 2
    assert read_metadata(runner._root / done.outputs[0])["settings"]["seed"] == 1
    assert any("transformer" in line for line in done.notices)
    pid = worker_pid(runner)
    failed = ended(runner, add(runner, {}, "no_such_model"))
    assert (failed.state, "No definition" in failed.error, bool(failed.hint)) == (State.FAILED, True, True)
    with pytest.raises(SettingsError, match="magic"):
        add(runner, QUICK | {"sample_solver": "magic"})
    assert ended(runner, add(runner, QUICK, "nano_neon")).state is State.DONE
    assert worker_pid(runner) == pid  # one process for all of it


def test_a_running_job_is_cancelled_between_steps_and_a_waiting_one_taken_out(runner):
    running, waiting = add(runner, LONG), add(runner, LONG)
    until(lambda: denoising(now := live(runner)) and now.preview is not None)
    pid = worker_pid(runner)
    runner.cancel(waiting)
    runner.cancel(running)
    now = live(runner)
    assert now is None or now.cancelling
    assert ended(runner, running).state is State.CANCELLED  # if it went on to its last step, it would be done
    assert runner.queue.get(waiting).state is State.CANCELLED
    with pytest.raises(QueueError, match="nothing to cancel"):
        runner.cancel(waiting)
    assert ended(runner, add(runner, QUICK)).state is State.DONE
    assert worker_pid(runner) == pid


def test_a_job_that_kills_two_workers_fails_with_the_reason_and_the_next_one_runs(runner):
    killed, after = add(runner, LONG), add(runner, QUICK)
    for attempt in (1, 2):
        until(lambda attempt=attempt: denoising(now := live(runner)) and now.attempt == attempt)
        os.kill(worker_pid(runner), signal.SIGKILL)
    job = ended(runner, killed)
    assert (job.state, "signal 9" in job.error, "smaller" in job.hint) == (State.FAILED, True, True)
    assert ended(runner, after).state is State.DONE


def test_a_job_killed_while_decoding_continues_with_its_latents_by_itself(root):
    stored = []

    def kill(_, event):
        if isinstance(event, LatentsStored):
            os.kill(worker_pid(runner), signal.SIGKILL)
            stored.append((Path(event.path), read(Path(event.path)).settings["seed"]))

    with Runner(root, listener=kill) as runner:
        id = add(runner, {"num_inference_steps": 1, "video_length": 133, "seed": -1})
        done = ended(runner, id)
    ((latents, seed),) = stored
    assert (done.state, done.attempts, done.latents, len(done.outputs)) == (State.DONE, 2, "", 1), done
    assert any("tried once more" in notice and "latents" in notice for notice in done.notices)
    assert read_metadata(Path(done.outputs[0]))["settings"]["seed"] == seed  # which was picked at random before
    assert not latents.exists()


def test_a_second_cancel_ends_the_worker_at_once(runner):
    id = add(runner, LONG)
    until(lambda: live(runner) is not None and worker_pid(runner) is not None)
    runner.cancel(id)
    with contextlib.suppress(QueueError):  # it was quicker
        runner.cancel(id)
    assert ended(runner, id).state is State.CANCELLED


@pytest.mark.skipif(os.name != "posix", reason="signals that stop a process")
def test_a_stopped_worker_with_much_to_read_is_ended_by_the_second_cancel(runner):
    ended(runner, add(runner, QUICK))  # so that it is warm
    os.kill(worker_pid(runner), signal.SIGSTOP)
    id = add(runner, LONG | {"prompt": "a red circle " * 10_000})
    until(lambda: live(runner) is not None and any(thread._handle._running for thread in runner._threads.values()))
    runner.cancel(id)
    runner.cancel(id)
    assert ended(runner, id).state is State.CANCELLED


def test_only_one_program_makes_the_videos_of_a_root_and_stopping_interrupts(root):
    with Runner(root) as first:
        with pytest.raises(QueueError, match="already"):
            Runner(root).start()
        id = add(first, LONG)
        until(lambda: worker_pid(first) is not None)
        pid = worker_pid(first)
    assert not psutil.pid_exists(pid)
    assert first.queue.get(id).state is State.INTERRUPTED


def test_a_worker_ends_with_the_process_that_started_it(root):
    process = subprocess.Popen(
        [sys.executable, "-m", "reeltune.jobs.worker", "--root", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdin.write(pack_task(RunTask(Attempt(1, 1), "nano_t2v", {"num_inference_steps": 1000})))
    process.stdin.flush()
    assert isinstance(unpack_event(process.stdout.readline()).event, Ready)
    assert unpack_event(process.stdout.readline()).event.stage == "prepare"
    process.stdin.close()
    assert process.wait(WAIT) == 0
    process.stdout.close()
