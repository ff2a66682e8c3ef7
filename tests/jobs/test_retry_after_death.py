"""A job whose worker dies is tried once more, continues where it was, and says so; the second death ends it."""

import pytest
from fake_worker import PREPARE, FakeWorker, runners, until

from reeltune.errors import WorkerDied
from reeltune.events import LatentsStored, Notice
from reeltune.jobs import Queue, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.messages import Done, Failed, Saved


@pytest.fixture
def running(root, monkeypatch):
    with runners(root, monkeypatch) as start:
        yield start


def add(runner, definition="m"):
    id = runner.queue.add(definition, {"prompt": "a boat"}).id
    runner.wake()
    return id


def ended(runner, id):
    until(lambda: runner.queue.get(id).state not in (State.QUEUED, State.RUNNING) and runner.live(id) is None)
    return runner.queue.get(id)


def scripted(*acts):
    """A script: one act for each task, in turn; the last one for all that follow."""

    def script(worker, task):
        acts[min(len(worker.tasks), len(acts)) - 1](worker, task)

    return script


def make_one_and_die(worker, task):
    worker.tell(PREPARE, Notice("int8 is used."), Saved("one.mp4"), LatentsStored("two.safetensors"))
    worker.kill()


def die(worker, task):
    worker.kill()


def finish(worker, task):
    worker.tell(PREPARE, Saved("two.mp4"), Done())


def test_a_job_is_tried_once_more_and_continues_with_its_videos_and_latents(running):
    runner, worker = running(scripted(make_one_and_die, finish))
    job = ended(runner, add(runner))
    assert (job.state, job.outputs, job.attempts, job.error) == (State.DONE, ("one.mp4", "two.mp4"), 2, "")
    first, second = worker.tasks
    assert (first.made, first.latents) == (0, "")
    assert (second.made, second.latents) == (1, "two.safetensors")
    assert job.notices[0] == "int8 is used."
    assert job.notices[1] == (
        "The worker process was killed. The job is tried once more. It continues with the latents that were stored."
    )


def test_a_job_that_kills_two_workers_in_a_row_fails_with_the_reason_and_is_not_tried_again(running):
    runner, worker = running(scripted(make_one_and_die, die, finish))
    id = add(runner)
    job = ended(runner, id)
    assert (job.state, job.error, job.outputs) == (State.FAILED, "The worker process was killed.", ("one.mp4",))
    assert "2 workers in a row" in job.hint
    assert any("tried once more" in notice for notice in job.notices)
    assert [task.attempt for task in worker.tasks] == [Attempt(id, 1), Attempt(id, 2)]
    assert ended(runner, add(runner)).state is State.DONE


def test_the_user_may_run_it_again_and_the_count_begins_anew(running):
    runner, _ = running(scripted(die, die, die, finish))
    id = add(runner)
    assert ended(runner, id).state is State.FAILED
    runner.queue.retry(id)
    runner.resume()
    assert ended(runner, id).state is State.DONE


def test_the_count_outlives_the_program(running, root):
    runner, _ = running(scripted(die, lambda worker, task: worker.tell(PREPARE)))
    id = add(runner)
    until(lambda: runner.queue.get(id).attempts == 2)
    runner.stop()
    queue = Queue(root)
    assert (queue.get(id).state, queue.get(id).deaths) == (State.INTERRUPTED, 1)


def test_a_job_that_waits_for_its_second_try_comes_before_all_others(running):
    order = []

    def note(worker, task):
        order.append(task.attempt)
        (die if len(order) == 1 else finish)(worker, task)

    runner, _ = running(note)
    runner.pause()
    first, second = add(runner), add(runner)
    runner.resume()
    ended(runner, second)
    assert order == [Attempt(first, 1), Attempt(first, 2), Attempt(second, 1)]


def test_another_worker_goes_on_and_may_run_the_second_try(running):
    def hold(worker, task):
        worker.tell(PREPARE)

    broken, sound = FakeWorker(hold, "a"), FakeWorker(hold, "b")
    runner, _ = running(workers=[broken, sound])
    ids = [add(runner), add(runner)]
    until(lambda: broken.tasks and sound.tasks)
    broken.script = finish
    broken.kill()
    lost = broken.tasks[0].attempt.job
    assert ended(runner, lost).state is State.DONE
    assert runner.queue.get(sum(ids) - lost).state is State.RUNNING
    assert len(sound.tasks) == 1


def test_what_was_cancelled_or_failed_by_itself_is_not_tried_again(running):
    runner, worker = running(lambda worker, task: worker.tell(PREPARE))
    id = add(runner)
    until(lambda: runner.live(id) is not None and runner.live(id).progress is not None)
    runner.cancel(id)
    runner.cancel(id)  # ends the worker
    assert ended(runner, id).state is State.CANCELLED
    worker.script = lambda worker, task: worker.tell(PREPARE, Failed("A wrong setting."))
    failed = add(runner)
    assert ended(runner, failed).state is State.FAILED
    assert [task.attempt for task in worker.tasks] == [Attempt(id, 1), Attempt(failed, 1)]


def test_a_worker_that_can_not_be_started_is_tried_once_more(running):
    def refuse(worker, task):
        raise WorkerDied("The worker process can't be started: Cannot allocate memory.")

    runner, _ = running(scripted(refuse, finish))
    job = ended(runner, add(runner))
    assert job.state is State.DONE
    assert "It begins again." in job.notices[0]


def test_a_try_that_was_lost_to_another_program_is_not_repeated(root):
    queue = Queue(root)
    id = queue.add("m", {}).id
    job = queue.take("a", 60)
    assert queue.try_again(job.attempt, outputs=["x.mp4"], latents="", notices=["n"], deaths=1)
    assert not queue.try_again(job.attempt, outputs=[], latents="", notices=[], deaths=1)
    job = queue.get(id)
    assert (job.state, job.outputs, job.notices, job.deaths) == (State.QUEUED, ("x.mp4",), ("n",), 1)
