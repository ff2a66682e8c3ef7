"""The list of models under Make, in a real Chromium: searched, filtered, kept current, and never emptied by one file."""

import json
import time

import pytest
from acting import focused, generate, pick, quick, settled, wait_for
from playwright.sync_api import expect

from reeltune.jobs import Queue, State
from serving import Window, chromium, module_root, server, window

NANO = {"architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_t2v"}


def write(root, id, **model):
    (root / "finetunes" / f"{id}.json").write_text(json.dumps({"model": NANO | model}))


@pytest.fixture(scope="module", autouse=True)
def files(module_root):
    (module_root / "finetunes").mkdir(parents=True)


def wait_until_done(queue):
    """Wait until no job needs its definition any more."""
    end = time.monotonic() + 300
    while any(job.state is not State.DONE for job in queue.jobs()):
        assert time.monotonic() < end, [job.error for job in queue.jobs()]
        time.sleep(0.2)


def listed(page):
    return page.locator("#models button[data-words]:visible")


def lists(page, *ids):
    """Wait until these models are listed, and no others."""
    page.wait_for_function(
        """ids => [...document.querySelectorAll('#models button[data-words]')].filter(row => row.checkVisibility())
          .map(row => row.dataset.pick).sort().join() === ids.sort().join()""",
        arg=list(ids),
    )


def test_a_search_without_a_hit_says_so_and_can_be_taken_back(window):
    page = window.open()
    page.locator("[data-pick=nano_t2v][data-tags~=ready]").wait_for()
    count = listed(page).count()
    page.locator("[data-search]").fill("zebra")
    page.locator("[data-none]", has_text="No model matches").wait_for()
    expect(listed(page)).to_have_count(0)
    page.locator("[data-clear]").click()
    page.locator("[data-none]").wait_for(state="hidden")
    expect(listed(page)).to_have_count(count)
    assert focused(page) == "INPUT rt-search"


def test_models_are_filtered_by_what_they_need_and_the_filter_outlives_an_update(window):
    page = window.open()
    page.locator("[data-pick=nano_t2v][data-tags~=ready]").wait_for()
    page.locator("[data-filter=ready]").click()
    lists(page, "nano_t2v", "nano_i2v", "nano_neon", "nano_vace")
    page.locator("[data-filter=image]").click()
    lists(page, "nano_i2v", "nano_vace")
    page.locator("[data-filter=ready]").click()
    page.locator("[data-filter=image]").click()
    page.locator("[data-filter=text]").click()
    ids = {row.get_attribute("data-pick") for row in listed(page).all()}
    assert "nano_t2v" in ids
    assert not {"i2v", "nano_i2v"} & ids
    page.locator("[data-search]").fill("fresh")
    write(window.server.root, "t2v_fresh", name="Fresh One")
    page.locator("[data-pick=t2v_fresh]").wait_for()
    expect(page.locator("[data-search]")).to_have_value("fresh")
    expect(page.locator("[data-filter=text]")).to_have_attribute("aria-pressed", "true")
    lists(page, "t2v_fresh")


def test_the_page_opens_with_the_model_of_the_latest_job_in_view(chromium, server):
    for number in range(40):
        write(server.root, f"t2v_n{number:02d}", name=f"Number {number:02d}")
    for width, id in ((1280, "t2v_n39"), (400, "t2v_n20"), (1280, "t2v_n00")):
        Queue(server.root).add(id, {"prompt": "latest", "num_inference_steps": 1, "video_length": 1})
        shown = Window(chromium, server, width, 860)
        page = shown.open()
        page.locator(f"[data-pick='{id}'][data-tags~=ready][aria-current=true]").wait_for(state="attached")
        page.locator(f".rt-form-of[data-of='{id}']").wait_for(state="attached")
        page.wait_for_function(
            """id => {
              const row = document.querySelector(`[data-pick='${id}']`).getBoundingClientRect();
              const box = document.querySelector('.rt-models').getBoundingClientRect();
              return row.top >= box.top && row.bottom <= box.bottom;
            }""",
            arg=id,
        )
        shown.close()
    wait_until_done(Queue(server.root))
    for number in range(40):
        (server.root / "finetunes" / f"t2v_n{number:02d}.json").unlink()


