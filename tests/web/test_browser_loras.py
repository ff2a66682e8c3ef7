"""LoRAs in a real Chromium: chosen on the page with weights by step, used for a video, and found again with it."""

import re

import numpy as np
import pytest
from acting import advanced, drop, fill, generate, pick, quick, shows, tab, wait_for
from playwright.sync_api import expect
from safetensors.numpy import save_file

from conftest import safetensors_bytes
from reeltune import Preferences, load_catalog
from reeltune.checkpoints.header import read_header
from reeltune.jobs import Queue
from reeltune.planning.plan import explain
from serving import Window, chromium, module_root, server, window


def write_lora(path, files, *, seed=0, rank=2, scale=0.3):
    """A random LoRA on the attention of a model in `files`."""
    random = np.random.default_rng(seed)
    state = {}
    for name, tensor in read_header(files[0]).tensors.items():
        if re.search(r"blocks\.\d+\.self_attn\.[qkvo]\.weight$", name):
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            rows, columns = tensor.shape
            state[f"{module}.lora_A.weight"] = (random.standard_normal((rank, columns)) * scale).astype(np.float32)
            state[f"{module}.lora_B.weight"] = (random.standard_normal((rows, rank)) * scale).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


@pytest.fixture(scope="module", autouse=True)
def files(module_root):
    """LoRAs for nano, one with words beside it; one for another family, and one that is damaged."""
    (module_root / "finetunes").mkdir(parents=True)
    nano = load_catalog(module_root)["nano_t2v"]
    weights = explain(nano, Preferences(quantization="bf16"), loras=[]).files("transformer")
    folder = module_root / "loras" / "wan_1.3B"
    write_lora(folder / "watercolor.safetensors", weights)
    (folder / "watercolor.txt").write_text("watercolor painting, paper texture", encoding="utf-8")
    write_lora(folder / "slow" / "motion.safetensors", weights, seed=1)
    names = [f"transformer.single_blocks.{block}.linear2" for block in range(3)]
    tensors = {f"{name}.lora_A.weight": ("BF16", [4, 3072]) for name in names}
    tensors |= {f"{name}.lora_B.weight": ("BF16", [3072, 4]) for name in names}
    (folder / "portrait.safetensors").write_bytes(safetensors_bytes(tensors))
    (folder / "broken.safetensors").write_bytes(b"x" * 20)


def choose(page, name):
    """Search for a LoRA and choose it."""
    box = page.locator("#field-activated_loras input")
    box.click()
    box.fill(name)
    page.get_by_role("option", name=name).click()
    page.locator("#field-activated_loras .token", has_text=name).wait_for()


def enter(page, name):
    """Enter the name of a LoRA that the list doesn't offer."""
    box = page.locator("#field-activated_loras input")
    box.click()
    box.fill(name)
    box.press("Enter")
    page.locator("#field-activated_loras .token", has_text=name).wait_for()


def steps_become(page, rows, columns=None):
    """Wait until the table of steps has these rows, or its columns with some numbers have; and unfold it."""
    page.wait_for_function(
        """expected => JSON.stringify([...document.querySelectorAll('#about-loras .rt-steps tr')].map(
          row => [...row.querySelectorAll('th, td')].map(cell => cell.textContent.trim())
        ).map(row => expected.columns ? expected.columns.map(at => row.at(at)) : row)) === JSON.stringify(expected.rows)""",
        arg={"rows": rows, "columns": columns},
    )
    fold = page.locator("#about-loras details", has=page.locator("summary", has_text="What each step does"))
    fold.evaluate("e => e.open || e.querySelector('summary').click()")
    page.locator("#about-loras .rt-steps").wait_for()


def test_a_lora_is_chosen_with_weights_by_step_used_and_found_again(window):
    page = window.open()
    pick(page, "nano_t2v")
    quick(page, "a red circle moves right", steps=3)
    choose(page, "watercolor")
    about = page.locator("#about-loras")
    about.get_by_text("watercolor painting, paper texture").wait_for()
    fill(page, "loras_multipliers", "1,0.5,0")
    about.locator(".rt-steps td", has_text=re.compile(r"^0\.5$")).wait_for(state="attached")
    steps_become(
        page,
        [
            ["Steps", "Phase", "Guidance", "watercolor"],
            ["1", "1", "3", "1"],
            ["2", "1", "3", "0.5"],
            ["3", "1", "3", "0"],
        ],
    )
    job = generate(page)
    wait_for(page, job, "done")
    stored = next(row for row in Queue(window.server.root).jobs() if row.id == job).settings
    assert (stored["activated_loras"], stored["loras_multipliers"]) == (["watercolor.safetensors"], "1,0.5,0")
    page.locator("#now", has_text="LoRAs: watercolor · weights 1,0.5,0").wait_for()
    page.locator(".rt-ended summary").click()
    page.locator(f".rt-job[data-job='{job}']", has_text="nano_t2v + watercolor").wait_for()
    pick(page, "nano_neon")
    expect(page.locator("#field-activated_loras .token")).to_have_count(0)
    tab(page, "Gallery")
    page.locator(".rt-card", has_text="nano_t2v + watercolor").first.click()
    table = page.locator("#film .rt-table")
    table.get_by_role("row", name="LoRAs watercolor.safetensors").wait_for()
    table.get_by_role("row", name="LoRA weights 1,0.5,0").wait_for()
    turn = page.locator(".rt-form-of").get_attribute("data-turn")
    page.locator("#film [data-do='use']").click()
    page.locator(f".rt-form-of[data-of='nano_t2v']:not([data-turn='{turn}'])").wait_for(state="attached")
    page.locator("#field-activated_loras .token", has_text="watercolor").wait_for()
    shows(page, "loras_multipliers", "1,0.5,0")
    steps_become(page, [["watercolor"], ["1"], ["0.5"], ["0"]], [-1])
    window.server.assert_no_faults()


