"""The page with 200 definitions and 1,000 videos beside an empty one: start, load, and its slowest requests.

python bench/page.py [--definitions 200] [--videos 1000]      (needs Chromium: apt-get install chromium)
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

from reeltune.media.mp4 import write_mp4

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Server

LOADS = 5


def fill(root: Path, definitions: int, videos: int) -> None:
    folder = root / "finetunes"
    folder.mkdir(parents=True)
    for number in range(definitions):
        url = f"https://example.org/{number}_bf16.safetensors"
        model = {"name": f"Finetune {number:03d}", "architecture": "t2v", "description": "One of many.", "URLs": [url]}
        text = json.dumps({"model": model, "seed": number}, indent=4)
        (folder / f"t2v_many_{number:03d}.json").write_text(text, encoding="utf-8")
    outputs = root / "outputs"
    outputs.mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), dtype=np.uint8)
    for number in range(videos):
        settings = {"prompt": f"video number {number}", "seed": number, "resolution": "64x64"}
        metadata = {"schema_version": 1, "definition": "nano_t2v", "settings": settings, "files": {}}
        write_mp4(outputs / f"2026-01-01_{number:06d}_nano_t2v_seed_{number}.mp4", frames, 16, metadata)


def measure(browser: Any, root: Path) -> dict[str, Any]:
    server = Server(root)
    begun = time.perf_counter()
    server.start()
    started = time.perf_counter() - begun
    requests: list[tuple[float, str]] = []
    try:
        loads = [_load(browser, server, requests) for _ in range(LOADS)]
    finally:
        server.stop()
    requests.sort(reverse=True)
    return {"start s": started, "load s": statistics.median(loads), "first load s": loads[0], "slowest": requests[:5]}


def _load(browser: Any, server: Server, requests: list[tuple[float, str]]) -> float:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()

    def finished(request: Any) -> None:
        if "queue/data" not in request.url and "heartbeat" not in request.url:  # streams that stay open
            requests.append((request.timing["responseEnd"] / 1000, request.url.removeprefix(server.url)[:90]))

    page.on("requestfinished", finished)
    begun = time.perf_counter()
    page.goto(server.url)
    page.locator("#generate").wait_for()
    taken = time.perf_counter() - begun
    page.get_by_role("tab", name="Gallery").click()
    page.locator("#gallery").wait_for()
    if pages := page.locator("#gallery [data-do=page]").count():
        page.locator("#gallery [data-do=page]").nth(pages - 1).click()
    page.wait_for_timeout(2500)
    context.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--definitions", type=int, default=200)
    parser.add_argument("--videos", type=int, default=1000)
    wanted = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        fill(full, wanted.definitions, wanted.videos)
        for label, root in (("empty", empty), (f"{wanted.definitions} definitions, {wanted.videos} videos", full)):
            found = measure(browser, root)
            first = f"the first {found['first load s']:.2f} s"
            print(f"{label}: up in {found['start s']:.1f} s, page in {found['load s']:.2f} s ({first})")
            for seconds, url in found["slowest"]:
                print(f"    {seconds:.2f} s  {url}")
        browser.close()


if __name__ == "__main__":
    main()
