"""The page as people use it, in a real Chromium, with the model that ships making real videos."""

import inspect
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from acting import advanced, fill, generate, pick, quick, shows, tab, wait_for
from PIL import Image
from playwright.sync_api import expect
from safetensors.torch import load_file, save_file

from reeltune import Engine
from reeltune.jobs import Queue, State
from reeltune.media.mp4 import write_mp4
from serving import Server, Window, chromium, module_root, server, window

NANO = Path(inspect.getfile(Engine)).parents[1] / "nano"


@pytest.fixture(scope="module", autouse=True)
def _files(module_root):
    """A model that lists a bf16 and an fp16 version, one that is quantized while loading, and a broken file."""
    folder, ckpts = module_root / "finetunes", module_root / "ckpts"
    folder.mkdir(parents=True)
    ckpts.mkdir()
    shutil.copy(NANO / "nano_neon_bf16.safetensors", ckpts / "both_bf16.safetensors")
    weights = {
        name: row.to(torch.float16) if row.dtype is torch.bfloat16 else row
        for name, row in load_file(ckpts / "both_bf16.safetensors").items()
    }
    save_file(weights, ckpts / "both_fp16.safetensors")
    shutil.copy(NANO / "nano_t2v_bf16.safetensors", ckpts / "plain_bf16.safetensors")
    small = {"resolution": "64x64", "video_length": 5, "num_inference_steps": 2, "guidance_scale": 3.0}
    common = {"architecture": "t2v_1.3B", "components": "reeltune/nano"}
    both = {"name": "Both Types", "URLs": ["ckpts/both_bf16.safetensors", "ckpts/both_fp16.safetensors"]}
    plain = {"name": "Plain", "URLs": ["ckpts/plain_bf16.safetensors"], "auto_quantize": True}
    for id, model in (("t2v_both", both), ("t2v_plain", plain)):
        (folder / f"{id}.json").write_text(json.dumps({"model": model | common, **small}))
    long = {"name": "Long", "URLs": "nano_t2v"} | common
    (folder / "t2v_long.json").write_text(
        json.dumps({"model": long, **small, "num_inference_steps": 1000, "video_length": 17})
    )
    (folder / "broken.json").write_text('{"model": {"name": "Broken",}}')


def test_pick_a_model_change_the_prompt_generate_and_see_the_video_play(window):
    page = window.open()
    pick(page, "nano_t2v")
    page.locator("#about h2", has_text="Nano Text to Video").wait_for()
    page.locator("#about", has_text="quanto int8, runs in bf16, on disk").wait_for()
    page.locator("[data-pick='t2v'] .rt-state", has_text=re.compile("^Not downloaded$")).wait_for()
    page.locator(".rt-broken", has_text="comma").wait_for()
    quick(page, "a blue square moves left on a white background", steps=20)
    job = generate(page)
    wait_for(page, job, "done")
    film = page.locator("#now video")
    film.wait_for()
    page.wait_for_function(
        "() => { const v = document.querySelector('#now video'); return v && v.currentTime > 0.1 && v.videoWidth === 64; }"
    )
    name = Queue(window.server.root).get(job).outputs[0]
    assert Path(name).parent == window.server.root / "outputs"
    assert "nano_t2v" in Path(name).name


def test_the_gallery_gives_settings_back_and_exports_them(window):
    page = window.open()
    pick(page, "nano_neon")
    tab(page, "Gallery")
    page.locator(".rt-card").first.click()
    page.locator("#film table").wait_for()
    assert "a blue square moves left" in page.locator("#film").inner_text()
    page.locator("#film [data-do=use]").click()
    page.locator("#about h2", has_text="Nano Text to Video").wait_for()
    page.wait_for_function("() => document.querySelector('#field-prompt textarea')?.value.startsWith('a blue square')")
    shows(page, "seed", "7")
    shows(page, "num_inference_steps", "20")
    fill(page, "seed", 2**62 + 1)  # more than a browser's numbers hold
    with page.expect_download() as download:
        page.locator("#export-settings").click()
    settings = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert download.value.suggested_filename == "nano_t2v_settings.json"
    assert (settings["model_type"], settings["seed"], settings["num_inference_steps"]) == ("nano_t2v", 2**62 + 1, 20)
    page.locator("#reset").click()
    page.wait_for_function("() => document.querySelector('#field-prompt textarea')?.value.startsWith('a red circle')")
    path = window.server.root / "given.json"
    path.write_text(json.dumps(settings | {"prompt": "from a file"}), encoding="utf-8")
    page.locator("input:has(+ #take-file)").set_input_files(str(path))
    page.wait_for_function("() => document.querySelector('#field-prompt textarea')?.value === 'from a file'")
    shows(page, "seed", str(2**62 + 1))
    (window.server.root / "no.mp4").write_text("no film")
    page.locator("input:has(+ #take-file)").set_input_files(str(window.server.root / "no.mp4"))
    page.get_by_text("no.mp4 is a text file, not an image, a video or a settings file.").wait_for()


