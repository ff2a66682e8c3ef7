"""The pictures in docs/screens: a real page in Chromium, light, dark and narrow, with videos that the nano models make.

python bench/screens.py [FOLDER]      (needs Chromium: apt-get install chromium)
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from reeltune.jobs import Queue

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "web"))
from acting import describe_publication

from hub import TOKEN, Hub
from servers import Server
from sharing_roots import command, glow

HERE = Path(__file__).parents[1]
PROMPTS = [
    ("nano_t2v", "a blue square moves left on a white background"),
    ("nano_neon", "a green triangle moves up on a black background"),
    ("nano_t2v", "a yellow circle moves down on a gray background"),
    ("nano_neon", "a purple square moves right on a white background"),
    ("nano_t2v", "a red triangle moves right on a black background"),
]
LONG = "t2v_1.3B_slow"
COLOURS = 256


def prepare(root: Path) -> None:
    (root / "finetunes").mkdir(parents=True)
    model = {"name": "Nano, many steps", "architecture": "t2v_1.3B", "components": "reeltune/nano", "URLs": "nano_t2v"}
    model["description"] = "Nano with a thousand steps, for looking at it while it works."
    settings = {"resolution": "64x64", "video_length": 17, "num_inference_steps": 1000, "guidance_scale": 3.0}
    (root / "ckpts").mkdir()
    nano = HERE / "src" / "reeltune" / "nano" / "nano_neon_bf16.safetensors"
    shutil.copy(nano, root / "ckpts" / "neon_nights_bf16.safetensors")
    text = json.dumps({"model": model, **settings}, indent=4)
    (root / "finetunes" / f"{LONG}.json").write_text(text, encoding="utf-8")


def shoot(page: Any, folder: Path, name: str, **options: Any) -> None:
    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


def tour(page: Any, folder: Path, look: str) -> None:
    """The four parts of the page as they are now."""
    page.get_by_role("tab", name="Make").click()
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    shoot(page, folder, f"make-{look}")
    page.get_by_role("tab", name="Gallery").click()
    page.locator(".rt-card").first.click()
    page.wait_for_timeout(1500)
    shoot(page, folder, f"gallery-{look}")
    page.get_by_role("tab", name="Create").click()
    page.locator("#finetune-name textarea, #finetune-name input").first.fill("Neon Nights")
    page.locator("#finetune-description textarea").fill("The same little world after dark.")
    urls = page.locator("#finetune-urls textarea")
    urls.fill("ckpts/neon_nights_bf16.safetensors")
    urls.blur()
    page.locator("#seen", has_text="It fits.").wait_for()
    shoot(page, folder, f"create-{look}")
    page.get_by_role("tab", name="Configuration").click()
    page.wait_for_timeout(600)
    shoot(page, folder, f"configuration-{look}")
    page.get_by_role("tab", name="Make").click()


def progress(page: Any, folder: Path, look: str) -> None:
    page.locator("#now", has_text=re.compile(r"step \d{2,} of 1000")).wait_for()
    page.locator("#now img").wait_for()
    if look == "narrow":
        page.locator("#now").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('#now').scrollIntoView()")
    page.wait_for_timeout(1200)
    shoot(page, folder, f"progress-{look}")


def workers(browser: Any, root: Path, folder: Path) -> None:
    """Two workers with different models, a third one that is drained, and jobs that wait for them."""
    server = Server(root, "--workers", "cpu,cpu,cpu").start()
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.locator("#generate").wait_for()
        page.get_by_role("button", name="Let cpu-3 run no jobs after the current one").click()
        page.locator("#workers .rt-worker[data-worker='cpu-3']", has_text="runs no jobs").wait_for()
        queue = Queue(root)
        queue.clear_finished()
        for id, prompt in ((LONG, PROMPTS[4][1]), ("nano_neon", PROMPTS[1][1]), (LONG, PROMPTS[0][1])):
            queue.add(id, {"prompt": prompt, "seed": 7, "num_inference_steps": 1000, "video_length": 17})
        for number in (1, 2):
            page.locator(f"#workers .rt-worker[data-worker='cpu-{number}']", has_text="runs job").wait_for()
        page.locator("#now", has_text=re.compile(r"step \d{2,} of 1000")).wait_for()
        page.locator("#workers").scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        shoot(page, folder, "workers-light")
        page.locator("#rt-theme").click()
        page.wait_for_timeout(1500)
        shoot(page, folder, "workers-dark")
    finally:
        server.stop()


def publishing(browser: Any, root: Path, folder: Path) -> None:
    """The plan of a publication, on a server that speaks the Hub's API."""
    hub = Hub()
    os.environ |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    glow(root)
    command(root, "generate", "glow", PROMPTS[4][1], "--seed", "7")
    server = Server(root, offline=False).start()
    try:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        page.goto(server.url)
        page.get_by_role("tab", name="Create").click()
        describe_publication(page, "apache-2.0")
        page.locator("#publish-plan").click()
        page.locator("#publish-files li", has_text="glow_bf16.safetensors").wait_for()
        page.locator("#publish-repo").evaluate("field => window.scrollTo(0, field.offsetTop)")
        page.wait_for_timeout(1500)
        shoot(page, folder, "publish-light", clip={"x": 744, "y": 24, "width": 504, "height": 800})
    finally:
        server.stop()
        hub.close()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "docs" / "screens"
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        root = Path(temporary) / "videos"
        prepare(root)
        server = Server(root).start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            queue = Queue(root)
            for id, prompt in PROMPTS:
                queue.add(id, {"prompt": prompt, "seed": 7})
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.set_default_timeout(120_000)
            page.goto(server.url)
            page.wait_for_function(f"() => document.querySelectorAll('.rt-done').length === {len(PROMPTS)}")
            page.reload()
            page.locator("#generate").wait_for()
            tour(page, folder, "light")
            page.locator("#rt-theme").click()
            tour(page, folder, "dark")
            phone = browser.new_page(viewport={"width": 400, "height": 860})
            phone.set_default_timeout(120_000)
            phone.goto(server.url)
            phone.locator("#generate").wait_for()
            tour(phone, folder, "narrow")
            queue.clear_finished()
            queue.add(LONG, {"prompt": "a red circle moves right on a black background", "seed": 7})
            for id, prompt in PROMPTS[:3]:
                queue.add(id, {"prompt": prompt})
            progress(phone, folder, "narrow")
            progress(page, folder, "dark")
            page.locator("#rt-theme").click()
            progress(page, folder, "light")
            server.stop()
            workers(browser, root, folder)
            publishing(browser, Path(temporary) / "own", folder)
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
