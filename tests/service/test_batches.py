"""Batches as values: what is read of files, what is checked, and which jobs come of it."""

import json

import numpy as np
import pytest

from conftest import png_bytes, saved_queue, workspace_of
from reeltune.errors import Cancelled, FileError, MediaError
from reeltune.events import CancelToken
from reeltune.jobs import State
from reeltune.service import batches
from reeltune.service.batch_jobs import add_jobs, finish_batch, other_jobs
from reeltune.service.batch_sources import open_source
from reeltune.service.batches import plan_batch

SMALL = {"resolution": "64x64", "video_length": 5, "num_inference_steps": 4}


def task(prompt="a red circle", **settings):
    return {"model_type": "nano_t2v", "prompt": prompt, **SMALL, **settings}


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def error_of(plan, index=0):
    error = plan.entries[index].error
    return "" if error is None else str(error)


def test_every_form_of_settings_is_read(tmp_path, workspace):
    tasks = [{"id": 1, "params": task("one")}, {"id": 2, "params": task("two")}]
    workspace.queue.add("nano_t2v", {"prompt": "six", "seed": 4})
    files = [
        write(tmp_path / "settings.json", task("zero")),
        write(tmp_path / "queue.json", tasks),
        write(tmp_path / "list.json", [task("three"), task("four")]),
        saved_queue(tmp_path / "queue.zip", [task("five")]),
    ]
    (tmp_path / "export.json").write_text(workspace.queue.export(), encoding="utf-8")
    plan = plan_batch(workspace, [*files, tmp_path / "export.json"])
    assert [error_of(plan, index) for index in range(len(plan.entries))] == [""] * 7
    assert [entry.prompt for entry in plan.entries] == ["zero", "one", "two", "three", "four", "five", "six"]
    assert [entry.position for entry in plan.entries] == [1, 1, 2, 1, 2, 1, 1]
    assert plan.entries[1].name == "queue.json, entry 1"
    assert plan.entries[0].name == "settings.json"
    assert (plan.entries[6].definition, plan.entries[6].settings["seed"]) == ("nano_t2v", 4)


def test_a_folder_is_read_in_order_and_each_file_once(tmp_path, workspace):
    folder = tmp_path / "batch"
    (folder / "deeper.json").mkdir(parents=True)
    for name in ("b.json", "a.json", ".hidden.json"):
        write(folder / name, task(name))
    saved_queue(folder / "c.ZIP", [task("c")])
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    plan = plan_batch(workspace, [folder, folder / "a.json"])
    assert [entry.prompt for entry in plan.entries] == ["a.json", "b.json", "c"]
    assert any("notes" not in notice and "1 file of other kinds" in notice for notice in plan.notices)
    assert any("several times" in notice for notice in plan.notices)
    for path in (tmp_path / "nowhere", folder / "deeper.json"):
        with pytest.raises(FileError):
            plan_batch(workspace, [path])


def test_a_broken_entry_fails_alone(tmp_path, workspace):
    broken = [
        (task(model_type="nothing", base_model_type="nothing"), "No definition"),
        ({"prompt": "x"}, "doesn't name its model"),
        ("text", "not a JSON object"),
        ({"params": 3}, "params"),
        (task(mode="edit_postprocessing"), "changes an existing video"),
        (task(image_start="x.png"), "does not accept image_start"),
        (task(video_length=8001), "8001"),
        ({**task(), "model_type": "nano_i2v"}, "image_start"),
        ({**task(), "model_type": "nano_i2v", "image_start": "gone.png"}, "doesn't exist"),
        ({**task(), "model_type": "nano_i2v", "image_start": ["a.png", "b.png"]}, "2 files"),
        ({**task(), "model_type": "nano_i2v", "image_start": "odd.png"}, "not an image"),
    ]
    (tmp_path / "odd.png").write_bytes(b"text")
    path = write(tmp_path / "q.json", [task("first"), *(value for value, _ in broken), task("last")])
    bad = tmp_path / "bad.json"
    bad.write_text("{", encoding="utf-8")
    plan = plan_batch(workspace, [bad, path])
    assert "neither a settings file nor" in error_of(plan, 0)
    assert plan.entries[0].position == 0
    assert [entry.prompt for entry in plan.usable] == ["first", "last"]
    for index, (_, words) in enumerate(broken, start=2):
        assert error_of(plan, index), broken[index - 2]
        assert words in error_of(plan, index)