def test_defaults_of_a_model_are_saved_and_forgotten(window):
    page = window.open()
    pick(page, "nano_neon")
    fill(page, "num_inference_steps", 9)
    page.locator("#save-defaults").click()
    page.locator("#said .rt-good").wait_for()
    saved = window.server.root / "settings" / "nano_neon_settings.json"
    assert json.loads(saved.read_text(encoding="utf-8"))["num_inference_steps"] == 9
    page.reload()
    page.locator("#generate").wait_for()
    pick(page, "nano_neon")
    page.wait_for_function("() => document.querySelector('#field-num_inference_steps input')?.value === '9'")
    page.locator("#forget-defaults").click()
    page.wait_for_function("() => document.querySelector('#field-num_inference_steps input')?.value === '20'")
    assert not saved.exists()


def test_a_finetune_is_made_from_a_local_checkpoint_and_makes_a_video(window):
    page = window.open()
    pick(page, "nano_t2v")
    quick(page, "a green circle moves up on a black background")
    page.locator("#to-create").click()
    page.locator("#finetune-name textarea, #finetune-name input").first.fill("Mine")
    urls = page.locator("#finetune-urls textarea")
    urls.fill(str(NANO / "nano_neon_bf16.safetensors"))
    urls.blur()
    page.locator("#seen", has_text="It fits.").wait_for()
    assert "bf16" in page.locator("#seen").inner_text()
    urls.fill(f"{NANO / 'nano_neon_bf16.safetensors'}\n{window.server.root / 'nothing.safetensors'}")
    page.locator("#look").click()
    page.locator("#seen .rt-problem").wait_for()
    urls.fill("ckpts/plain_bf16.safetensors")
    page.locator("#create-finetune").click()
    page.locator("#about h2", has_text="Mine").wait_for()
    definition = json.loads((window.server.root / "finetunes" / "t2v_1.3B_mine.json").read_text(encoding="utf-8"))
    assert definition["model"]["URLs"] == ["ckpts/plain_bf16.safetensors"]
    assert definition["model"]["components"] == "reeltune/nano"
    assert definition["num_inference_steps"] == 2
    page.locator(".rt-form-of[data-of='t2v_1.3B_mine']").wait_for(state="attached")
    page.wait_for_function("() => document.querySelector('#field-prompt textarea')?.value.startsWith('a green circle')")
    job = generate(page)
    wait_for(page, job, "done")
    tab(page, "Create")
    page.locator("#own-files input").click()
    page.get_by_role("option", name="t2v_1.3B_mine").click()
    page.wait_for_function("() => document.querySelector('#own-name textarea, #own-name input')?.value === 'Mine'")
    page.locator("#own-name textarea, #own-name input").first.fill("Mine Too")
    page.locator("#own-save").click()
    page.locator("#own-said .rt-good").wait_for()
    page.locator("#own-delete").click()
    page.locator("#own-sure").click()
    page.locator("#own-said", has_text="Deleted finetunes").wait_for()
    assert not (window.server.root / "finetunes" / "t2v_1.3B_mine.json").exists()


