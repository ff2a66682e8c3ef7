"""The layout in a real Chromium: nothing is clipped on a phone, main buttons stay in view, users can log out."""

import itertools

import numpy as np
import pytest
from acting import advanced, pick, tab

from reeltune.media.mp4 import write_mp4
from serving import Server, Window, chromium, module_root, server, window

PHONE = (400, 800)
IN_VIEW = """selector => {
  const box = document.querySelector(selector).getBoundingClientRect();
  return box.width > 0 && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth;
}"""
POSITION_OF_FOCUS = """() => {
  const element = document.activeElement, box = element.getBoundingClientRect();
  const container = element.closest('#gallery, #film, #create, .rt-finding');
  return container && element.checkVisibility() ? [Math.round(box.left), Math.round(box.top + scrollY)] : null;
}"""


@pytest.fixture(scope="module", autouse=True)
def videos(module_root):
    """Videos for more than two screens of a phone."""
    (module_root / "outputs").mkdir(parents=True)
    for number in range(12):
        settings = {"definition": "nano_t2v", "settings": {"prompt": f"fox {number}"}}
        write_mp4(module_root / "outputs" / f"{number:02}.mp4", np.zeros((5, 64, 64, 3), np.uint8), 16, settings)


@pytest.fixture
def phone(chromium, server):
    opened = Window(chromium, server, *PHONE)
    yield opened
    opened.close()


def open_gallery(window):
    page = window.open()
    tab(page, "Gallery")
    page.locator(".rt-card").first.wait_for()
    return page


def test_search_and_sort_of_the_gallery_fit_a_phone(phone):
    page = open_gallery(phone)
    for selector in ("#gallery-search", "#gallery-order", "#gallery-order input"):
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE[0], selector
        assert box["width"] > 120
    text = page.locator("#gallery-order input").evaluate("input => input.scrollWidth <= input.clientWidth")
    assert text, "the selected order is clipped"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_video_that_is_opened_on_a_phone_is_scrolled_into_view_and_leads_back(phone):
    page = open_gallery(phone)
    page.locator(".rt-card").first.click()
    page.locator("#film video").wait_for()
    page.wait_for_function(IN_VIEW, arg="#film .rt-stage")
    page.locator("#film .rt-back").click()
    page.wait_for_function("() => document.querySelector('.rt-card').getBoundingClientRect().top >= 0")


def test_a_video_that_is_opened_on_a_wide_screen_moves_nothing(window):
    page = open_gallery(window)
    assert not page.locator("#film .rt-back").is_visible()
    page.locator(".rt-card").nth(1).click()
    page.locator("#film video").wait_for()
    page.wait_for_timeout(300)
    assert page.evaluate("scrollY") == 0


@pytest.mark.parametrize("size", [PHONE, (1280, 600)])
def test_generate_and_save_stay_in_view_wherever_the_page_is_scrolled_to(chromium, server, size):
    opened = Window(chromium, server, *size)
    page = opened.open()
    pick(page, "nano_t2v")
    advanced(page)
    for selector in ("#field-seed", "#field-repeat_generation"):
        page.locator(selector).scroll_into_view_if_needed()
        page.wait_for_function(IN_VIEW, arg="#generate")
    tab(page, "Configuration")
    for selector in ("#preference-quantization", "#preference-outputs", "#token-hub"):
        page.locator(selector).scroll_into_view_if_needed()
        page.wait_for_function(IN_VIEW, arg="#save-configuration")
    opened.close()


def visited_positions(page, presses):
    """Where the focus is after each press of the Tab key, in pixels of the page; None outside the tab's content."""
    positions = []
    for _ in range(presses):
        page.keyboard.press("Tab")
        positions.append(page.evaluate(POSITION_OF_FOCUS))
    inside = [tuple(position) for position in positions if position is not None]
    return [position for position, _ in itertools.groupby(inside)]  # a video has several controls in one place


def assert_reading_order(positions, columns):
    """The focus moves down each column, and from one column to the next only once."""
    assert len(set(positions)) == len(positions), "the focus visits a component twice"
    column_of_positions = [sum(left >= start for start in columns) for left, _ in positions]
    assert column_of_positions == sorted(column_of_positions)
    for column in set(column_of_positions):
        tops = [top for (_, top), number in zip(positions, column_of_positions, strict=True) if number == column]
        assert all(later >= earlier - 12 for earlier, later in itertools.pairwise(tops)), tops


def test_the_focus_moves_through_the_gallery_in_reading_order(window):
    page = open_gallery(window)
    page.locator(".rt-card").first.click()
    page.locator("#film table").wait_for()
    second_column = page.locator("#film").bounding_box()["x"]
    page.locator("#gallery-search").locator("input, textarea").first.focus()
    positions = visited_positions(page, 20)
    assert len(positions) > 15
    assert_reading_order(positions, [second_column])


def test_the_focus_moves_through_the_create_tab_in_reading_order(window):
    page = window.open()
    tab(page, "Create")
    page.locator("#create-finetune").wait_for()
    second_column = page.locator("#own-files").bounding_box()["x"]
    page.locator("#base input").focus()
    positions = visited_positions(page, 14)
    assert len(positions) > 10
    assert_reading_order(positions, [second_column])


def test_users_of_a_protected_page_can_log_out(chromium, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("ann:secret\n", encoding="utf-8")
    passwords.chmod(0o600)
    server = Server(tmp_path / "root", "--auth-file", str(passwords)).start()
    try:
        opened = Window(chromium, server)
        page = opened.page
        page.goto(server.url)
        page.locator("[name=username]").fill("ann")
        page.locator("[name=password]").fill("secret")
        page.get_by_role("button", name="Log in").click()
        page.locator("#generate").wait_for()
        page.locator("#log-out").click()
        page.locator("[name=password]").wait_for()
        page.goto(server.url)
        page.locator("[name=password]").wait_for()
        opened.close()
    finally:
        server.stop()


def test_a_page_without_passwords_has_no_button_to_log_out(window):
    assert window.open().locator("#log-out").count() == 0


def test_the_queue_is_below_the_video_however_low_the_window_is(window):
    page = window.open()
    page.set_viewport_size({"width": 1280, "height": 400})
    video, queue = page.locator("#now").bounding_box(), page.locator("#queue").bounding_box()
    assert queue["x"] == video["x"]
    assert queue["y"] >= video["y"] + video["height"]
    page.locator("#queue button").first.scroll_into_view_if_needed()
    assert page.locator("#queue button").first.is_visible()
