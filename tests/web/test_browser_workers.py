"""The part of the page with the workers: shown where there are several, with what each does and its buttons."""

import json

import pytest
from acting import generate, pick, quick
from playwright.sync_api import expect

from servers import Server
from serving import Window, chromium, module_root, server, window


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("workers") / "root", "--workers", "cpu,cpu")
    (running.root / "finetunes").mkdir()
    model = {"name": "Long", "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_t2v"}
    long = {"model": model, "resolution": "128x128", "video_length": 33, "num_inference_steps": 1000}  # minutes
    (running.root / "finetunes" / "t2v_long.json").write_text(json.dumps(long), encoding="utf-8")
    yield running.start()
    running.stop()


def test_two_workers_are_shown_drained_and_resumed_and_jobs_say_where_they_run(chromium, two):
    window = Window(chromium, two)
    page = window.open()
    rows = page.locator("#workers .rt-worker")
    expect(rows).to_have_count(2)
    second = page.locator("#workers .rt-worker[data-worker='cpu-2']")
    expect(second).to_contain_text("free")
    expect(second).to_contain_text("holds no weights")
    second.get_by_role("button", name="Let cpu-2 run no jobs after the current one").click()
    second.get_by_text("runs no jobs").wait_for()
    expect(second.get_by_role("button")).to_have_count(1)
    pick(page, "t2v_long")
    quick(page, "the first", steps=None)
    first = generate(page)
    page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    quick(page, "the second", steps=None)
    waiting = generate(page)
    page.locator(f".rt-job[data-job='{first}'] .rt-where", has_text="runs on cpu-1").wait_for()
    page.locator(f".rt-job[data-job='{waiting}'] .rt-where", has_text="waits for").wait_for()
    page.locator("#workers .rt-worker[data-worker='cpu-1']", has_text="holds t2v_long").wait_for()
    second.get_by_role("button", name="Let cpu-2 run jobs again").click()
    page.locator(f".rt-job[data-job='{waiting}'] .rt-where", has_text="runs on cpu-2").wait_for()
    page.locator("#workers .rt-worker[data-worker='cpu-2']", has_text=f"runs job {waiting}").wait_for()
    window.close()


def test_one_worker_is_no_part_of_the_page(window):
    page = window.open()
    page.wait_for_timeout(1500)  # the clock has sent its parts
    assert page.locator("#workers .rt-worker").count() == 0
    assert page.locator("#workers").inner_text().strip() == ""
