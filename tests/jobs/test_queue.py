"""The queue's file: order, states, limits, files, two users at once, and files from other versions."""

import contextlib
import gc
import json
import os
import random
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from reeltune.errors import QueueError, SettingsError
from reeltune.jobs import Queue, State
from reeltune.jobs.job import Attempt
from reeltune.jobs.store import _MIGRATIONS, COLUMNS


@pytest.fixture
def queue(root):
    return Queue(root)


def take(queue, worker="a", seconds=60):
    return queue.take(worker, seconds)


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
    taken = take(queue)
    assert taken.id == job.id
    assert taken.state is State.RUNNING
    assert taken.started > 0
    assert take(queue) is None
    for change in (
        lambda: queue.move(job.id, 0),
        lambda: queue.edit(job.id, {}),
        lambda: queue.remove(job.id),
        lambda: queue.retry(job.id),
    ):
        with pytest.raises(QueueError, match="running"):
            change()
    queue.store_progress(taken.attempt, "denoise 3 of 20")
    queue.finish(taken.attempt, State.FAILED, error="No.", hint="Else.", notices=["n"])
    failed = queue.get(job.id)
    assert (failed.state, failed.error, failed.hint, failed.notices, failed.progress) == (
        State.FAILED,
        "No.",
        "Else.",
        ("n",),
        "denoise 3 of 20",
    )
    again = queue.retry(job.id)
    assert (again.state, again.error, again.notices) == (State.QUEUED, "", ())


def test_what_was_running_is_interrupted_after_a_crash_and_resumes_first(root):
    before = Queue(root)
    running, waiting = before.add("m", {}), before.add("m", {})
    take(before)
    after = Queue(root)  # as a new program after kill -9
    assert after.recover(["a"]) == 1
    assert after.get(running.id).state is State.INTERRUPTED
    assert "ended" in after.get(running.id).error
    after.retry(running.id)
    assert ids(after) == [running.id, waiting.id]


def test_what_a_job_has_made_is_kept_where_it_can_be_resumed(queue):
    whole, broken, other = (queue.add("m", {}).id for _ in range(3))
    take(queue)
    queue.store_outputs(Attempt(whole, 1), ["a.mp4"])
    queue.finish(Attempt(whole, 1), State.DONE, outputs=["a.mp4"])
    take(queue)
    queue.store_outputs(Attempt(broken, 1), ["b.mp4"], "latents/c.safetensors")
    queue.finish(Attempt(broken, 1), State.FAILED, outputs=["b.mp4"])
    assert [queue.get(id).resumable for id in (whole, broken, other)] == [False, True, False]
    again = queue.retry(broken)
    assert (again.outputs, again.latents) == (("b.mp4",), "latents/c.safetensors")
    assert queue.retry(whole).outputs == ()
    assert ids(queue) == [broken, other, whole]
    edited = queue.edit(broken, {"prompt": "another"})
    assert (edited.outputs, edited.latents) == ((), "")


def test_finished_jobs_stand_after_the_waiting_ones_latest_first_and_can_be_cleared(queue):
    done = [queue.add("m", {}).id for _ in range(2)]
    for id in done:
        take(queue)
        queue.finish(Attempt(id, 1), State.DONE, outputs=["a.mp4"])
    waiting = queue.add("m", {}).id
    assert [job.id for job in queue.jobs()] == [waiting, *reversed(done)]
    assert queue.get(done[0]).outputs == ("a.mp4",)
    assert queue.clear_finished() == 2
    assert [job.id for job in queue.jobs()] == [waiting]


def test_settings_are_checked_and_bounded(queue):
    with pytest.raises(SettingsError, match="sead"):
        queue.add("m", {"sead": 1})
    with pytest.raises(SettingsError, match="Invalid value"):
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
    with pytest.raises(QueueError, match="Job 2"):
        queue.import_text(json.dumps({"jobs": [good, {"definition": "m", "settings": 5}]}))
    assert queue.jobs() == []


def test_two_takers_never_get_the_same_job(root):
    Queue(root)
    total = 40
    for _ in range(total):
        Queue(root).add("m", {})
    taken = []

    def take_all():
        own = Queue(root)
        while (job := take(own)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=take_all) for _ in range(4)]
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


