"""The configuration in a real Chromium: its answer is beside the button, and what this machine lacks is refused."""

import json

import pytest
from acting import assert_readable, tab
from playwright.sync_api import expect

from reeltune.machine import probe
from serving import Window, chromium, module_root, server, window


def configuration(window):
    page = window.open()
    tab(page, "Configuration")
    page.locator("#save-configuration").wait_for()
    return page


def said(page, words):
    answer = page.locator("#configuration-said", has_text=words)
    answer.wait_for()
    box, button = answer.bounding_box(), page.locator("#save-configuration").bounding_box()
    height = page.viewport_size["height"]
    assert 0 <= box["y"] <= height - box["height"], "the answer is outside the window"
    assert abs(box["y"] + box["height"] / 2 - button["y"] - button["height"] / 2) < 40, "not beside the button"
    return answer.inner_text()


def stored(window):
    return json.loads((window.server.root / "reeltune.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("height", [900, 420])
def test_the_result_of_save_is_beside_the_button_wherever_the_page_is_scrolled_to(chromium, server, height):
    shown = Window(chromium, server, 1280, height)
    page = configuration(shown)
    page.locator("#preference-threads input").fill("2")
    page.locator("#save-configuration").click()
    said(page, "Saved in reeltune.json")
    assert stored(shown)["threads"] == 2
    page.locator("#preference-stall_seconds input").fill("0")
    page.locator("#save-configuration").click()
    assert "“Reconnect after (seconds)”" in said(page, "Invalid value")
    page.locator("#preference-stall_seconds input").fill("30")
    page.locator("#save-configuration").click()
    said(page, "Saved in reeltune.json")
    shown.close()


def test_a_device_that_is_not_here_is_refused_and_memory_is_called_what_it_is(window):
    page = configuration(window)
    box = page.locator("#preference-device input")
    box.click()
    page.get_by_role("option", name="Automatic").wait_for()
    offered = page.get_by_role("option").all_inner_texts()
    assert any("Automatic" in row for row in offered)
    assert any("CPU" in row and row.rstrip().endswith("of RAM") for row in offered)
    here = probe()
    assert any("cuda" in row for row in offered) == bool(here.gpus or here.unlisted)
    box.fill("cuda:9")
    box.press("Enter")
    page.locator("#save-configuration").click()
    said(page, "'cuda:9' is not available")
    assert not (window.server.root / "reeltune.json").exists() or stored(window)["device"] != "cuda:9"
    box.click()
    page.get_by_role("option", name="CPU,").click()
    page.locator("#save-configuration").click()
    said(page, "Saved in reeltune.json")
    assert stored(window)["device"] == "cpu"


def test_a_device_that_went_away_is_named_and_nothing_is_offered_to_run_on_it(window):
    path = window.server.root / "reeltune.json"
    path.write_text(json.dumps({"device": "cuda:9", "threads": 3}), encoding="utf-8")
    page = window.open()
    page.locator("#about .rt-problem", has_text="cuda:9").wait_for()
    assert "RAM" not in page.locator("#about").inner_text()
    page.locator("#generate:disabled").wait_for()
    tab(page, "Configuration")
    page.locator("#configuration .rt-problem", has_text="cuda:9").wait_for()
    expect(page.locator("#preference-threads input")).to_have_value("3")  # as the file has it now
    box = page.locator("#preference-device input")
    box.click()
    page.get_by_role("option", name="Automatic").click()
    page.locator("#save-configuration").click()
    said(page, "Saved in reeltune.json")
    expect(page.locator("#configuration .rt-problem")).to_have_count(0)
    tab(page, "Make")
    page.locator("#about", has_text="of RAM").wait_for()
    page.locator("#generate:not(:disabled)").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_and_what_has_the_focus_is_seen(chromium, server, scheme):
    shown = Window(chromium, server, scheme=scheme)
    page = configuration(shown)
    page.locator("#preference-stall_seconds input").fill("0")
    page.locator("#save-configuration").click()
    page.locator("#configuration-said .rt-problem").wait_for()
    assert_readable(page)
    for name in ("#preference-quantization input", "#preference-device input", "#preference-threads input",
                 "#preference-outputs textarea, #preference-outputs input", "#save-configuration"):  # fmt: skip
        page.locator(name).first.focus()
        page.keyboard.press("Shift")  # the focus came by the keyboard
        seen = page.evaluate(
            """() => { const own = element => { const s = getComputedStyle(element);
                 return (s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2) || s.boxShadow !== 'none'; };
                 let e = document.activeElement;
                 for (let up = 0; e && up < 4; up++, e = e.parentElement) if (own(e)) return true;
                 return false; }"""
        )
        assert seen, name
    shown.close()
