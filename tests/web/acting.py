"""What a person does on the page, for the browser tests."""

import re
import time

from playwright.sync_api import TimeoutError, expect

WAIT_MS = 120_000
expect.set_options(timeout=WAIT_MS)


def pick(page, id):
    """Click a model and wait until the form is a new one, of that model."""
    turn = page.locator(".rt-form-of").get_attribute("data-turn")
    page.locator(f"[data-pick='{id}']").click()
    page.locator(f".rt-form-of[data-of='{id}']:not([data-turn='{turn}'])").wait_for(state="attached")
    page.locator("#generate").wait_for()


def fill(page, key, value):
    box = page.locator(f"#field-{key} textarea, #field-{key} input[type=number], #field-{key} input[type=text]").first
    box.fill(str(value))
    box.blur()


def value_of(page, key):
    return page.locator(f"#field-{key} textarea, #field-{key} input").first.input_value()


def shows(page, key, value):
    """Wait until a field of the form has a value."""
    expect(page.locator(f"#field-{key} textarea, #field-{key} input").first).to_have_value(str(value))


def quick(page, prompt, seed=7, steps=2):
    fill(page, "prompt", prompt)
    if steps is not None:
        fill(page, "num_inference_steps", steps)
    fill(page, "seed", seed)


def generate(page):
    page.locator("#generate").click()
    said = page.locator("#said .rt-good:has-text('is in the queue'), #said .rt-problem")
    said.first.wait_for()
    words = said.first.inner_text()
    assert "is in the queue" in words, words
    return int(re.search(r"Job (\d+)", words)[1])


def wait_for(page, job, state):
    """Jobs that ended are folded away, so that they are only looked for."""
    page.locator(f".rt-job.rt-{state}[data-job='{job}']").wait_for(state="attached", timeout=300_000)


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def advanced(page):
    """Unfold the settings that not everybody looks at."""
    unfold(page, "#advanced", "#field-repeat_generation")


def unfold(page, part, inside):
    """Unfold a part of the page until what is inside is seen; a form that is being replaced may swallow a click."""
    button = page.locator(f"{part} button.label-wrap").first
    until_shown(page, lambda: button.evaluate("e => e.classList.contains('open') || e.click()"), inside, 2)


def until_shown(page, act, selector, seconds):
    """Do something again and again, each time after some seconds, until an element is seen."""
    for _ in range(WAIT_MS // (1000 * seconds)):
        act()
        try:
            page.locator(selector).wait_for(timeout=1000 * seconds)
        except TimeoutError:
            continue
        return
    raise AssertionError(f"{selector} does not appear")


def describe_publication(page, license):
    """Choose the finetune `glow` on the tab Create, and fill in where it is published."""
    page.locator("#own-files input").click()
    page.get_by_role("option", name="glow").first.click()
    page.locator("#own-text", has_text="Glow").wait_for()
    page.locator("#publish-repo textarea, #publish-repo input").first.fill("me/glow")
    page.locator("#publish-license input").fill(license)
    page.locator("#publish-license input").press("Enter")


def drop(page, path, kind, selector="body"):
    """Let a file fall on a part of the page, as from a file manager."""
    content = list(path.read_bytes())
    page.evaluate(
        """([content, name, kind, selector]) => {
          const files = new DataTransfer();
          files.items.add(new File([new Uint8Array(content)], name, { type: kind }));
          const place = document.querySelector(selector);
          for (const name of ['dragover', 'drop']) {
            place.dispatchEvent(new DragEvent(name, { bubbles: true, cancelable: true, dataTransfer: files }));
          }
        }""",
        [content, path.name, kind, selector],
    )


def settled(page, look):
    """What a look at the page gives once nothing of it changes any more."""
    seen = [look()]
    while len(seen) < 4 or any(other != seen[-1] for other in seen[-4:]):
        page.wait_for_timeout(200)
        seen.append(look())
        assert len(seen) < WAIT_MS / 200, seen[-4:]
    return seen[-1]


def assert_readable(page, *where):
    """Every text on the page can be read, once it has been drawn; returns how many there are."""
    end = time.monotonic() + 30  # longer than any transition
    while (result := page.evaluate(CONTRASTS))["found"] and time.monotonic() < end:
        page.wait_for_timeout(100)
    assert result["found"] == {}, where
    return result["count"]


def place_of(page, selector):
    """Where an element's upper left corner is, in pixels of the window."""
    box = page.locator(selector).bounding_box()
    return round(box["x"]), round(box["y"])


def focused(page):
    """A few words on the element that has the focus."""
    return page.evaluate(
        "() => { const e = document.activeElement; return e.id || e.dataset.key || e.tagName + ' ' + e.className; }"
    )


CONTRASTS = """() => {
  const pixel = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const rgba = colour => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = element => {
    if (!element) return [255, 255, 255];
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const light = colour => {
    const [r, g, b] = colour.map(value => {
      const share = value / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faded = element => element ? Number(getComputedStyle(element).opacity) * faded(element.parentElement) : 1;
  const found = {};
  const look = (element, colour, words) => {
    const back = behind(element), ink = rgba(colour);
    const front = over([...ink.slice(0, 3), ink[3] * faded(element)], back);
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found[`${element.tagName}.${element.className} ${words.trim().slice(0, 40)}`] = ratio.toFixed(2);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element.closest('button:disabled, style, script, option, .progress-text')) continue;
    look(element, getComputedStyle(element).color, texts.currentNode.textContent);
    count++;
  }
  for (const box of document.querySelectorAll('input:not([type=checkbox], [type=radio], [type=range]), textarea')) {
    if (!box.checkVisibility({ visibilityProperty: true })) continue;
    look(box, getComputedStyle(box).color, box.value);
    if (box.placeholder) look(box, getComputedStyle(box, '::placeholder').color, box.placeholder);
    count++;
  }
  return { count, found };
}"""