def test_only_loras_of_the_model_are_offered_and_the_others_are_named_with_the_reason(window):
    page = window.open()
    pick(page, "nano_t2v")
    page.locator("#field-activated_loras input").click()
    page.get_by_role("option", name="watercolor").wait_for()
    assert sorted(page.get_by_role("option").all_inner_texts()) == ["slow/motion", "watercolor"]
    page.keyboard.press("Escape")
    page.locator("#about-loras summary", has_text="2 files not offered").click()
    listed = page.locator("#about-loras details[data-key=unusable]")
    listed.locator("li", has_text="portrait.safetensors").wait_for()
    words = listed.inner_text()
    assert "it was made for Hunyuan Video" in words
    assert "broken.safetensors is a text file, not weights" in words


def test_a_lora_that_is_copied_to_the_folder_while_the_form_is_open_is_offered(window):
    page, root = window.open(), window.server.root
    pick(page, "nano_t2v")
    page.locator("#field-activated_loras input").wait_for()
    (root / "loras" / "late.safetensors").write_bytes((root / "loras/wan_1.3B/watercolor.safetensors").read_bytes())
    page.locator("#field-activated_loras input").click()
    page.get_by_role("option", name="late").click()
    page.locator("#field-activated_loras .token", has_text="late").wait_for()
    (root / "loras" / "late.safetensors").unlink()
    window.server.assert_no_faults()


def test_wrong_weights_and_unknown_loras_are_refused_in_words(window):
    page, before = window.open(), len(Queue(window.server.root).jobs())
    pick(page, "nano_t2v")
    quick(page, "a red circle", steps=3)
    choose(page, "watercolor")
    fill(page, "loras_multipliers", "1,half")
    about = page.locator("#about-loras")
    about.locator(".rt-problem", has_text="“LoRA weights”: invalid item '1,half': 'half' is not a number.").wait_for()
    page.locator("#generate").click()
    said = page.locator("#said .rt-problem", has_text="invalid item '1,half'")
    said.wait_for()
    assert "loras_multipliers" not in said.inner_text()
    fill(page, "loras_multipliers", "1;0")
    about.locator(".rt-problem", has_text="1;0 has weights for 2 phases, and there are 1.").wait_for()
    fill(page, "loras_multipliers", "1 0.5")
    about.get_by_text("has 2 items for 1 LoRA").wait_for()
    enter(page, "watercolour.safetensors")
    about.locator(".rt-problem", has_text="watercolour.safetensors isn't in loras/wan_1.3B/").wait_for()
    about.locator(".rt-problem", has_text="Did you mean watercolor.safetensors?").wait_for()
    page.locator("#generate").click()
    page.locator("#said .rt-problem", has_text="watercolour.safetensors isn't in loras/wan_1.3B/").wait_for()
    page.locator("#field-activated_loras .token", has_text="watercolour").locator("[role=button], button").last.click()
    enter(page, "portrait.safetensors")
    about.locator(".rt-problem", has_text="None of the 3 modules in portrait.safetensors belongs").wait_for()
    assert len(Queue(window.server.root).jobs()) == before
    window.server.assert_no_faults()


def test_phases_appear_where_two_transformers_take_turns(window):
    page = window.open()
    pick(page, "nano_t2v")
    advanced(page)
    expect(page.locator("#field-guidance_phases")).to_have_count(0)
    pick(page, "t2v_2_2")
    advanced(page)
    page.locator("#field-guidance_phases").wait_for()
    page.locator("#about-loras .rt-steps th", has_text="Guidance").wait_for(state="attached")
    steps_become(page, [["Model", "Phase"], ["high noise", "1"], ["low noise", "2"]], [1, 2])
    header = page.locator("#about-loras .rt-steps tr").first.locator("th, td")
    assert [cell.strip() for cell in header.all_inner_texts()] == ["Steps", "Model", "Phase", "Guidance"]
    page.locator("#field-guidance_phases input").click()
    page.get_by_role("option", name="Three").click()
    fill(page, "switch_threshold2", 400)
    steps_become(page, [["Phase"], ["1"], ["2"], ["3"]], [2])


def test_a_lora_that_is_dropped_on_the_page_is_stored_and_chosen(window, tmp_path):
    page, root = window.open(), window.server.root
    pick(page, "nano_t2v")
    path = tmp_path / "dropped.safetensors"
    weights = explain(load_catalog(root)["nano_t2v"], Preferences(quantization="bf16"), loras=[]).files("transformer")
    write_lora(path, weights, seed=3)
    drop(page, path, "")
    page.locator("#said", has_text="dropped.safetensors is in loras/wan_1.3B/").wait_for()
    page.locator("#field-activated_loras .token", has_text="dropped").wait_for()
    assert (root / "loras" / "wan_1.3B" / "dropped.safetensors").read_bytes() == path.read_bytes()
    window.server.assert_no_faults()
