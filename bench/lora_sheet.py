"""The pictures of nano's LoRAs in the README: the neon look at three weights, and turbo beside 20 steps.

python bench/lora_sheet.py          writes neon-lora.png and turbo-lora.png into docs/images/ and prints the times
"""

from __future__ import annotations

import statistics
import time
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from nano_sheet import IMAGES, PROMPTS, strip
from reeltune import Engine, load_catalog
from reeltune.profiles import apply_profile, profiles_of

_NEON = "nano_neon_lora_r32_bf16.safetensors"
_CHOSEN = (0, 1, 3, 4)  # of the prompts


def column(engine: Engine, settings: dict[str, object]) -> tuple[list[np.ndarray], float]:
    """The videos of the chosen prompts with the same seeds, and the median seconds of one."""
    engine.generate(prompt="x", seed=0, **settings)  # load first
    videos, seconds = [], []
    for number in _CHOSEN:
        start = time.perf_counter()
        videos.append(engine.generate(prompt=PROMPTS[number], seed=7 + number, **settings).frames)
        seconds.append(time.perf_counter() - start)
    return videos, statistics.median(seconds)


def sheet(columns: list[list[np.ndarray]]) -> Image.Image:
    """Columns of videos side by side, three frames of each."""
    rows = zip(*columns, strict=True)
    return Image.fromarray(np.concatenate([np.concatenate([strip(video, 3) for video in row], 1) for row in rows]))


def main() -> None:
    """Make both pictures."""
    with TemporaryDirectory() as root:
        definition = load_catalog(root)["nano_t2v"]
        with Engine(definition) as engine:
            weights = ("0", "0.5", "1")
            neon = [column(engine, {"activated_loras": [_NEON], "loras_multipliers": weight})[0] for weight in weights]
            sheet(neon).save(IMAGES / "neon-lora.png", optimize=True)
            guided, slow = column(engine, {})
            plain, _ = column(engine, {"num_inference_steps": 4, "guidance_scale": 1.0})
            turbo, fast = column(engine, dict(apply_profile({}, profiles_of(definition).named("turbo"))))
            sheet([guided, plain, turbo]).save(IMAGES / "turbo-lora.png", optimize=True)
    print(f"20 steps with guidance: {slow:.2f} s; 4 steps with turbo: {fast:.2f} s ({slow / fast:.1f} times as fast)")


if __name__ == "__main__":
    main()
