"""The queue and the job that runs, in a real Chromium: progress in words, jobs moved, changed, resumed and survived."""

import inspect
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from acting import fill, focused, generate, pick, quick, shows, tab, wait_for
from playwright.sync_api import expect

from conftest import Server as FileServer
from reeltune import Engine
from reeltune.jobs import Queue, State
from serving import Server, Window, chromium, module_root, server, window

NANO = Path(inspect.getfile(Engine)).parents[1] / "nano"
MODEL = {"architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_t2v"}
SMALL = {"resolution": "64x64", "video_length": 17, "guidance_scale": 3.0}
LONG = {"resolution": "128x128", "video_length": 33, "guidance_scale": 3.0, "num_inference_steps": 1000}  # minutes


@pytest.fixture(scope="module", autouse=True)
def files(module_root):
    """A model that takes its time."""
    folder = module_root / "finetunes"
    folder.mkdir(parents=True)
    long = {"model": MODEL | {"name": "Long"}, **LONG}
    (folder / "t2v_long.json").write_text(json.dumps(long))


def now(page, words):
    """Wait until the running job says so."""
    page.locator("#now", has_text=re.compile(words)).wait_for(timeout=300_000)


def test_jobs_that_ended_are_folded_away_with_their_pictures_and_stay_open_when_unfolded(window):
    page = window.open()
    pick(page, "nano_t2v")
    quick(page, "first to end")
    first = generate(page)
    wait_for(page, first, "done")
    row = page.locator(f".rt-job[data-job='{first}']")
    assert not row.is_visible()
    page.locator(".rt-ended summary").click()
    row.wait_for()
    page.wait_for_function(
        "id => document.querySelector(`.rt-job[data-job='${id}'] video`)?.videoWidth === 64", arg=str(first)
    )
    quick(page, "second to end")
    page.locator("#generate").click()
    wait_for(page, first + 1, "done")
    assert row.is_visible()  # it stays unfolded though the list is another one
    page.locator(".rt-ended summary", has_text="2 earlier jobs").wait_for()
    page.locator(".rt-ended [data-do=clear]").click()
    row.wait_for(state="detached")
    assert page.locator(".rt-ended").count() == 0


def test_the_time_that_is_left_is_shown_while_denoising(window):
    page = window.open()
    job = Queue(window.server.root).add("t2v_long", {"prompt": "long", "seed": 1})
    now(page, r"step \d+ of 1000")
    now(page, r"so far · about \d+ (s|min|h) left|so far · about \d+ h \d+ min left")
    assert 0 < float(page.locator("#now progress").get_attribute("value")) < 1
    page.locator("#now [data-do=cancel]").click()
    wait_for(page, job.id, "cancelled")


def test_which_video_of_several_it_is(window):
    page, queue = window.open(), Queue(window.server.root)
    queue.set_paused(True)
    job = queue.add("nano_t2v", {"prompt": "a\nb\nc", "seed": 1, **LONG})
    taken = queue.take("elsewhere", 60, only=[job.id])
    queue.finish(taken.attempt, State.INTERRUPTED, outputs=["first.mp4"])  # the first one was made before
    queue.retry(job.id)
    queue.set_paused(False)
    now(page, r"Video 2 of 3 .*step \d+ of 1000")
    page.locator("#now [data-do=cancel]").click()
    wait_for(page, job.id, "cancelled")


