"""Does nano do what its prompts say? 96 prompts, one for each colour, shape and direction, read out of the frames.

    python bench/nano_adherence.py [--prompts 96] [--threads 2]

Prints a Markdown table: what was read right, in percent, for each version. 14 of the 96 combinations were never seen
in training. First comes the reader itself, on clips whose contents are known, and the VAE on fresh clips.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from nano_reading import Reading, read
from reeltune import Engine, Preferences, load_catalog
from reeltune.engine.stages import find, load_component
from world import BACKGROUNDS, COLOURS, DIRECTIONS, LOOKS, SHAPES, Scene, held_out, place, prompt, render, sample_scene

WHAT = ("colour", "shape", "direction", "background", "look")
SEED = 70_000  # no training step is seeded with such numbers
_MARGIN = 0.05  # of the mean filling: true pairs of the two looks differ by 0.11 at least
ROWS = (
    ("nano_t2v, bf16", "nano_t2v", "bf16", {}),
    ("nano_t2v, int8", "nano_t2v", "int8", {}),
    ("nano_neon, bf16", "nano_neon", "bf16", {}),
    ("nano_t2v, bf16, no guidance", "nano_t2v", "bf16", {"guidance_scale": 1.0}),
)


def scenes(count: int) -> list[Scene]:
    """Every combination of colour, shape and direction once, backgrounds in turn."""
    rng = random.Random(SEED)
    combinations = list(itertools.product(COLOURS, SHAPES, DIRECTIONS))
    rng.shuffle(combinations)
    backgrounds = itertools.cycle(BACKGROUNDS)
    return [place(rng, *row, next(backgrounds)) for row in combinations[:count]]


def percent(hits: Iterable[bool]) -> str:
    rows = list(hits)
    return f"{100 * sum(rows) / len(rows):.1f}" if rows else "–"


def right(scene: Scene, look: str, reading: Reading, what: str) -> bool:
    return bool(getattr(reading, what) == (look if what == "look" else getattr(scene, what)))


def check_reader(count: int = 400) -> None:
    rng = random.Random(SEED)
    found = [(scene, look, read(render(scene, look)))
             for scene, look in ((sample_scene(rng, training=False), LOOKS[i % 2]) for i in range(count))]  # fmt: skip
    cells = ", ".join(f"{what} {percent(right(*row, what) for row in found)} %" for what in WHAT)
    print(f"The reader on {count} true clips: {cells}.")


def check_vae(count: int) -> None:
    """PSNR and readings of reconstructions, both looks."""
    nano = load_catalog(".")["nano_t2v"]
    with TemporaryDirectory() as root, Engine(load_catalog(root)["nano_t2v"]) as engine:
        folder = engine.prepare().path("vae")
    vae = load_component(find(nano.architecture, "vae"), folder, torch.float32)
    rng, decibels, found = random.Random(SEED + 1), [], []
    for index in range(count):
        scene, look = sample_scene(rng, training=False), LOOKS[index % 2]
        clip = render(scene, look)
        pixels = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        with torch.inference_mode():
            again = vae.decode(vae.encode(pixels).latent_dist.mean).sample
        decibels.append(10 * np.log10(4 / (again - pixels).square().mean().item()))
        frames = ((again[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()
        found.append((scene, look, read(frames)))
    cells = ", ".join(f"{what} {percent(right(*row, what) for row in found)} %" for what in WHAT)
    print(f"The VAE on {count} fresh clips: {statistics.mean(decibels):.1f} dB on average, "
          f"{min(decibels):.1f} at worst; {cells}.\n")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    check_reader()
    if options.clips:
        check_vae(options.clips)
    print("| version | " + " | ".join(WHAT) + " | seen: all but look | unseen: all but look | s a video |")
    print("|---|" + "---|" * (len(WHAT) + 3))
    wanted, readings = scenes(options.prompts), {}
    unseen = [held_out(scene.colour, scene.shape, scene.direction) for scene in wanted]
    for label, id, quantization, settings in ROWS:
        look, found, seconds = LOOKS["neon" in id], [], []
        with TemporaryDirectory() as root:
            definition = load_catalog(Path(root))[id]
            with Engine(definition, preferences=Preferences(quantization=quantization)) as engine:
                for number, scene in enumerate(wanted):
                    start = time.perf_counter()
                    text = prompt(scene, random.Random(SEED + number))
                    video = engine.generate(prompt=text, seed=SEED + number, **settings)
                    seconds.append(time.perf_counter() - start)
                    found.append((scene, look, read(video.frames)))
        whole = [all(right(*row, what) for what in WHAT[:-1]) for row in found]
        cells = [percent(right(*row, what) for row in found) for what in WHAT]
        cells += [percent(hit for hit, new in zip(whole, unseen, strict=True) if not new),
                  percent(hit for hit, new in zip(whole, unseen, strict=True) if new),
                  f"{statistics.median(seconds):.2f}"]  # fmt: skip
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)
        readings[label] = [reading for _, _, reading in found]
    pairs = list(zip(readings["nano_t2v, bf16"], readings["nano_neon, bf16"], strict=True))
    told = percent(neon.filling < solid.filling for solid, neon in pairs)
    clearly = percent(neon.filling < solid.filling - _MARGIN for solid, neon in pairs)
    print(f"\nOf the pairs of one prompt and seed, the finetune's is the less filled one in {told} %, "
          f"in {clearly} % by more than {_MARGIN}.")  # fmt: skip


if __name__ == "__main__":
    main()
