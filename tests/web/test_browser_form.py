"""The form under Make, in a real Chromium: what it shows, what it refuses and how, and that nothing moves or hides."""

import json
import re

import numpy as np
import pytest
from acting import (
    advanced,
    assert_readable,
    drop,
    fill,
    focused,
    generate,
    pick,
    place_of,
    quick,
    settled,
    shows,
    tab,
    until_shown,
    wait_for,
)  # fmt: skip
from PIL import Image
from playwright.sync_api import expect

from reeltune.jobs import Queue
from reeltune.media.mp4 import write_mp4
from serving import Window, chromium, module_root, server, window

NANO = {"architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_t2v"}
SMALL = {"resolution": "64x64", "video_length": 5, "num_inference_steps": 2, "guidance_scale": 3.0}


def write(root, id, model, **settings):
    (root / "finetunes" / f"{id}.json").write_text(json.dumps({"model": NANO | model, **SMALL | settings}))


@pytest.fixture(scope="module", autouse=True)
def files(module_root):
    """Models that are slow, and that can't run; images and videos, sound and unreadable."""
    (module_root / "finetunes").mkdir(parents=True)
    write(module_root, "t2v_slow", {"name": "Slow"}, num_inference_steps=1000, resolution="128x128", video_length=33)
    write(module_root, "t2v_later", {"name": "Later", "URLs": ["ckpts/x-IQ2_M.gguf"], "architecture": "t2v"})
    write(module_root, "t2v_edited", {"name": "Edited"})
    Image.new("RGB", (64, 48), "red").save(module_root / "red.png")
    Image.new("RGB", (64, 48), "blue").save(module_root / "blue.png")
    (module_root / "odd.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing of an image")
    (module_root / "odd.mp4").write_text("no video")
    (module_root / "settings.json").write_text(json.dumps({"prompt": "from a file that was dropped"}))
    write_mp4(module_root / "guide.mp4", np.zeros((5, 32, 32, 3), np.uint8), 16, {})


def problem(page):
    found = page.locator("#said .rt-problem")
    found.wait_for()
    return found.inner_text()


def upload(page, key, path):
    page.locator(f"#field-{key} input[type=file]").set_input_files(str(path))
    page.locator(f"#field-{key} :is(img, video)").first.wait_for(state="attached")


def test_files_that_cannot_be_read_are_refused_in_words_as_they_are_chosen(window):
    page, root = window.open(), window.server.root
    pick(page, "nano_i2v")
    page.locator("#field-image_start input[type=file]").set_input_files(str(root / "odd.png"))
    page.get_by_text(re.compile("^odd.png is damaged, or not an image")).wait_for()
    upload(page, "image_start", root / "red.png")  # the field takes another one
    page = window.open()
    pick(page, "nano_vace")
    page.locator("#field-video_guide input[type=file]").set_input_files(str(root / "odd.mp4"))
    page.get_by_text(re.compile("^odd.mp4 is a text file, not an image, a video or a settings file.")).wait_for()
    upload(page, "video_guide", root / "guide.mp4")
    assert [row for row in Queue(root).jobs() if row.definition in ("nano_i2v", "nano_vace")] == []
    window.server.assert_no_faults()


def test_a_form_for_an_input_video_asks_for_it_by_its_own_label(window):
    """Lucy Edit takes a video to edit; Animate videos of poses and faces, and a character."""
    page, root = window.open(), window.server.root
    for id, labels in (
        ("lucy_edit", {"video_guide": "Video to edit"}),
        ("animate", {"video_guide": "Pose video", "video_guide2": "Face video", "image_refs": "Character"}),
    ):
        pick(page, id)
        if id == "animate":
            page.locator("#input-help li", has_text="Pose video: Skeletons. It must be prepared already").wait_for()
        for key, label in labels.items():
            page.locator(f"#field-{key}", has_text=label).wait_for()
            page.locator("#generate").click()
            page.locator("#said .rt-problem", has_text=f"needs “{label}”").wait_for()
            said = problem(page)
            assert f"Add a file to “{label}”." in said
            assert "--" not in said
            upload(page, key, root / ("red.png" if key == "image_refs" else "guide.mp4"))
        page.evaluate("document.querySelectorAll('#said .rt-problem').forEach(row => row.remove())")
        job = generate(page)
        settings = Queue(root).get(job).settings
        assert set(labels) <= set(settings)
        wait_for(page, job, "failed")  # its weights aren't here
        assert settings["video_guide"].startswith("uploads/")
        assert settings["video_prompt_type"] == {"lucy_edit": "V", "animate": "VBI"}[id]
    pick(page, "chrono_edit")
    page.locator("#field-image_start", has_text="Image to edit").wait_for()
    expect(page.locator("#field-video_length")).to_have_count(0)
    advanced(page)
    page.locator("#field-model_mode", has_text="Temporal reasoning").wait_for()
    window.server.assert_no_faults()


