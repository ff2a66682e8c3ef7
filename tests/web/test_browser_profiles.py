"""Profiles in a real Chromium: chosen, used for a video, and taken back."""

from acting import fill, pick, shows

from reeltune.media.origin import read_stored
from serving import Window, chromium, module_root, server, window

TURBO = "nano_turbo_lora_r32_bf16.safetensors"


def choose(page, name):
    page.locator("#profile input").click()
    page.get_by_role("option", name=name).click()


def test_a_profile_is_chosen_used_and_taken_back(window):
    page, root = window.open(), window.server.root
    pick(page, "nano_t2v")
    fill(page, "prompt", "a blue square moves up on a white background")
    choose(page, "Turbo, 4 steps")
    page.locator("#said", has_text="The form uses Turbo, 4 steps").wait_for()
    page.wait_for_function("() => document.querySelector('#field-num_inference_steps input')?.value === '4'")
    shows(page, "prompt", "a blue square moves up on a white background")
    shows(page, "resolution", "64x64")
    page.locator("#about-profile", has_text="distilled").wait_for()
    page.locator("#generate").click()
    page.locator("#said", has_text="is in the queue").wait_for()
    page.locator("#now video").wait_for(timeout=300_000)
    (video,) = (root / "outputs").glob("*.mp4")
    stored = read_stored(video).settings
    assert stored["activated_loras"] == [TURBO]
    assert stored["loras_multipliers"].split() == ["1", "|"]
    assert (stored["num_inference_steps"], stored["guidance_scale"], stored["sample_solver"]) == (4, 1.0, "unipc")
    choose(page, "None")
    page.locator("#said", has_text="The form uses no profile").wait_for()
    page.wait_for_function("() => document.querySelector('#field-num_inference_steps input')?.value === '20'")
    window.server.assert_no_faults()


def test_profiles_that_cannot_be_read_are_reported_where_they_would_be(window):
    folder = window.server.root / "profiles" / "nano"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Broken.json").write_text("{", encoding="utf-8")
    page = window.open()
    pick(page, "nano_t2v")
    page.locator("#about-profile", has_text="Broken.json").wait_for()
    (folder / "Broken.json").unlink()
