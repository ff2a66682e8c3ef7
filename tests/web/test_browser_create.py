"""Create in a real Chromium: the base is chosen, files that don't fit are refused, prebuilt finetunes are copied."""

import json
from importlib import resources
from pathlib import Path

import pytest
from acting import assert_readable, fill, pick, tab

from serving import Window, chromium, module_root, server, window

WEIGHTS = next(Path(str(resources.files("reeltune"))).rglob("nano_neon_bf16.safetensors"))


def create(window):
    page = window.open()
    pick(page, "nano_t2v")
    tab(page, "Create")
    page.locator("#create-finetune").wait_for()
    return page


def choose(page, box, words):
    page.locator(f"{box} input").click()
    page.locator(f"{box} input").fill(words)
    page.get_by_role("option", name=words).first.click()


def enter(page, key, value):
    field = page.locator(f"#finetune-{key}").locator("input, textarea").first
    field.fill(value)
    field.blur()


def written(window):
    folder = window.server.root / "finetunes"
    return sorted(row.name for row in folder.glob("*.json")) if folder.exists() else []


def test_a_file_that_does_not_fit_is_refused_and_its_base_models_are_offered(window):
    page = create(window)
    choose(page, "#base", "(i2v)")
    enter(page, "name", "Misfit")
    enter(page, "urls", str(WEIGHTS))
    page.locator("#seen", has_text="It does not fit").wait_for()
    page.locator("#create-finetune").click()
    answer = page.locator("#create-said .rt-problem", has_text="does not fit")
    answer.wait_for()
    assert "Choose a base model that it fits" in answer.inner_text()
    assert not page.locator("#create-anyway").is_visible()
    assert "t2v" not in " ".join(written(window))
    assert written(window) == []
    page.locator("#seen [data-base='t2v_1.3B']").click()
    page.locator("#seen", has_text="It fits.").wait_for()
    page.locator("#base-line", has_text="the settings of").wait_for()
    page.locator("#create-finetune").click()
    page.locator("#about h2", has_text="Misfit").wait_for()
    assert written(window) == ["t2v_1.3B_misfit.json"]


def test_a_file_that_cannot_be_looked_into_now_is_asked_about(window):
    page = create(window)
    enter(page, "name", "Remote")
    enter(page, "urls", "https://example.org/remote_bf16.safetensors")
    page.locator("#create-finetune").click()
    page.locator("#create-said .rt-problem", has_text="could not be checked").wait_for()
    assert "t2v_1.3B_remote.json" not in written(window)
    page.locator("#create-anyway").click()
    page.locator("#about h2", has_text="Remote").wait_for()
    assert "t2v_1.3B_remote.json" in written(window)


def test_the_base_can_be_chosen_here_and_follows_the_model_that_is_picked(window):
    page = create(window)
    fill_seed = 77
    tab(page, "Make")
    fill(page, "seed", fill_seed)
    page.locator("#to-create").click()
    page.locator("#base-line", has_text="form under Make").wait_for()
    enter(page, "name", "From the form")
    page.locator("#create-finetune").click()
    page.locator("#about h2", has_text="From the form").wait_for()
    made = json.loads((window.server.root / "finetunes" / "t2v_1.3B_from_the_form.json").read_text(encoding="utf-8"))
    assert made["seed"] == fill_seed
    tab(page, "Create")
    choose(page, "#base", "(vace_1.3B)")
    page.locator("#finetune-modules").wait_for()
    tab(page, "Make")
    pick(page, "nano_i2v")
    tab(page, "Create")
    page.wait_for_function("() => document.querySelector('#base input').value.includes('(nano_i2v)')")
    page.locator("#finetune-modules").wait_for(state="hidden")


def test_a_prebuilt_finetune_is_copied_edited_and_deleted(window):
    page = create(window)
    choose(page, "#prebuilt", "(t2v_fusionix)")
    page.locator("#copy-prebuilt").click()
    page.locator("#own-said", has_text="Created finetunes/t2v_fusionix_copy.json").wait_for()
    page.wait_for_function(
        "() => document.querySelector('#own-name').querySelector('input, textarea').value.endsWith('(copy)')"
    )
    path = window.server.root / "finetunes" / "t2v_fusionix_copy.json"
    builtin = next(Path(str(resources.files("reeltune"))).rglob("t2v_fusionix.json"))
    copy, original = (json.loads(file.read_text(encoding="utf-8")) for file in (path, builtin))
    assert copy["model"]["name"] == f"{original['model']['name']} (copy)"
    assert copy["model"]["URLs"] == original["model"]["URLs"]
    assert original.keys() <= copy.keys()
    page.locator("#copy-prebuilt").click()
    page.locator("#own-said", has_text="Created finetunes/t2v_fusionix_copy_2.json").wait_for()
    page.locator("#own-delete").click()
    page.locator("#own-sure", has_text="t2v_fusionix_copy_2").click()
    page.locator("#own-said", has_text="Deleted finetunes").wait_for()
    assert path.exists()
    assert not path.with_name("t2v_fusionix_copy_2.json").exists()
    tab(page, "Make")
    page.locator("[data-pick=t2v_fusionix_copy]").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(chromium, server, scheme):
    shown = Window(chromium, server, scheme=scheme)
    page = create(shown)
    choose(page, "#base", "(i2v)")
    enter(page, "urls", str(WEIGHTS))
    page.locator("#seen", has_text="It does not fit").wait_for()
    page.locator("#create-finetune").click()
    page.locator("#create-said .rt-problem").wait_for()
    assert_readable(page)
    shown.close()
