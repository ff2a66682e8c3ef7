"""The part of the page with the workers: shown where there are several, with what each does and its buttons."""

import pytest
from acting import generate, pick, quick

from servers import Server
from serving import Window, chromium, module_root, server, window


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("workers") / "root", "--workers", "cpu,cpu")
    yield running.start()
    running.stop()


def test_two_workers_are_shown_drained_and_resumed_and_jobs_say_where_they_run(chromium, two):
    window = Window(chromium, two)
    page = window.open()
    rows = page.locator("#workers .rt-worker")
    assert rows.count() == 2
    second = page.locator("#workers .rt-worker[data-worker='cpu-2']")
    assert "free" in second.inner_text()
    assert "holds no weights" in second.inner_text()
    second.get_by_role("button", name="Let cpu-2 run no jobs after the current one").click()
    second.get_by_text("runs no jobs").wait_for()
    assert second.get_by_role("button").count() == 1
    pick(page, "nano_t2v")
    quick(page, "the first", steps=1000)
    first = generate(page)
    page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    quick(page, "the second", steps=1000)
    waiting = generate(page)
    page.locator(f".rt-job[data-job='{first}'] .rt-where", has_text="runs on cpu-1").wait_for()
    page.locator(f".rt-job[data-job='{waiting}'] .rt-where", has_text="waits for").wait_for()
    page.locator("#workers .rt-worker[data-worker='cpu-1']", has_text="holds nano_t2v").wait_for()
    second.get_by_role("button", name="Let cpu-2 run jobs again").click()
    page.locator(f".rt-job[data-job='{waiting}'] .rt-where", has_text="runs on cpu-2").wait_for()
    page.locator("#workers .rt-worker[data-worker='cpu-2']", has_text=f"runs job {waiting}").wait_for()
    window.close()


def test_one_worker_is_no_part_of_the_page(window):
    page = window.open()
    page.wait_for_timeout(1500)  # the clock has sent its parts
    assert page.locator("#workers .rt-worker").count() == 0
    assert page.locator("#workers").inner_text().strip() == ""
