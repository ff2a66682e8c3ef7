"""Presets of a model in a real Chromium: saved under names, chosen again, deleted."""

import json

from acting import fill, pick, shows, unfold

from serving import Window, chromium, module_root, server, window


def save(page, name, steps):
    fill(page, "num_inference_steps", steps)
    page.locator("#preset-name").locator("input, textarea").first.fill(name)
    page.locator("#preset-save").click()
    page.locator("#said", has_text=f"The preset {name} is saved").wait_for()


def test_several_presets_are_saved_chosen_and_deleted(window):
    page, folder = window.open(), window.server.root / "settings" / "presets" / "nano_t2v"
    pick(page, "nano_t2v")
    unfold(page, "#presets", "#preset-save")
    save(page, "Quick", 2)
    save(page, "Careful", 9)
    assert json.loads((folder / "Quick.json").read_text(encoding="utf-8"))["num_inference_steps"] == 2
    page = window.open()
    pick(page, "nano_t2v")
    unfold(page, "#presets", "#preset-save")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Quick").click()
    page.locator("#preset-use").click()
    page.locator("#said", has_text="The form shows the settings of the preset Quick").wait_for()
    page.wait_for_function("() => document.querySelector('#field-num_inference_steps input')?.value === '2'")
    shows(page, "num_inference_steps", "2")
    unfold(page, "#presets", "#preset-save")
    page.locator("#preset input").click()
    page.get_by_role("option", name="Careful").click()
    page.locator("#preset-delete").click()
    page.locator("#said", has_text="The preset Careful is deleted").wait_for()
    assert [row.name for row in folder.iterdir()] == ["Quick.json"]
    page.locator("#preset-delete").click()
    page.locator("#said .rt-problem", has_text="Choose a preset first").wait_for()
    window.server.assert_no_faults()