def damaged(root):
    """Files that were set aside."""
    return [path for path in root.iterdir() if ".damaged-" in path.name]


def other_program(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE jobs (a, b)")
    connection.commit()
    connection.close()


def column_missing(path):
    Queue(path.parent)
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE jobs DROP COLUMN notices")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"hello" * 1000),
        other_program,
        column_missing,
        lambda path: path.write_bytes(b""),
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("nowhere/x"),
    ],
    ids=[
        "no database",
        "another program's",
        "a column missing",
        "empty",
        "folder",
        "pipe",
        "loop",
        "device",
        "dangling",
    ],
)
def test_a_file_that_is_no_queue_is_kept_under_another_name_and_an_empty_queue_begun(root, spoil):
    path = root / "reeltune.sqlite"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    queue = Queue(root)
    assert queue.add("m", {}).id == 1
    assert bool(queue.notice) == (not path.is_symlink() and bool(damaged(root)))
    if before:
        (kept,) = [path for path in damaged(root) if path.suffix not in ("-wal", "-shm")]
        assert kept.name in queue.notice
        assert kept.read_bytes()[:16] == before[:16]
    assert not Queue(root).notice


def test_a_file_that_is_moved_away_meanwhile_and_a_root_that_is(root, tmp_path):
    queue = Queue(root)
    job = queue.add("m", {})
    take(queue)
    for path in root.glob("reeltune.sqlite*"):
        path.unlink()
    assert queue.jobs() == []
    queue.restore(replace(job, outputs=("a.mp4",), attempts=1))
    queue.finish(Attempt(job.id, 1), State.DONE, outputs=["a.mp4"])
    assert queue.get(job.id).outputs == ("a.mp4",)
    root.rename(tmp_path / "moved")
    with pytest.raises(QueueError, match="can't be used"):
        queue.jobs()
    assert not root.exists()  # no new file, no new folder
    (tmp_path / "moved").rename(root)
    assert queue.get(job.id).state is State.DONE


def test_the_side_files_stay_so_that_a_full_disk_keeps_nobody_from_reading(root):
    queue = Queue(root)
    queue.add("m", {})
    assert len(queue.jobs()) == 1
    assert (root / "reeltune.sqlite-wal").exists()
    assert (root / "reeltune.sqlite-shm").exists()
    del queue
    gc.collect()
    assert not (root / "reeltune.sqlite-shm").exists()  # the connection was closed


def write(root, statement, *values):
    """Write into the file as another program might."""
    connection = sqlite3.connect(root / "reeltune.sqlite")
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_one_bad_row_never_hides_the_queue_nor_runs(root):
    queue = Queue(root)
    good, bad, other = (queue.add("m", {"prompt": text}) for text in "abc")
    queue.shift(bad.id, -1)
    write(root, "UPDATE jobs SET settings = '{', created = x'00ff', outputs = 5, attempt = 'x' WHERE id = ?", bad.id)
    listed = {job.id: job for job in queue.jobs()}
    assert (listed[good.id].prompt, listed[other.id].prompt) == ("a", "c")
    assert (listed[bad.id].state, "settings" in listed[bad.id].error) == (State.FAILED, True)
    assert [take(queue).id, take(queue).id, take(queue)] == [good.id, other.id, None]
    with pytest.raises(QueueError, match="no usable settings"):
        queue.retry(bad.id)
    queue.remove(bad.id)
    assert bad.id not in [job.id for job in queue.jobs()]


