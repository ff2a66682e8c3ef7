"""Two real worker processes of this machine on nano: models shared between them, and one that is killed."""

import os
import signal
from collections import Counter
from itertools import pairwise

import fake_worker
import pytest

from reeltune.jobs import Runner, State
from reeltune.jobs.local import local_workers
from reeltune.jobs.messages import Done
from reeltune.media.mp4 import read_metadata

QUICK = {"num_inference_steps": 1, "video_length": 5, "resolution": "64x64", "seed": 1}
LONG = {"num_inference_steps": 1000, "video_length": 33, "resolution": "128x128", "seed": 1}  # minutes
COPY = {"architecture": "t2v_1.3B", "components": "reeltune/nano"}
DEFINITIONS = ("nano_t2v", "nano_neon", "copy_a", "copy_b")
JOBS = 40
WAIT = 300  # a machine may be busy with other things


def until(true):
    fake_worker.until(true, WAIT)


class Log:
    """What the jobs of a runner reported, by job."""

    def __init__(self):
        self.events = []

    def __call__(self, job, event):
        self.events.append((job, event))


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def runner(root, define, log):
    define("copy_a", COPY | {"name": "A", "URLs": "nano_t2v"})
    define("copy_b", COPY | {"name": "B", "URLs": "nano_neon"})
    with Runner(root, workers=local_workers(root, "cpu,cpu"), listener=log) as running:
        yield running


def add(runner, definition, settings):
    return runner.queue.add(definition, settings).id


def processes(runner):
    return {thread._handle.name: thread._handle.pid for thread in runner._threads.values()}


def warm_up(runner):
    """Let both workers hold a model and be free."""
    ids = [add(runner, definition, LONG) for definition in DEFINITIONS[:2]]
    runner.wake()
    until(lambda: len(runner.running()) == 2 and all(live.denoised is not None for live in runner.running()))
    for id in ids:
        runner.cancel(id)
    until(lambda: {runner.queue.get(id).state for id in ids} == {State.CANCELLED})


def test_forty_jobs_over_four_definitions_are_each_made_once_and_models_are_seldom_changed(runner, log):
    warm_up(runner)  # how long the processes take to start says nothing on how jobs are shared
    runner.pause()
    ids = [
        add(runner, DEFINITIONS[number % 4], QUICK | {"prompt": f"a red circle, number {number}"})
        for number in range(JOBS)
    ]
    runner.resume()
    until(lambda: all(runner.queue.get(id).state not in (State.QUEUED, State.RUNNING) for id in ids))
    jobs = [runner.queue.get(id) for id in ids]
    assert Counter(job.state for job in jobs) == {State.DONE: JOBS}
    assert {job.attempts for job in jobs} == {1}
    videos = [path for job in jobs for path in job.outputs]
    assert len(set(videos)) == JOBS
    made = sorted(read_metadata(runner._root / path)["settings"]["prompt"] for path in videos)
    assert made == sorted(job.settings["prompt"] for job in jobs)
    workers = Counter(job.worker.rpartition("/")[2] for job in jobs)
    assert set(workers) == {"cpu-1", "cpu-2"}
    assert min(workers.values()) > JOBS // 4  # both worked
    changes = 0
    for name in workers:
        own = sorted((job for job in jobs if job.worker.endswith(name)), key=lambda job: job.started)
        changes += sum(a.definition != b.definition for a, b in pairwise(own)) + 1
    assert changes <= 6  # one for each definition and worker that needs it; about 30 if each took the first job


def test_a_killed_worker_loses_no_job_and_the_other_one_goes_on(runner, log):
    ids = [add(runner, "nano_t2v", LONG), add(runner, "nano_neon", LONG)]
    runner.wake()
    until(
        lambda: (
            len(runner.running()) == 2 and all(live.progress and live.progress.done > 3 for live in runner.running())
        )
    )
    victim, survivor = runner.running()
    other_pid = processes(runner)[survivor.worker.rpartition("/")[2]]
    os.kill(processes(runner)[victim.worker.rpartition("/")[2]], signal.SIGKILL)
    until(lambda: runner.queue.get(victim.job).attempts == 2 and runner.queue.get(victim.job).state is State.RUNNING)
    assert "tried once more" in runner.queue.get(victim.job).notices[-1]
    assert runner.queue.get(survivor.job).attempts == 1
    assert processes(runner)[survivor.worker.rpartition("/")[2]] == other_pid
    quick = add(runner, "nano_t2v", QUICK)
    for id in ids:
        runner.cancel(id)
    until(lambda: runner.queue.get(quick).state is State.DONE)
    until(lambda: {runner.queue.get(id).state for id in ids} == {State.CANCELLED})


def test_workers_see_their_device_and_share_the_cores(runner):
    from reeltune.jobs.devices import _usable_cores

    for thread in runner._threads.values():
        command = thread._handle._command
        assert command[command.index("--device") + 1] == "cpu"
        assert int(command[command.index("--threads") + 1]) == max(1, _usable_cores() // 2)
        assert thread._handle._environment == {"CUDA_VISIBLE_DEVICES": ""}


def test_an_idle_worker_is_released_and_started_again(runner, log):
    first = add(runner, "nano_t2v", QUICK)
    runner.wake()
    until(lambda: (first, Done()) in log.events or runner.queue.get(first).state is State.DONE)
    until(lambda: not runner._attempts())
    (name,) = (name for name, pid in processes(runner).items() if pid is not None)  # only what is needed is started
    runner.crew.drain(name, end=True)
    until(lambda: processes(runner)[name] is None and runner.crew.member(name).holds is None)
    runner.crew.resume(name)
    second = add(runner, "nano_t2v", QUICK)
    runner.wake()
    until(lambda: runner.queue.get(second).state is State.DONE)