def test_what_is_missing_or_out_of_range_is_named_by_its_label(window):
    page = window.open()
    pick(page, "nano_i2v")
    page.locator("#generate").click()
    said = problem(page)
    assert "Start image" in said
    for words in ("--", "image_start", "FILE", "reeltune "):
        assert words not in said
    pick(page, "nano_t2v")
    advanced(page)
    advanced(page)
    for key, value, label in (("repeat_generation", 0, "Videos per prompt"), ("seed", "x", "Seed")):
        fill(page, key, value)
        page.locator("#generate").click()
        page.locator("#said .rt-problem", has_text=label).wait_for()
        assert key not in problem(page).split()
        fill(page, key, 3)
    window.server.assert_no_faults()


def test_the_length_of_the_video_follows_the_slider_and_the_frame_rate(window):
    page = window.open()
    pick(page, "nano_t2v")
    words = page.locator("#field-video_length .info-text")
    expect(words).to_have_text("1.1 s at 16 frames per second")
    slider = page.locator("#field-video_length input[type=range]")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "() => document.querySelector('#field-video_length .info-text').innerText.startsWith('2.1 s')"
    )
    fill(page, "video_length", 81)
    page.wait_for_function(
        "() => document.querySelector('#field-video_length .info-text').innerText.startsWith('5.1 s')"
    )
    advanced(page)
    fill(page, "force_fps", 8)
    page.locator("#field-video_length .info-text", has_text="10.1 s at 8 frames per second").wait_for()


def test_nothing_moves_under_the_pointer_when_a_job_is_queued(window):
    page = window.open()
    pick(page, "nano_t2v")
    quick(page, "one")
    page.locator("[data-pick=nano_t2v][data-tags~=ready]").wait_for()
    before = settled(page, lambda: (place_of(page, "#generate"), place_of(page, "#field-resolution")))
    jobs = [generate(page)]
    assert (place_of(page, "#generate"), place_of(page, "#field-resolution")) == before
    page.locator("#generate").click()
    page.locator("#said", has_text=f"Job {jobs[0] + 1} is in the queue").wait_for()
    assert (place_of(page, "#generate"), place_of(page, "#field-resolution")) == before
    wait_for(page, jobs[0] + 1, "done")
    assert (place_of(page, "#generate"), place_of(page, "#field-resolution")) == before


def test_no_dropdown_is_clipped_and_all_of_its_options_can_be_seen(window):
    page = window.open()
    for id in ("t2v_2_2", "hunyuan", "ltxv_13B", "vace_14B"):
        pick(page, id)
        advanced(page)
        boxes = page.locator("#form input[role=combobox]:visible")  # presets are folded away
        for number in range(boxes.count()):
            box = boxes.nth(number)
            assert box.evaluate("e => e.scrollWidth <= e.clientWidth"), (
                id,
                box.get_attribute("aria-label"),
                box.input_value(),
            )
        last = boxes.last
        last.scroll_into_view_if_needed()
        last.click()
        options = page.locator("ul[role=listbox] li")
        options.last.wait_for()
        for option in options.all():
            assert option.evaluate(
                """e => { const box = e.getBoundingClientRect();
                  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
                  return e.contains(top) && e.scrollWidth <= e.clientWidth; }"""
            ), option.inner_text()
        page.keyboard.press("Escape")


def drop_until_shown(page, path, kind, selector, place="#models"):
    """A form that is being drawn has its fields a moment before they take files: a person drops the file again."""
    until_shown(page, lambda: drop(page, path, kind, place), selector, 20)


def test_a_file_dropped_anywhere_goes_to_the_field_that_takes_it_and_never_changes_settings(window):
    page, root = window.open(), window.server.root
    pick(page, "nano_i2v")
    fill(page, "prompt", "mine")
    page.locator("#field-image_end input[type=file]").wait_for(state="attached")
    drop_until_shown(page, root / "red.png", "image/png", "#field-image_start img", "header")
    first = page.locator("#field-image_start img").get_attribute("src")
    drop(page, root / "blue.png", "image/png", "#now")
    page.locator("#field-image_end img").wait_for()
    drop(page, root / "blue.png", "image/png", "#about")  # both are full: the first one takes it
    page.locator(f"#field-image_start img:not([src='{first}'])").wait_for()
    drop(page, root / "settings.json", "application/json", "#about")
    page.locator(".rt-toast", has_text="Use settings of a file").wait_for()
    drop(page, root / "guide.mp4", "video/mp4", "#models")
    page.locator(".rt-toast", has_text="takes no video").wait_for()
    shows(page, "prompt", "mine")
    np.save(root / "tracks.npy", np.zeros((3, 2, 2)))
    drop(page, root / "tracks.npy", "", "#models")
    page.locator(".rt-toast", has_text="takes no trajectories").wait_for()
    pick(page, "wanmove")
    page.locator("#field-custom_guide input[type=file]").wait_for(state="attached")
    drop_until_shown(page, root / "tracks.npy", "", "#field-custom_guide .file-preview")
    pick(page, "nano_vace")
    page.locator("#field-video_guide input[type=file]").wait_for(state="attached")
    drop_until_shown(page, root / "guide.mp4", "video/mp4", "#field-video_guide video")
    drop(page, root / "red.png", "image/png", "#models")
    page.locator("#field-image_refs", has_text="red").wait_for()
    assert page.locator("#said .rt-good").count() == 0