def test_rows_of_any_types(root):
    """Thousands of values of every type SQLite has, in every column: a list of jobs comes of each, or a typed error."""
    queue = Queue(root)
    rng = random.Random(11)
    atoms = [None, 0, -1, 1.5, 9e999, -9e999, 2**63 - 1, -(2**63), "", "x", "queued", "running", "{}", "[]", "[1]", '{"a": "\\ud800"}',
             "[" * 5000, '{"seed": %s}' % ("9" * 310), '["a\\u0000b"]', "\0", b"", b"\xff\xfe", b"queued", "é" * 3000]  # fmt: skip
    columns = [name for name in COLUMNS if name != "id"]
    for _ in range(30):
        queue.add("m", {"prompt": "p"})
    path = root / "reeltune.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    for turn in range(3000):
        name, value, id = rng.choice(columns), rng.choice(atoms), rng.randint(1, 30)
        with contextlib.suppress(sqlite3.IntegrityError):  # NULL
            connection.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (value, id))
        if turn % 25:
            continue
        for job in queue.jobs():
            json.dumps([job.definition, job.error, job.outputs, dict(job.settings), job.latents]).encode()
            assert job.seconds >= 0
        with contextlib.suppress(QueueError, SettingsError):
            rng.choice(
                [lambda: take(queue), queue.recover, queue.export, lambda id=id: queue.retry(id), lambda id=id: queue.move(id, 0),
                 lambda: queue.add("m", {}), lambda id=id: queue.edit(id, {}), lambda id=id: queue.finish(queue.get(id).attempt, State.DONE)]
            )()  # fmt: skip
    connection.close()
    assert queue.get(queue.add("m", {"prompt": "still"}).id).prompt == "still"


def test_flipped_bytes_of_the_file(root, tmp_path):
    queue = Queue(root)
    for number in range(40):
        queue.add("m", {"prompt": f"a long prompt {number} " * 20})
    write(root, "PRAGMA wal_checkpoint(TRUNCATE)")
    good = (root / "reeltune.sqlite").read_bytes()
    rng = random.Random(5)
    for number in range(60):
        other = tmp_path / f"other{number}"
        other.mkdir()
        raw = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        (other / "reeltune.sqlite").write_bytes(raw)
        with contextlib.suppress(QueueError):
            Queue(other).jobs()


def test_numbers_and_texts_that_sqlite_does_not_take(queue):
    for act in (queue.get, queue.remove, queue.retry, queue.cancel):
        with pytest.raises(QueueError):
            act(10**400)
    job = queue.add("m\ud800", {"prompt": "a\ud800b\0c"})
    assert (job.definition, job.prompt) == ("m\ufffd", "a\ufffdb\0c")
    attempt = take(queue).attempt
    queue.store_outputs(attempt, ["\udcff.mp4"], "\udcff")
    queue.store_progress(attempt, "\ud800")
    queue.finish(attempt, State.FAILED, error="\ud800", hint="\ud800", notices=["\ud800"])
    assert queue.get(job.id).notices == ("\ufffd",)