def test_a_list_that_was_scrolled_stays_where_it_is_when_it_is_updated(window):
    page = window.open()
    page.locator("[data-pick=nano_t2v][data-tags~=ready]").wait_for()
    page.locator(".rt-models").hover()
    page.mouse.wheel(0, 700)
    page.wait_for_function("() => document.querySelector('.rt-models').scrollTop > 300")
    before = settled(page, lambda: page.evaluate("document.querySelector('.rt-models').scrollTop"))
    write(window.server.root, "t2v_zebra", name="Zebra", architecture="t2v", URLs="t2v")
    page.locator("[data-pick=t2v_zebra]").wait_for(state="attached")
    assert abs(page.evaluate("document.querySelector('.rt-models').scrollTop") - before) < 60


def test_models_are_walked_by_arrow_keys(window):
    page = window.open()
    page.locator("[data-search]").focus()
    page.keyboard.type("nano")
    page.keyboard.press("ArrowDown")
    first = focused(page)
    page.keyboard.press("ArrowDown")
    second = focused(page)
    assert first.startswith("pick-nano")
    assert second.startswith("pick-nano")
    assert first != second
    page.keyboard.press("ArrowUp")
    assert focused(page) == first
    page.keyboard.press("ArrowUp")
    assert focused(page) == "INPUT rt-search"
    page.keyboard.press("Enter")  # the first hit
    page.locator(f"#models [data-key='{first}'][aria-current=true]").wait_for()


def test_no_definition_empties_the_page_whatever_it_holds_and_whatever_else_changes(window):
    page, root = window.open(), window.server.root
    write(root, "odd_architecture", name="Odd Architecture", architecture="ltx9_99B", URLs=["https://h/x.safetensors"])
    write(root, "dangling", name="Dangling", URLs="nothing_of_that_name")
    (root / "finetunes" / "no_json.json").write_text("{")
    (root / "finetunes" / "binary.json").write_bytes(bytes(range(256)))
    page.locator("[data-pick=dangling]").wait_for()
    for number in range(3):
        write(root, "t2v_changing", name=f"Changing {number}")
        page.locator("[data-pick=t2v_changing]", has_text=f"Changing {number}").wait_for()
    page.locator("#models", has_text="no_json.json").wait_for()
    problems = page.locator("#queue .rt-problem, #now .rt-problem")
    assert problems.all_text_contents() == []
    for id in ("odd_architecture", "dangling"):
        page.locator(f"[data-pick={id}]").click()
        page.locator("#about .rt-problem").wait_for()
        page.locator(".rt-form-of").wait_for(state="detached")  # what can't be read has no form
        page.locator("#generate:enabled").wait_for(state="detached")
    page.locator("[data-pick=t2v_changing]").click()
    page.locator(".rt-form-of[data-of='t2v_changing']").wait_for(state="attached")
    page.locator("#generate:enabled").wait_for()
    page.locator("#about h2", has_text="Changing 2").wait_for()
    window.server.assert_no_faults()
    for name in ("odd_architecture", "dangling", "no_json", "binary"):
        (root / "finetunes" / f"{name}.json").unlink()


def test_a_part_that_fails_shows_it_and_the_others_go_on(window):
    page, root = window.open(), window.server.root
    page.locator("[data-pick=nano_t2v][data-tags~=ready]").wait_for()
    outputs, aside = root / "outputs", root / "outputs.aside"
    preferences = root / "reeltune.json"
    preferences.write_text('{"outputs": "out\\u0000puts", "dtype": 7}')
    write(root, "t2v_meanwhile", name="Meanwhile")
    page.locator("[data-pick=t2v_meanwhile]").wait_for()
    if outputs.exists():
        outputs.rename(aside)
    outputs.write_text("a file where the folder was")
    write(root, "t2v_meanwhile", name="Meanwhile Again")
    page.locator("[data-pick=t2v_meanwhile]", has_text="Again").wait_for()
    outputs.unlink()
    preferences.unlink()
    if aside.exists():
        aside.rename(outputs)
    pick(page, "nano_t2v")
    quick(page, "after it all")
    wait_for(page, generate(page), "done")