def test_invalid_and_unused_settings_are_left_out_with_a_notice(tmp_path, workspace):
    path = write(
        tmp_path / "q.json",
        [task(guidance_scale="odd", of_later=3, plugin=None), {"params": task(), "plugin_data": {"a": 1}}],
    )
    first, second = plan_batch(workspace, [path]).entries
    assert first.error is None
    assert any("of_later" in notice for notice in first.notices)
    assert any("guidance_scale" in notice for notice in first.notices)
    assert any("plugins" in notice for notice in second.notices)
    old = write(tmp_path / "old.json", task(model_type="long_gone", base_model_type="nano_t2v"))
    (entry,) = plan_batch(workspace, [old]).entries
    assert (entry.definition, entry.error) == ("nano_t2v", None)
    assert any("long_gone" in notice for notice in entry.notices)


def test_files_are_found_beside_the_settings_and_in_the_archive(tmp_path, workspace, root):
    (tmp_path / "beside.png").write_bytes(png_bytes("red"))
    (root / "in_root.png").write_bytes(png_bytes("blue"))
    start = {**task(), "model_type": "nano_i2v", "image_prompt_type": "S"}
    settings = write(
        tmp_path / "a.json", [{**start, "image_start": "beside.png"}, {**start, "image_start": "in_root.png"}]
    )
    names = {"task1_image_start_0.png": png_bytes("green"), "spare.png": png_bytes()}
    archive = saved_queue(
        tmp_path / "q.zip",
        [{**start, "image_start": ["task1_image_start_0.png"]}, {**start, "image_start": str(tmp_path / "beside.png")}],
        names,
    )
    plan = plan_batch(workspace, [settings, archive])
    assert [error_of(plan, index) for index in range(3)] == [""] * 3
    assert "is not in q.zip" in error_of(plan, 3)  # an archive names no files of this machine
    for entry in plan.usable:
        assert entry.settings["image_start"].startswith("uploads/")
        assert (root / entry.settings["image_start"]).is_file()
    assert any("spare.png" in notice for notice in plan.notices)


def test_what_an_entry_makes(tmp_path, workspace):
    path = write(
        tmp_path / "q.json", [task(seed=3), task("one\ntwo", seed=-1, multi_prompts_gen_type="G", repeat_generation=2)]
    )
    first, second = plan_batch(workspace, [path]).entries
    summary = first.summary
    assert (summary.width, summary.height, summary.frames, summary.steps, summary.seed) == (64, 64, 5, 4, 3)
    assert (summary.videos, summary.missing_files, summary.missing_bytes) == (1, 0, 0)
    assert (second.summary.videos, second.summary.seed) == (4, None)


def test_a_plan_is_limited_and_can_be_cancelled(tmp_path, workspace, monkeypatch):
    path = write(tmp_path / "q.json", [task(), task()])
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        plan_batch(workspace, [path], cancel)
    monkeypatch.setattr(batches, "MAX_ENTRIES", 1)
    with pytest.raises(batches.SettingsError, match="more than 1"):
        plan_batch(workspace, [path])


# --- jobs -------------------------------------------------------------------------------------------------------


def end(queue, id, state):
    job = queue.take("w", 60, only={id})
    assert job.id == id
    queue.finish(job.attempt, state, outputs=["a.mp4"] if state is State.DONE else [])


@pytest.fixture
def batch(tmp_path, workspace):
    """Four entries, of which one is made, one was interrupted, one failed and one waits; and a job of the user."""
    path = write(tmp_path / "q.json", [task(str(number)) for number in range(4)])
    mine = workspace.queue.add("nano_t2v", {"prompt": "mine"})
    jobs = add_jobs(workspace.queue, plan_batch(workspace, [path]))
    ids = list(jobs.entries)
    for id, state in zip(ids, (State.DONE, State.INTERRUPTED, State.FAILED), strict=False):
        end(workspace.queue, id, state)
    return path, ids, mine