def test_only_done_jobs_are_trimmed_and_no_work_is_forgotten(queue, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.queue._MOST_DONE", 3)
    states = [State.FAILED, State.CANCELLED, State.INTERRUPTED, *[State.DONE] * 5]
    for state in states:
        queue.add("m", {})
        queue.finish(take(queue).attempt, state)
    assert sorted(job.state for job in queue.jobs()) == sorted([*states[:3], *[State.DONE] * 3])


def test_a_clock_that_is_set_back_makes_nothing_vanish_and_no_time_negative(queue, monkeypatch):
    monkeypatch.setattr("reeltune.jobs.queue._MOST_DONE", 2)
    now = [2e9]
    monkeypatch.setattr("reeltune.jobs.queue.time.time", lambda: now[0])
    ids = []
    for _ in range(4):
        ids.append(queue.add("m", {}).id)
        take(queue)
        now[0] -= 1e6
        queue.finish(Attempt(ids[-1], 1), State.DONE)
    kept = queue.jobs()
    assert [job.id for job in kept] == [ids[3], ids[2]]  # the last to end first
    assert all(job.seconds == 0 for job in kept)


def test_files_of_the_versions_before(root):
    connection = sqlite3.connect(root / "reeltune.sqlite")
    for migration in _MIGRATIONS[:2]:
        for statement in migration.split(";"):
            connection.execute(statement)
    connection.execute("PRAGMA user_version = 2")
    for number, finished in enumerate((30.0, 10.0, 20.0)):
        connection.execute(
            "INSERT INTO jobs (definition, settings, state, position, created, finished) VALUES (?, '{}', 'done', 1, 1, ?)",
            (f"m{number}", finished),
        )
    connection.commit()
    connection.close()
    assert [job.definition for job in Queue(root).jobs()] == ["m0", "m2", "m1"]


def test_each_try_has_a_number_and_a_cancelled_one_keeps_its_videos(queue):
    id = queue.add("m", {}).id
    assert take(queue).attempt == Attempt(id, 1)
    queue.store_outputs(Attempt(id, 1), ["a.mp4"], "b.safetensors")
    queue.finish(Attempt(id, 1), State.FAILED)
    queue.retry(id)
    queue.cancel(id)
    assert queue.get(id).outputs == ("a.mp4",)
    queue.retry(id)
    assert take(queue).attempt == Attempt(id, 2)
    with pytest.raises(QueueError, match="running"):
        queue.cancel(id)


def test_a_confined_queue_takes_no_paths_outside_for_good(root, tmp_path):
    queue = Queue(root, confined=True)
    outside = tmp_path / "x.png"
    outside.write_bytes(b"x")
    (root / "link.png").symlink_to(outside)
    for path in (str(outside), "../x.png", "link.png", "~/x.png", "/etc/passwd", "uploads/../../x.png"):
        for settings in ({"image_start": path}, {"image_refs": ["a.png", path]}, {"activated_loras": [path]}):
            with pytest.raises(SettingsError, match="outside"):
                queue.add("m", settings)
            with pytest.raises(SettingsError, match="outside"):
                queue.import_text(json.dumps({"jobs": [{"definition": "m", "settings": settings}]}))
    assert queue.jobs() == []
    job = queue.add("m", {"image_start": "uploads/a.png", "prompt": "/imagine ../../a boat"})
    assert job.confined
    assert Queue(root).edit(job.id, {}).confined  # for good
    assert not Queue(root).add("m", {"image_start": str(outside)}).confined


def test_a_whole_queue_is_imported_at_once(queue):
    rows = [{"definition": "m", "settings": {"prompt": str(number)}} for number in range(2000)]
    assert len(queue.import_text(json.dumps({"jobs": rows}))) == 2000
    with pytest.raises(QueueError, match="at most"):
        queue.import_text(json.dumps({"jobs": rows * 5}))
    assert len(queue.jobs()) == 2000


def test_thousands_of_queue_files(queue):
    """Mutations of an exported queue: jobs or a typed error come of every one, all or none of its jobs."""
    queue.add("m", {"prompt": "a boat", "seed": 7, "image_refs": ["a.png"], "activated_loras": []})
    whole = queue.export()
    rng = random.Random(3)
    atoms = [
        "null",
        "9" * 310,
        "1e999",
        "NaN",
        '"\\ud800"',
        '"\\u0000"',
        "[" * 90,
        "{}",
        "[]",
        '{"jobs": []}',
        "-0.0",
        '""',
    ]
    added = 1
    for _ in range(1500):
        text = whole
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(atoms) + text[at + rng.choice([0, 1, 1, 8]) :]
        with contextlib.suppress(QueueError, SettingsError):
            added += len(queue.import_text(text))
    jobs = queue.jobs()
    assert len(jobs) == added
    json.dumps([[job.definition, dict(job.settings), dict(job.extra)] for job in jobs]).encode()


def test_loras_outside_are_refused_however_their_path_is_written(root, tmp_path):
    queue = Queue(root, confined=True)
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    (root / "loras" / "wan").mkdir(parents=True)
    (root / "loras" / "wan" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (root / "loras" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    outside = f"{tmp_path}/secret.safetensors"
    for source in (
        f" {outside}", outside.replace("/", "\\"), "\\\\server\\share\\x.safetensors", f"{outside}|/../../..{root}/x",
        "..\\..\\..\\secret.safetensors", "~\\x.safetensors", "link.safetensors", "a\0b",
    ):  # fmt: skip
        with pytest.raises(SettingsError, match="outside"):
            queue.add("m", {"activated_loras": [source]})
    for source in ("x.safetensors", "sub\\x.safetensors", " https://h/x.safetensors|styles", "a|b.safetensors"):
        assert queue.add("m", {"activated_loras": [source]}).confined
    assert queue.add("m", {"activated_loras": ["nano_turbo_lora_r32_bf16.safetensors"]}).confined
