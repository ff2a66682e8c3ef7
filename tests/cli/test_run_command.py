"""`reeltune run`: real batches on nano, from the command line to the videos."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import png_bytes, saved_queue
from reeltune.cli.app import main
from reeltune.jobs import Queue, Runner, State
from reeltune.media.mp4 import read_metadata

PROJECT = Path(__file__).parents[2]
SMALL = {"resolution": "64x64", "video_length": 5, "num_inference_steps": 2}
LONG = {"resolution": "256x256", "video_length": 33, "num_inference_steps": 1000}  # minutes for each video


def task(prompt="a red circle moves right", **settings):
    return {"model_type": "nano_t2v", "prompt": prompt, "multi_prompts_gen_type": 0, **SMALL, **settings}


def write(path, value):
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def run(root, capsys, monkeypatch):
    """Run a command as a user does; returns exit code, stdout, stderr."""

    def call(*words):
        code = 0
        monkeypatch.setattr("sys.stdin", io.StringIO())
        try:
            main([*map(str, words), "--root", str(root)])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def prompts(folder):
    """The prompts of the videos in a folder, sorted."""
    return sorted(read_metadata(path)["settings"]["prompt"] for path in folder.glob("*.mp4"))


def files_of(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


# --- whole runs -------------------------------------------------------------------------------------------------


def test_a_saved_queue_runs_and_a_broken_entry_fails_alone(run, root, tmp_path):
    image = "task2_image_start_0.png"
    tasks = [
        task("one", seed=1),
        {**task("two", seed=2), "model_type": "nano_i2v", "image_prompt_type": "S", "image_start": [image]},
        task("three", model_type="nothing", base_model_type="nothing"),
        task("four", seed=4, repeat_generation=2),
    ]
    archive = saved_queue(tmp_path / "queue.zip", tasks, {image: png_bytes()})
    mine = Queue(root).add("nano_t2v", {"prompt": "mine", **SMALL})
    code, out, err = run("run", archive, "--output-dir", tmp_path / "videos")
    assert code == 1
    assert prompts(tmp_path / "videos") == ["four", "four", "one", "two"]
    assert sorted(Path(line) for line in out.splitlines()) == sorted((tmp_path / "videos").iterdir())
    assert not list((root / "outputs").glob("*.mp4"))
    assert not (root / "reeltune.json").exists()
    assert "[3/3] queue.zip, entry 4: nano_t2v" in err
    assert "Denoising" in err
    assert "3 entries made, 1 failed." in err
    assert err.count("No definition 'nothing'") == 2  # at once, and at the end
    assert "1 other job" in err
    jobs = {job.id: job for job in Queue(root).jobs()}
    assert jobs.pop(mine.id).state is State.QUEUED
    assert [job.state for job in jobs.values()] == [State.DONE] * 3


def test_exit_code_0_and_a_finished_batch_is_made_again(run, root, tmp_path):
    settings = write(tmp_path / "settings.json", task(seed=7))
    for number in (1, 2):
        code, out, err = run("run", settings)
        assert (code, len(out.splitlines())) == (0, 1)
        assert "1 entry made." in err
        assert len(list((root / "outputs").glob("*.mp4"))) == number
    code, out, _ = run("run", out.strip(), "--dry-run")  # a video contains its settings
    assert (code, "seed 7" in out) == (0, True)


def test_a_job_that_fails_while_it_runs_is_reported_and_the_others_are_made(run, root, tmp_path):
    name = "task1_image_start_0.png"
    start = {**task("gone"), "model_type": "nano_i2v", "image_prompt_type": "S", "image_start": name}
    archive = saved_queue(tmp_path / "q.zip", [start, task("stays")], {name: png_bytes()})
    code = (
        "import shutil, sys\nfrom reeltune.cli import main\nfrom reeltune.cli import run_progress\n"
        "kept = run_progress.BatchRun.run\n"
        "def removed(self, cancel):\n    shutil.rmtree(sys.argv[-1])\n    kept(self, cancel)\n"
        "run_progress.BatchRun.run = removed\nmain(sys.argv[1:-1])\n"
    )
    words = ["run", str(archive), "--root", str(root), str(root / "uploads")]
    answer = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert answer.returncode == 1, answer.stderr
    assert prompts(root / "outputs") == ["stays"]
    assert "1 entry made, 1 failed." in answer.stderr
    assert "doesn't exist" in answer.stderr


# --- dry run ----------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_everything_and_stores_nothing(run, root, tmp_path):
    name = "task1_image_start_0.png"
    start = {**task("first", seed=5), "model_type": "nano_i2v", "image_prompt_type": "S", "image_start": name}
    archive = saved_queue(tmp_path / "q.zip", [start, task("second")], {name: png_bytes()})
    before = files_of(root)
    code, out, _ = run("run", archive, "--dry-run")
    assert code == 0
    assert 'q.zip, entry 1: nano_i2v "first"' in out
    assert "64x64, 5 frames at 16 fps, 2 steps, seed 5" in out
    assert "random seed" in out
    assert "2 entries can be made, 0 can't." in out
    write(tmp_path / "broken.json", task(model_type="nothing"))
    code, out, _ = run("run", archive, tmp_path / "broken.json", "--dry-run", "--output-dir", tmp_path / "videos")
    assert code == 1
    assert "broken.json: can't be made" in out
    assert files_of(root) == before
    assert not (tmp_path / "videos").exists()


def test_a_dry_run_shows_what_must_be_downloaded(run, tmp_path):
    settings = write(tmp_path / "s.json", {"model_type": "t2v", "prompt": "a fox"})
    code, out, _ = run("run", settings, "--dry-run")
    assert code == 0
    assert re.search(r"to download: \d+ files \(", out)


# --- errors -----------------------------------------------------------------------------------------------------


def test_a_hostile_archive_makes_nothing(run, root, tmp_path):
    archive = saved_queue(tmp_path / "q.zip", [task()], {"../../evil.png": png_bytes()})
    code, _, err = run("run", archive)
    assert code == 1
    assert "leads outside" in err
    assert not list(tmp_path.rglob("evil.png"))
    assert Queue(root).jobs() == []


def test_paths_that_do_not_exist_and_files_without_entries(run, root, tmp_path):
    code, _, err = run("run", tmp_path / "nowhere.json")
    assert (code, "doesn't exist" in err) == (1, True)
    code, _, err = run("run", write(tmp_path / "empty.json", []))
    assert (code, "contains no entries" in err) == (0, True)
    assert run("run")[0] == 2
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run("run", write(tmp_path / "s.json", task()), "--output-dir", tmp_path / "file")
    assert (code, "can't be written" in err) == (1, True)
    assert Queue(root).jobs() == []


def test_nothing_is_added_while_another_program_runs_the_queue(run, root, tmp_path):
    settings = write(tmp_path / "s.json", task())
    with Runner(root, only=()):
        code, _, err = run("run", settings)
    assert code == 1
    assert "Another reeltune" in err
    assert Queue(root).jobs() == []


# --- Ctrl-C -----------------------------------------------------------------------------------------------------


def start(root, *words):
    command = [sys.executable, "-m", "reeltune", "run", *map(str, words), "--root", str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(true, process, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def states(root):
    return [job.state for job in sorted(Queue(root).jobs(), key=lambda job: job.id)]


def second_one_runs(root):
    """Whether the first of two jobs is done, and the second one denoises."""
    if not (root / "reeltune.sqlite").exists():
        return False
    jobs = sorted(Queue(root).jobs(), key=lambda job: job.id)
    return [job.state for job in jobs[:2]] == [State.DONE, State.RUNNING] and "denoise" in jobs[1].progress


@pytest.fixture
def batch(tmp_path):
    return write(tmp_path / "q.json", [task("one"), task("two", **LONG), task("three")])


def shorten(root):
    """Make the long job short, as somebody who can't wait: its mark stays that of the entry."""
    queue = Queue(root)
    (job,) = (job for job in queue.jobs() if job.prompt == "two")
    if not job.waiting:
        queue.retry(job.id)
    queue.edit(job.id, {**job.settings, **SMALL})


