"""The gallery in a real Chromium: searched, sorted, downloaded from; its settings and last frames go into the form."""

import os
from pathlib import Path

import numpy as np
import pytest
from acting import shows, tab
from PIL import Image
from playwright.sync_api import expect

from reeltune.media.mp4 import write_mp4
from serving import Window, chromium, module_root, server, window

FRAMES = np.zeros((9, 64, 64, 3), np.uint8)
BASIC = {"resolution": "64x64", "video_length": 5, "num_inference_steps": 3}


def film(root, name, when, definition, **settings):
    path = root / "outputs" / name
    write_mp4(path, FRAMES, 16, {"definition": definition, "architecture": "t2v_1.3B", "settings": BASIC | settings})
    os.utime(path, (when, when))


@pytest.fixture(scope="module", autouse=True)
def files(module_root):
    """Videos of several models, one whose model isn't here, and one made with a file from elsewhere."""
    (module_root / "outputs").mkdir(parents=True)
    (module_root / "uploads" / "aa").mkdir(parents=True)
    elsewhere = module_root.parent / "elsewhere"
    elsewhere.mkdir()
    write_mp4(module_root / "uploads" / "aa" / "guide.mp4", FRAMES, 16, {})
    Image.new("RGB", (64, 64), "red").save(elsewhere / "own.png")
    film(module_root, "fox.mp4", 400, "nano_t2v", prompt="a fox", seed=11)
    film(
        module_root,
        "led.mp4",
        300,
        "nano_vace",
        prompt="a led bird",
        video_guide="uploads/aa/guide.mp4",
        video_prompt_type="V",
    )
    film(module_root, "from.mp4", 200, "nano_i2v", prompt="a start", image_start=str(elsewhere / "own.png"))
    film(module_root, "a_stranger.mp4", 100, "gone_finetune", prompt="a stranger")


def cards(page):
    return [row.get_attribute("data-name") for row in page.locator(".rt-card").all()]


def opened(page, name):
    page.locator(f".rt-card[data-name='{name}']").click()
    page.locator("#film table", has_text=name).wait_for()


def gallery(window):
    page = window.open()
    tab(page, "Gallery")
    page.locator(".rt-card").first.wait_for()
    return page


def test_videos_are_searched_and_sorted_and_an_update_leaves_it_so(window):
    page = gallery(window)
    assert cards(page) == ["fox.mp4", "led.mp4", "from.mp4", "a_stranger.mp4"]
    page.locator("#gallery-order input").click()
    page.get_by_role("option", name="Name").click()
    page.locator(".rt-card").first.and_(page.locator("[data-name='a_stranger.mp4']")).wait_for()
    assert cards(page) == ["a_stranger.mp4", "fox.mp4", "from.mp4", "led.mp4"]
    search = page.locator("#gallery-search").locator("input, textarea")
    search.fill("NANO_VACE bird")
    page.wait_for_function("() => document.querySelectorAll('.rt-card').length === 1")
    assert cards(page) == ["led.mp4"]
    film(window.server.root, "second_bird.mp4", 50, "nano_vace", prompt="another bird")
    page.locator(".rt-card[data-name='second_bird.mp4']").wait_for()
    assert cards(page) == ["led.mp4", "second_bird.mp4"]
    search.fill("zebra")
    page.locator("#gallery", has_text="No video matches “zebra”").wait_for()
    page.locator("[data-do=all]").click()
    page.wait_for_function("() => document.querySelectorAll('.rt-card').length === 5")
    expect(search).to_have_value("")


def test_a_video_is_downloaded(window):
    page = gallery(window)
    opened(page, "fox.mp4")
    with page.expect_download() as download:
        page.locator("#film a[download]").click()
    assert download.value.suggested_filename == "fox.mp4"
    assert Path(download.value.path()).read_bytes() == (window.server.root / "outputs" / "fox.mp4").read_bytes()
    assert "num_inference_steps" not in page.locator("#film").inner_text()


def test_settings_of_a_video_choose_its_model_and_keep_its_files(window):
    page = gallery(window)
    opened(page, "led.mp4")
    page.locator("#film [data-do=use]").click()
    page.locator(".rt-form-of[data-of=nano_vace]").wait_for(state="attached")
    page.locator("#field-video_guide video").wait_for(state="attached")
    shows(page, "prompt", "a led bird")
    expect(page.locator("[data-pick=nano_vace]")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("tab", name="Make")).to_have_attribute("aria-selected", "true")
    tab(page, "Gallery")
    opened(page, "from.mp4")
    page.locator("#film [data-do=use]").click()
    page.locator(".rt-form-of[data-of=nano_i2v]").wait_for(state="attached")
    page.locator("#field-image_start img").wait_for(state="attached")
    tab(page, "Gallery")
    opened(page, "a_stranger.mp4")
    page.locator("#film [data-do=use]").click()
    page.locator("#said", has_text="gone_finetune does not exist here").wait_for()
    shows(page, "prompt", "a stranger")
    expect(page.locator(".rt-form-of")).to_have_attribute("data-of", "t2v_1.3B")


def test_a_video_is_continued_from_its_last_frame(window):
    page = gallery(window)
    opened(page, "fox.mp4")
    page.locator("#film [data-do=continue]").click()
    page.locator("#said", has_text="starts with the last frame of fox.mp4").wait_for()
    page.locator("#field-image_start img").wait_for(state="attached")
    expect(page.locator(".rt-form-of")).to_have_attribute("data-of", "nano_i2v")
    shows(page, "prompt", "a fox")
    shows(page, "seed", "11")
    window.server.assert_no_faults()