def test_a_download_shows_its_speed_and_the_time_that_is_left(chromium, tmp_path):
    content, seen = (NANO / "nano_neon_bf16.safetensors").read_bytes(), threading.Event()
    source = FileServer()

    def slowly(handler, body):
        first, last = 0, len(body) - 1
        if asked := re.match(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")):
            first, last = int(asked[1]), int(asked[2] or last)
        handler.send_response(206 if asked else 200)
        handler.send_header("Content-Length", str(last - first + 1))
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(body)}")
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        step = 4096 if last - first > 400_000 else 32_768
        for start in range(first, last + 1, step):
            try:
                handler.wfile.write(body[start : min(start + step, last + 1)])
            except OSError:
                return True
            seen.wait(0.2 if step == 4096 else 0)  # minutes in all, unless the page has shown it
        return True

    source.files["/slow_bf16.safetensors"], source.faults["/slow_bf16.safetensors"] = content, slowly
    server = Server(tmp_path / "root", offline=False)
    (server.root / "finetunes").mkdir()
    model = MODEL | {"name": "From far", "URLs": [f"{source.url}/slow_bf16.safetensors"]}
    (server.root / "finetunes" / "t2v_far.json").write_text(json.dumps({"model": model, **SMALL}))
    try:
        shown = Window(chromium, server.start())
        page = shown.open()
        expect(page.locator("[data-pick=t2v_far] .rt-state")).to_have_text("Not downloaded")
        pick(page, "t2v_far")
        page.locator("#about", has_text="1 part to download").wait_for()
        page.locator("#about [data-do=sizes]").click()
        page.locator("#about", has_text=re.compile(r"\d MB to download")).wait_for()
        page.locator("#about [data-do=sizes]").wait_for(state="detached")
        quick(page, "from far", steps=2)
        job = generate(page)
        now(page, r"Downloading slow_bf16.safetensors: [\d.]+ [KM]?B of [\d.]+ MB")
        now(page, r"[\d.]+ [KM]B/s · about \d+ (s|min) left")
        seen.set()
        wait_for(page, job, "done")
        shown.close()
    finally:
        seen.set()
        server.stop()
        source.close()


def test_a_run_shows_its_progress_and_preview_and_is_cancelled(window):
    page = window.open()
    pick(page, "t2v_long")
    quick(page, "a red circle moves right on a black background", steps=None)
    job = generate(page)
    page.locator("#now", has_text=re.compile(r"step \d+ of 1000")).wait_for()
    page.locator("#now img").wait_for()
    assert page.locator("#now img").get_attribute("src").startswith("data:image/webp;base64,")
    page.wait_for_function("() => document.querySelector('#now img').naturalWidth > 0")
    page.locator("#now [data-do=cancel]").click()
    wait_for(page, job, "cancelled")
    page.locator("#now [data-do=again]").wait_for()


def test_the_queue_is_reordered_edited_exported_and_imported(window):
    page = window.open()
    jobs = []
    for number, prompt in enumerate(("long one", "second", "third")):
        pick(page, "t2v_long" if number == 0 else "nano_t2v")
        quick(page, prompt, steps=None if number == 0 else 2)
        jobs.append(generate(page))
        page.locator(f".rt-job[data-job='{jobs[-1]}']").wait_for()
        page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    waiting = page.locator(".rt-queued")
    assert [row.get_attribute("data-job") for row in waiting.all()] == [str(jobs[1]), str(jobs[2])]
    page.locator(f".rt-job[data-job='{jobs[2]}'] [data-do=up]").click()
    page.wait_for_function("id => document.querySelector('.rt-queued').dataset.job === id", arg=str(jobs[2]))
    with page.expect_download() as download:
        page.locator("#queue [data-do=export]").click()
    exported = Path(download.value.path()).read_text(encoding="utf-8")
    assert [row["settings"]["prompt"] for row in json.loads(exported)["jobs"]] == ["third", "second"]
    page.locator(f".rt-job[data-job='{jobs[1]}'] [data-do=edit]").click()
    page.locator("#generate", has_text=f"Save job {jobs[1]}").wait_for()
    shows(page, "prompt", "second")
    fill(page, "prompt", "second, changed")
    page.locator("#generate").click()
    page.locator(f".rt-job[data-job='{jobs[1]}']", has_text="second, changed").wait_for()
    page.locator(f".rt-job[data-job='{jobs[2]}'] [data-do=remove]").click()
    page.locator(f".rt-job[data-job='{jobs[2]}']").wait_for(state="detached")
    path = window.server.root / "queue.json"
    path.write_text(exported, encoding="utf-8")
    page.locator("input:has(+ #import-queue)").set_input_files(str(path))
    page.locator("#queue-said", has_text="2 jobs added to the queue").wait_for()
    for job in [row.id for row in Queue(window.server.root).jobs() if row.waiting]:
        Queue(window.server.root).remove(job)
    page.locator(f".rt-job[data-job='{jobs[0]}'] [data-do=cancel]").click()
    wait_for(page, jobs[0], "cancelled")