def test_another_data_type_chooses_another_version_and_files_appear_by_themselves(window):
    page = window.open()
    pick(page, "t2v_both")
    page.locator("#about", has_text="both_bf16.safetensors 16 bits").wait_for()
    tab(page, "Configuration")
    page.locator("#preference-quantization").get_by_label("16-bit").check()
    page.locator("#preference-dtype").get_by_label("FP16", exact=True).check()
    page.locator("#token-hub input").fill("hf_secret")
    page.locator("#save-configuration").click()
    page.locator("#configuration .rt-good").wait_for()
    stored = json.loads((window.server.root / "reeltune.json").read_text(encoding="utf-8"))
    assert (stored["quantization"], stored["dtype"], stored["tokens"]) == ("bf16", "fp16", {"hub": "hf_secret"})
    assert (window.server.root / "reeltune.json").stat().st_mode & 0o077 == 0
    expect(page.locator("#token-hub input")).to_have_value("")
    assert "hf_secret" not in page.content()
    assert b"hf_secret" not in window.server.ask("/config")[1]
    tab(page, "Make")
    page.locator("#about", has_text="both_fp16.safetensors 16 bits, runs in fp16").wait_for()
    tab(page, "Configuration")
    page.locator("#preference-quantization").get_by_label("Scaled Int8").check()
    page.locator("#preference-dtype").get_by_label("auto").check()
    page.locator("#save-configuration").click()
    tab(page, "Make")
    page.locator("#about", has_text="both_bf16.safetensors 16 bits").wait_for()
    new = window.server.root / "finetunes" / "t2v_new.json"
    new.write_text(json.dumps({"model": {"name": "Brand New", "architecture": "t2v", "URLs": "t2v"}}))
    page.locator("[data-pick='t2v_new']").wait_for()
    new.write_text(json.dumps({"model": {"name": "Brand Newer", "architecture": "t2v", "URLs": "t2v"}}))
    page.locator("[data-pick='t2v_new']", has_text="Brand Newer").wait_for()
    page.locator("#models [data-search]").fill("brand")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#models [data-pick]')].filter(row => row.offsetParent).length === 1"
    )


def test_quantized_weights_are_saved_from_the_page(window):
    page = window.open()
    tab(page, "Configuration")
    page.locator("#preference-save_quantized input").check()
    page.locator("#save-configuration").click()
    page.locator("#configuration .rt-good").wait_for()
    tab(page, "Make")
    pick(page, "t2v_plain")
    job = generate(page)
    wait_for(page, job, "done")
    assert (window.server.root / "ckpts" / "plain_quanto_bf16_int8.safetensors").is_file()
    tab(page, "Configuration")
    page.locator("#preference-save_quantized input").uncheck()
    page.locator("#save-configuration").click()
    page.locator("#configuration .rt-good").wait_for()


def test_images_and_videos_are_uploaded_looked_into_and_named_in_the_job(window):
    page, root = window.open(), window.server.root
    Image.new("RGB", (64, 48), "red").save(root / "start.png")
    write_mp4(root / "guide.mp4", np.zeros((5, 32, 32, 3), np.uint8), 16, {})
    pick(page, "ti2v_2_2")
    page.locator("#field-image_start input[type=file]").set_input_files(str(root / "start.png"))
    page.locator("#field-image_start img").wait_for()
    job = generate(page)
    settings = Queue(root).get(job).settings
    assert settings["image_prompt_type"] == "S"
    assert settings["image_start"].startswith("uploads/")
    assert (root / settings["image_start"]).is_file()
    wait_for(page, job, "failed")  # its weights aren't here, and the network is off
    expect(page.locator(f".rt-job[data-job='{job}'] .rt-problem")).to_contain_text("network is switched off")
    advanced(page)
    fill(page, "perturbation_start_perc", 33)
    pick(page, "vace_1.3B")  # nothing that was put into the other model's form shows up in this one's
    advanced(page)
    shows(page, "perturbation_start_perc", "10")
    fill(page, "perturbation_start_perc", 33)
    turn = page.locator(".rt-form-of").get_attribute("data-turn")
    page.locator("#reset").click()
    page.locator(f".rt-form-of:not([data-turn='{turn}'])").wait_for(state="attached")
    shows(page, "perturbation_start_perc", "10")
    page.locator("#field-video_guide input[type=file]").set_input_files(str(root / "guide.mp4"))
    page.locator("#field-video_guide video").wait_for()
    page.locator("#field-image_refs input[type=file]").set_input_files([str(root / "start.png")])
    page.locator("#field-image_refs", has_text="start").wait_for()
    page.evaluate("document.querySelector('#said').querySelectorAll('.rt-good').forEach(row => row.remove())")
    job = generate(page)
    settings = Queue(root).get(job).settings
    assert settings["video_prompt_type"] == "VI"
    assert settings["video_guide"].startswith("uploads/")
    assert settings["image_refs"][0].startswith("uploads/")
    wait_for(page, job, "failed")
