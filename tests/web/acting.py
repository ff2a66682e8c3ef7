"""What a person does on the page, for the browser tests."""

import re


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


def quick(page, prompt, seed=7, steps=2):
    fill(page, "prompt", prompt)
    if steps is not None:
        fill(page, "num_inference_steps", steps)
    fill(page, "seed", seed)


def generate(page):
    page.locator("#generate").click()
    said = page.locator("#said .rt-good, #said .rt-problem")
    said.first.wait_for()
    words = said.first.inner_text()
    assert "is in the queue" in words, words
    return int(re.search(r"Job (\d+)", words)[1])


def wait_for(page, job, state):
    """Jobs that ended are folded away, so that they are only looked for."""
    page.locator(f".rt-job.rt-{state}[data-job='{job}']").wait_for(state="attached", timeout=120_000)


def tab(page, name):
    page.get_by_role("tab", name=name).click()
