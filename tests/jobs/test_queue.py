"""The queue's file: order, states, limits, files, two users at once, and files from other versions."""

import json
import sqlite3
import threading

import pytest

from reeltune.errors import QueueError, SettingsError
from reeltune.jobs import Queue, State


@pytest.fixture
def queue(root):
    return Queue(root)


def ids(queue):
    return [job.id for job in queue.jobs() if job.waiting]


def test_jobs_wait_in_order_and_can_be_moved_edited_and_removed(queue):
    first, second, third = (queue.add("m", {"prompt": text}).id for text in "abc")
    queue.shift(third, -1)
    assert ids(queue) == [first, third, second]
    queue.move(second, 0)
    assert ids(queue) == [second, first, third]
    queue.shift(second, -1)  # it is the first already
    assert ids(queue) == [second, first, third]
    assert queue.edit(first, {"prompt": "z", "seed": "7"}, "n").settings == {"prompt": "z", "seed": 7}
    assert queue.get(first).definition == "n"
    queue.remove(second)
    assert ids(queue) == [first, third]


def test_a_job_goes_through_its_states(queue):
    job = queue.add("m", {})
    taken = queue.take()
    assert taken.id == job.id
    assert taken.state is State.RUNNING
    assert taken.started > 0
    assert queue.take() is None
    for change in (
        lambda: queue.move(job.id, 0),
        lambda: queue.edit(job.id, {}),
        lambda: queue.remove(job.id),
        lambda: queue.again(job.id),
    ):
        with pytest.raises(QueueError, match="running"):
            change()
    queue.note(job.id, "denoise 3 of 20")
    queue.finish(job.id, State.FAILED, error="No.", hint="Else.", notices=["n"])
    failed = queue.get(job.id)
    assert (failed.state, failed.error, failed.hint, failed.notices, failed.progress) == (
        State.FAILED,
        "No.",
        "Else.",
        ("n",),
        "denoise 3 of 20",
    )
    again = queue.again(job.id)
    assert (again.state, again.error, again.notices) == (State.QUEUED, "", ())


def test_what_was_running_is_interrupted_after_a_crash_and_resumes_first(root):
    before = Queue(root)
    running, waiting = before.add("m", {}), before.add("m", {})
    before.take()
    after = Queue(root)  # as a new program after kill -9
    assert after.recover() == 1
    assert after.get(running.id).state is State.INTERRUPTED
    assert "ended" in after.get(running.id).error
    after.again(running.id)
    assert ids(after) == [running.id, waiting.id]


def test_what_a_job_has_made_is_kept_where_it_can_be_resumed(queue):
    whole, broken, other = (queue.add("m", {}).id for _ in range(3))
    queue.take()
    queue.keep(whole, ["a.mp4"])
    queue.finish(whole, State.DONE, outputs=["a.mp4"])
    queue.take()
    queue.keep(broken, ["b.mp4"], "latents/c.safetensors")
    queue.finish(broken, State.FAILED, outputs=["b.mp4"])
    assert [queue.get(id).resumable for id in (whole, broken, other)] == [False, True, False]
    again = queue.again(broken)
    assert (again.outputs, again.latents) == (("b.mp4",), "latents/c.safetensors")
    assert queue.again(whole).outputs == ()
    assert ids(queue) == [broken, other, whole]
    edited = queue.edit(broken, {"prompt": "another"})
    assert (edited.outputs, edited.latents) == ((), "")


def test_finished_jobs_stand_after_the_waiting_ones_latest_first_and_can_be_cleared(queue):
    done = [queue.add("m", {}).id for _ in range(2)]
    for id in done:
        queue.take()
        queue.finish(id, State.DONE, outputs=["a.mp4"])
    waiting = queue.add("m", {}).id
    assert [job.id for job in queue.jobs()] == [waiting, *reversed(done)]
    assert queue.get(done[0]).outputs == ("a.mp4",)
    assert queue.clear_finished() == 2
    assert [job.id for job in queue.jobs()] == [waiting]


def test_settings_are_checked_and_bounded(queue):
    with pytest.raises(SettingsError, match="sead"):
        queue.add("m", {"sead": 1})
    with pytest.raises(SettingsError, match="no value"):
        queue.add("m", {"video_length": "many"})
    with pytest.raises(SettingsError, match="characters"):
        queue.add("m", {"prompt": "x" * 300_000})
    assert queue.jobs() == []


def test_export_and_import_keep_everything_known_or_not(queue):
    queue.add("m", {"prompt": "ä", "seed": 2**62}, extra={"starred": True})
    queue.add("n", {"image_refs": ["a.png"]})
    other = json.loads(queue.export())
    other["jobs"][1]["settings"]["of_later"] = 5
    added = queue.import_text(json.dumps(other))
    assert [(job.definition, dict(job.settings)) for job in added] == [
        ("m", {"prompt": "ä", "seed": 2**62}),
        ("n", {"image_refs": ["a.png"]}),
    ]
    assert added[0].extra == {"starred": True}
    assert added[1].extra == {"unknown_settings": {"of_later": 5}}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"jobs": 3}', '{"jobs": [3]}', '{"jobs": [{"definition": "m"}]}', "[" * 100_000]
)
def test_a_file_that_is_no_queue_is_refused_whole(queue, text):
    with pytest.raises(QueueError):
        queue.import_text(text)
    good = {"definition": "m", "settings": {}}
    with pytest.raises(SettingsError):
        queue.import_text(json.dumps({"jobs": [good, {"definition": "m", "settings": {"seed": "x"}}]}))
    assert queue.jobs() == []


def test_two_takers_never_get_the_same_job(root):
    Queue(root)
    total = 40
    for _ in range(total):
        Queue(root).add("m", {})
    taken = []

    def take():
        own = Queue(root)
        while (job := own.take()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == total


def test_files_of_other_versions(root):
    queue = Queue(root)
    queue.add("m", {"prompt": "kept"})
    path = root / "reeltune.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN mood TEXT")  # a later column that this version doesn't know
        connection.execute("UPDATE jobs SET state = 'dreaming', outputs = 'not json'")
    connection.close()
    job = Queue(root).jobs()[0]
    assert (job.prompt, job.state, job.outputs) == ("kept", State.INTERRUPTED, ())
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(QueueError, match="newer"):
        Queue(root)


def test_a_file_that_is_no_database_is_told_and_left_alone(root):
    (root / "reeltune.sqlite").write_bytes(b"hello" * 1000)
    with pytest.raises(QueueError, match="can't be used"):
        Queue(root)
    assert (root / "reeltune.sqlite").read_bytes().startswith(b"hello")