def test_the_queue_is_paused_and_resumed_in_every_tab_and_after_a_reload(window):
    page = window.open()
    page.locator("#queue [data-do=pause]", has_text="Pause the queue").focus()
    page.keyboard.press("Enter")
    page.locator("#queue [data-do=resume]", has_text="Resume the queue").wait_for()
    now(page, "The queue is paused by the user")
    assert focused(page) == "pause"  # the other button has taken its place
    pick(page, "nano_t2v")
    quick(page, "waits for the queue")
    page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    job = generate(page)
    page.reload()
    page.locator("#queue [data-do=resume]").wait_for()
    now(page, "The queue is paused by the user")
    other = window.context.new_page()
    other.goto(window.server.url)
    other.locator("#queue [data-do=resume]").wait_for()
    assert Queue(window.server.root).get(job).state is State.QUEUED
    other.locator("#queue [data-do=resume]").click()
    page.locator("#queue [data-do=pause]").wait_for()
    page.locator("#now", has_text="paused").wait_for(state="detached")
    wait_for(page, job, "done")
    other.close()


def test_a_killed_worker_takes_neither_page_nor_queue_down(window):
    page = window.open()
    pick(page, "t2v_long")
    quick(page, "one that dies", steps=None)
    killed = generate(page)
    pids = set()
    while len(pids) < 2:  # it is tried once more
        page.locator("#now", has_text=re.compile(r"step \d+ of 1000")).wait_for()
        workers = [
            row
            for row in psutil.Process(window.server.process.pid).children()
            if "reeltune.jobs.worker" in " ".join(row.cmdline())
        ]
        assert len(workers) == 1
        pids.add(workers[0].pid)
        os.kill(workers[0].pid, signal.SIGKILL)
        page.locator("#now", has_text=re.compile(r"step \d+ of 1000")).wait_for(state="detached")
    wait_for(page, killed, "failed")
    page.locator("#now .rt-problem", has_text="signal 9").wait_for()
    assert window.server.status("/") == 200
    pick(page, "nano_t2v")
    quick(page, "the next one")
    page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    after = generate(page)
    wait_for(page, after, "done")


def test_five_jobs_outlive_a_killed_server_and_the_gallery_too(chromium, tmp_path):
    server = Server(tmp_path / "root").start()
    try:
        window = Window(chromium, server)
        page = window.open()
        pick(page, "nano_t2v")
        quick(page, "before")
        wait_for(page, generate(page), "done")
        queue = Queue(server.root)
        queue.add("nano_t2v", {"prompt": "running", **LONG})
        for number in range(5):
            queue.add("nano_t2v", {"prompt": f"waiting {number}", **LONG})
        page.locator("#now", has_text=re.compile(r"step \d+ of 1000")).wait_for()
        workers = psutil.Process(server.process.pid).children()
        server.kill()
        window.context.close()
        psutil.wait_procs(workers, timeout=300)
        assert not any(row.is_running() for row in workers)  # it ended with the page's process
        server.start()
        window = Window(chromium, server)
        page = window.open()
        states = [job.state for job in Queue(server.root).jobs()]
        assert states.count(State.INTERRUPTED) == 1
        assert states.count(State.QUEUED) + states.count(State.RUNNING) == 5
        page.locator(".rt-interrupted [data-do=again]", has_text="Resume").wait_for()
        expect(page.locator(".rt-job", has_text="waiting")).to_have_count(5)
        page.locator(".rt-interrupted [data-do=again]").click()
        page.locator(".rt-queued", has_text="running").wait_for()
        tab(page, "Gallery")
        page.locator(".rt-card", has_text="before").wait_for()
        time.sleep(0.1)
        window.close()
    finally:
        server.stop()