def test_ctrl_c_leaves_what_the_same_command_continues(root, batch, tmp_path, run):
    videos = tmp_path / "videos"
    process = start(root, batch, "--output-dir", videos)
    until(lambda: second_one_runs(root), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Stopping after the current step" in err
    assert "Stopped: 1 of 3 entries are made. " in " ".join(err.split()) + " "
    assert states(root) == [State.DONE, State.INTERRUPTED, State.QUEUED]
    assert [Path(line).parent for line in out.splitlines()] == [videos]
    assert "of the interrupted batch was made before" in run("run", batch, "--dry-run")[1]
    shorten(root)
    code, out, err = run("run", batch, "--output-dir", videos)
    assert code == 0, err
    assert "2 entries made, 1 made before." in err
    assert states(root) == [State.DONE] * 3
    assert prompts(videos) == ["one", "three", "two"]


def test_the_second_ctrl_c_ends_at_once(root, batch, run):
    process = start(root, batch)
    until(lambda: second_one_runs(root), process)
    worker = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    for pid in worker:
        subprocess.run(["kill", "-STOP", pid], check=True)  # a step that takes forever
    process.send_signal(signal.SIGINT)
    while "Stopping after the current step" not in process.stderr.readline():  # two signals at once would count as one
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)  # the worker never answers again
    assert process.returncode == 130, err
    assert states(root) == [State.DONE, State.INTERRUPTED, State.QUEUED]


def test_a_killed_batch_is_continued(root, batch, run):
    process = start(root, batch)
    until(lambda: second_one_runs(root), process)
    process.kill()
    process.communicate()
    assert states(root)[0] is State.DONE
    Queue(root).recover([job.worker for job in Queue(root).jobs()])  # as the next run does
    shorten(root)
    assert run("run", batch)[0] == 0
    assert prompts(root / "outputs") == ["one", "three", "two"]


# --- wgp.py -----------------------------------------------------------------------------------------------------


def test_wgp_process(root, tmp_path):
    archive, videos = saved_queue(tmp_path / "queue.zip", [task("by wgp")]), tmp_path / "videos"

    def wgp(*words):
        command = [sys.executable, str(PROJECT / "wgp.py"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)

    dry = wgp("--dry-run", "--output-dir", videos, f"--process={archive}")
    assert (dry.returncode, "1 entry can be made" in dry.stdout) == (0, True), dry.stderr
    answer = wgp("--process", archive, "--output-dir", videos)
    assert answer.returncode == 0, answer.stderr
    assert prompts(videos) == ["by wgp"]
    missing = wgp("--process", tmp_path / "nowhere.zip")
    assert (missing.returncode, "doesn't exist" in missing.stderr) == (1, True)