def test_a_model_that_cannot_run_offers_no_generate_until_its_file_is_changed(window):
    page, root = window.open(), window.server.root
    pick(page, "t2v_later")
    page.locator("#about .rt-problem", has_text="GGUF").wait_for()
    page.locator("#generate:disabled").wait_for()
    fill(page, "prompt", "typed meanwhile")
    write(root, "t2v_later", {"name": "Later"})
    page.locator("#generate:enabled").wait_for()
    shows(page, "prompt", "typed meanwhile")
    page.wait_for_function("() => !document.querySelector('#about .rt-problem')")
    wait_for(page, generate(page), "done")


def test_card_and_form_follow_a_definition_that_was_edited_and_keep_what_was_typed(window):
    page, root = window.open(), window.server.root
    pick(page, "t2v_edited")
    fill(page, "prompt", "kept")
    write(root, "t2v_edited", {"name": "Edited Again", "description": "Now with words."}, guidance_scale=5.5)
    page.locator("#about h2", has_text="Edited Again").wait_for()
    page.wait_for_function("() => document.querySelector('#field-guidance_scale input').value === '5.5'")
    page.locator("#about", has_text="Now with words.").wait_for()
    shows(page, "prompt", "kept")
    (root / "finetunes" / "t2v_edited.json").write_text("{")
    page.locator("#about .rt-problem").wait_for()
    page.locator("#generate").wait_for(state="detached")
    write(root, "t2v_edited", {"name": "Edited"})
    page.locator("#generate:enabled").wait_for()


def test_a_video_is_made_by_keyboard_alone(window):
    page = window.open()
    page.locator("[data-search]").focus()
    page.keyboard.type("slow")
    page.keyboard.press("ArrowDown")
    assert focused(page) == "pick-t2v_slow"
    page.keyboard.press("Enter")
    page.locator(".rt-form-of[data-of='t2v_slow']").wait_for(state="attached")
    page.locator("#generate").wait_for()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("() => !!document.activeElement.closest('#field-prompt')"):
            break
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("typed by hand")
    page.keyboard.press("Control+Enter")
    page.locator("#said .rt-good").wait_for()
    page.locator("#now", has_text=re.compile(r"step \d+ of 1000")).wait_for()
    job = Queue(window.server.root).jobs()[0]
    assert job.prompt == "typed by hand"
    cancel = page.locator("#now [data-do=cancel]")
    for _ in range(60):
        page.keyboard.press("Tab")
        if cancel.evaluate("e => e === document.activeElement"):
            break
    page.keyboard.press("Enter")
    wait_for(page, job.id, "cancelled")


def test_the_focus_can_be_seen_on_everything_that_takes_it(window):
    page = window.open()
    pick(page, "nano_i2v")
    seen = set()
    page.locator("[data-search]").focus()
    for _ in range(45):
        page.keyboard.press("Tab")
        label, width = page.evaluate(
            """() => {
              const e = document.activeElement, ring = e.closest('.wrap') || e;
              const widths = [e, ring].map(row => {
                const style = getComputedStyle(row);
                return style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth);
              });
              return [`${e.tagName} ${e.type || ''} ${e.getAttribute('role') || ''}`, Math.max(...widths)];
            }"""
        )
        if label.startswith("BODY"):
            break
        assert width >= 2, (label, focused(page))
        seen.add(label.strip())
    assert {"TEXTAREA textarea", "INPUT range", "INPUT number", "INPUT text combobox"} <= seen


def test_text_can_be_read_in_both_themes_and_the_choice_outlives_a_reload(chromium, server):
    for scheme in ("light", "dark"):
        shown = Window(chromium, server, scheme=scheme)
        page = shown.open()
        pick(page, "nano_i2v")
        page.locator("#generate").click()
        page.locator("#said .rt-problem").wait_for()
        advanced(page)
        for name in ("Gallery", "Create", "Configuration", "Make"):
            tab(page, name)
            count = assert_readable(page, scheme, name)
        assert count > 60
        assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
        page.locator("#rt-theme").click()
        page.reload()
        page.locator("#generate").wait_for()
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=scheme == "light")
        shown.close()


def test_on_a_phone_the_video_comes_before_the_form_and_generate_stays_in_reach(chromium, server):
    narrow = Window(chromium, server, 400, 860)
    page = narrow.open()
    assert place_of(page, "#now")[1] < place_of(page, "#about")[1] < place_of(page, "#jobs")[1]
    assert place_of(page, "#now")[1] < 420
    advanced(page)
    for place in ("#field-prompt", "#field-seed", "#field-repeat_generation"):
        page.locator(place).scroll_into_view_if_needed()
        page.wait_for_function(
            """() => { const box = document.querySelector('#generate').getBoundingClientRect();
              return box.height > 0 && box.top >= 0 && box.bottom <= 860; }"""
        )
    for name in ("Make", "Gallery", "Create", "Configuration"):
        tab(page, name)
        assert settled(page, lambda: page.evaluate("document.documentElement.scrollWidth")) <= 400, name
    narrow.close()