def test_an_interrupted_batch_is_continued_and_nothing_is_made_twice(batch, workspace):
    path, ids, mine = batch
    jobs = add_jobs(workspace.queue, plan_batch(workspace, [path]))
    assert set(jobs.entries) == set(ids[1:])
    assert [entry.prompt for entry in jobs.made] == ["0"]
    assert jobs.continued == 3
    assert all(workspace.queue.get(id).waiting for id in ids[1:])
    assert other_jobs(workspace.queue, jobs) == 1
    assert workspace.queue.take("w", 60, only=jobs.ids).id == ids[1]  # what was interrupted comes first
    assert workspace.queue.take("w", 60).id == mine.id


def test_another_folder_of_uploads_makes_no_difference(tmp_path, workspace, root):
    (tmp_path / "a.png").write_bytes(png_bytes())
    path = write(tmp_path / "q.json", {**task(), "model_type": "nano_i2v", "image_start": "a.png"})
    (elsewhere := tmp_path / "elsewhere").mkdir()
    other = type(workspace)(root, workspace_of(root).runner, uploads=elsewhere)
    first, second = (plan_batch(place, [path]).entries[0] for place in (workspace, other))
    assert first.settings["image_start"] != second.settings["image_start"]
    assert first.fingerprint == second.fingerprint


def test_a_finished_batch_is_made_again(batch, workspace):
    path, ids, _ = batch
    plan = plan_batch(workspace, [path])
    finish_batch(workspace.queue, plan)
    jobs = add_jobs(workspace.queue, plan)
    assert len(jobs.entries) == 4
    assert not set(jobs.entries) & set(ids)


def test_jobs_whose_entry_has_changed_are_replaced(batch, workspace):
    path, ids, mine = batch
    write(path, [task(str(number), seed=number) for number in range(4)])
    jobs = add_jobs(workspace.queue, plan_batch(workspace, [path]))
    assert len(jobs.entries) == 4
    assert not set(jobs.entries) & set(ids)
    assert len(jobs.notices) == 2  # of the interrupted one and the one that waited
    left = {job.id for job in workspace.queue.jobs()}
    assert {ids[1], ids[3]} & left == set()
    assert mine.id in left
    path.write_text("{", encoding="utf-8")  # a file that is broken now may be right again later
    add_jobs(workspace.queue, plan_batch(workspace, [path]))
    assert set(jobs.entries) <= {job.id for job in workspace.queue.jobs()}


def test_done_jobs_of_an_unfinished_batch_stay_in_the_list(batch, workspace, monkeypatch):
    _, ids, mine = batch
    monkeypatch.setattr("reeltune.jobs.queue._MOST_DONE", 0)
    end(workspace.queue, mine.id, State.DONE)
    assert workspace.queue.get(ids[0]).state is State.DONE
    assert mine.id not in {job.id for job in workspace.queue.jobs()}


def test_the_mark_of_a_batch_is_neither_exported_nor_imported(batch, workspace):
    text = workspace.queue.export()
    assert '"batch"' not in text
    value = json.loads(text)
    value["jobs"][0]["batch"] = {"source": "x", "position": 1, "fingerprint": "y"}
    imported = workspace.queue.import_text(json.dumps(value))
    assert all("batch" not in job.extra for job in imported)


def test_trajectories_beside_the_settings_are_used(tmp_path, workspace):
    np.save(tmp_path / "tracks.npy", np.zeros((3, 2, 2)))
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with open_source(write(tmp_path / "a.json", {"model_type": "wanmove", "custom_guide": "tracks.npy"})) as source:
        stored = source.find(workspace, "tracks.npy")
        assert stored.read_bytes() == (tmp_path / "tracks.npy").read_bytes()
        assert stored.is_relative_to(workspace.uploads)
        with pytest.raises(MediaError, match="text file"):
            source.find(workspace, "notes.txt")
