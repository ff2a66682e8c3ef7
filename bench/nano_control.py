"""Does nano follow what it is given? A control video (Vace) whose path it must keep, an image it must start from.

    python bench/nano_control.py [--clips 48]

Prints Markdown tables: for nano_vace the share of frames whose shape lies within 6 pixels of the control's, for
nano_i2v the PSNR of the first frame to the image given, each with what else was read right. Scenes, paths and seeds are
fresh. Control videos and images go through files, as a user gives them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from nano_adherence import percent, right
from nano_reading import centres, read
from reeltune import Engine, Preferences, load_catalog
from reeltune.media.mp4 import write_mp4
from world import Scene, prompt, render, sample_scene, silhouette, wander

SEED = 90_000  # no training step is seeded with such numbers
_NEAR = 6.0  # pixels
Given = Callable[[Path, int], tuple[Scene, np.ndarray, dict[str, Any]]]


def control(folder: Path, number: int) -> tuple[Scene, np.ndarray, dict[str, Any]]:
    """A scene, the control video's frames, and the settings that give it."""
    from control import said

    rng = random.Random(SEED + number)
    scene = sample_scene(rng, training=False)
    path = wander(rng, scene.radius)
    frames, file = silhouette(scene, path), folder / f"{number}.mp4"
    write_mp4(file, frames, 16, {})
    return said(scene, path), frames, {"video_guide": str(file), "video_prompt_type": "V"}


def image(folder: Path, number: int) -> tuple[Scene, np.ndarray, dict[str, Any]]:
    """A scene, its first frame, and the settings that give it."""
    scene = sample_scene(random.Random(SEED + number), training=False)
    frame, file = render(scene)[0], folder / f"{number}.png"
    Image.fromarray(frame).save(file)
    return scene, frame, {"image_start": str(file), "image_prompt_type": "S"}


def decibels(one: np.ndarray, two: np.ndarray) -> float:
    error = np.square(one.astype(np.float64) - two.astype(np.float64)).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def run(id: str, quantization: str, clips: int, give: Given) -> list[tuple[Scene, np.ndarray, np.ndarray]]:
    """What each scene is, what was given, and the frames made of it."""
    found = []
    with TemporaryDirectory() as root:
        definition = load_catalog(root)[id]
        with Engine(definition, preferences=Preferences(quantization=quantization)) as engine:
            for number in range(clips):
                scene, given, settings = give(Path(root), number)
                text = prompt(scene, random.Random(SEED + number))
                video = engine.generate(prompt=text, seed=SEED + number, **settings)
                found.append((scene, given, video.frames))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=48)
    options = parser.parse_args()
    print(f"| nano_vace | frames within {_NEAR:g} px | mean distance, px | colour | shape | background |")
    print("|---|---|---|---|---|---|")
    for quantization in ("bf16", "int8"):
        found = run("nano_vace", quantization, options.clips, control)
        away = np.concatenate([np.hypot(*(centres(frames) - centres(given)).T) for _, given, frames in found])
        words = [percent(right(scene, "solid", read(frames), what) for scene, _, frames in found)
                 for what in ("colour", "shape", "background")]  # fmt: skip
        near = percent(bool(row <= _NEAR) for row in away)
        print(f"| {quantization} | {near} | {np.nanmean(away):.1f} | {' | '.join(words)} |", flush=True)
    print("\n| nano_i2v | PSNR of the first frame, dB | at worst | colour | direction | background |")
    print("|---|---|---|---|---|---|")
    for quantization in ("bf16", "int8"):
        found = run("nano_i2v", quantization, options.clips, image)
        close = [decibels(frames[0], given) for _, given, frames in found]
        words = [percent(right(scene, "solid", read(frames), what) for scene, _, frames in found)
                 for what in ("colour", "direction", "background")]  # fmt: skip
        print(f"| {quantization} | {np.mean(close):.1f} | {min(close):.1f} | {' | '.join(words)} |", flush=True)


if __name__ == "__main__":
    main()
