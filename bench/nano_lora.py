"""What nano's LoRAs do: 4 steps with turbo against 20 with guidance, and the neon look at three weights.

    python bench/nano_lora.py [--prompts 96] [--threads 2] [--only turbo]

Prints a Markdown table for each LoRA, read out of the frames as nano_adherence.py does, with its prompts and seeds. The
LoRAs are merged into files in a temporary folder first. "filling" is how strongly the silhouettes are painted, 1 for
solid shapes; the PSNR is that of the frames to those of the first row.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from nano_adherence import SEED, WHAT, percent, right, scenes
from nano_reading import read
from reeltune import Engine, Preferences, load_catalog
from reeltune.weights.quantize import quantize
from world import prompt

_PACKAGE = Path(str(resources.files("reeltune"))) / "nano"
_FEW: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 1.0, "sample_solver": "euler"}
ROWS: dict[str, tuple[tuple[str, float | None, str, dict[str, Any]], ...]] = {  # label, weight, look, settings
    "turbo": (
        ("20 steps, guidance 3", 0.0, "solid", {}),
        ("20 steps, no guidance", 0.0, "solid", {"guidance_scale": 1.0}),
        ("4 steps, guidance 3, euler", 0.0, "solid", {**_FEW, "guidance_scale": 3.0}),
        ("4 steps, no guidance, euler", 0.0, "solid", _FEW),
        ("4 steps, no guidance, unipc", 0.0, "solid", {**_FEW, "sample_solver": "unipc"}),
        ("4 steps, turbo, euler", 1.0, "solid", _FEW),
        ("4 steps, turbo, unipc", 1.0, "solid", {**_FEW, "sample_solver": "unipc"}),
        ("3 steps, no guidance, euler", 0.0, "solid", {**_FEW, "num_inference_steps": 3}),
        ("3 steps, turbo, euler", 1.0, "solid", {**_FEW, "num_inference_steps": 3}),
        ("8 steps, turbo, euler", 1.0, "solid", {**_FEW, "num_inference_steps": 8}),
    ),
    "neon": (
        ("nano_neon itself", None, "neon", {}),
        ("weight 0", 0.0, "solid", {}),
        ("weight 0.5", 0.5, "neon", {}),
        ("weight 1", 1.0, "neon", {}),
    ),
}


def merged(root: Path, name: str, weight: float | None) -> str:
    """The id of nano_t2v with a LoRA of the package merged into it, defined in `root`; the finetune for no weight."""
    if weight is None:
        return f"nano_{name}"
    if not weight:
        return "nano_t2v"
    (lora,) = _PACKAGE.glob(f"nano_{name}_lora_*.safetensors")
    for folder in ("ckpts", "finetunes"):
        (root / folder).mkdir()
    quantize(_PACKAGE / "nano_t2v_bf16.safetensors", root / "ckpts" / "merged.safetensors", to="bf16",
             loras=[(lora, weight)])  # fmt: skip
    model = {"name": "Merged", "architecture": "t2v_1.3B", "URLs": ["ckpts/merged.safetensors"],
             "components": "reeltune/nano"}  # fmt: skip
    settings = {"resolution": "64x64", "video_length": 17, "num_inference_steps": 20, "guidance_scale": 3.0,
                "flow_shift": 3.0}  # fmt: skip
    (root / "finetunes" / "merged.json").write_text(json.dumps({"model": model, **settings}))
    return "merged"


def decibels(frames: np.ndarray, others: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-3, np.square(frames.astype(float) - others).mean())))


def measure(name: str, prompts: int) -> None:
    print(f"\n| {name} | " + " | ".join(WHAT) + " | all but look | filling | PSNR | s a video |")
    print("|---|" + "---|" * (len(WHAT) + 4))
    wanted, first = scenes(prompts), []
    for label, weight, look, settings in ROWS[name]:
        found, videos, seconds = [], [], []
        with TemporaryDirectory() as folder:
            id = merged(Path(folder), name, weight)
            with Engine(load_catalog(folder)[id], preferences=Preferences(quantization="bf16")) as engine:
                for number, scene in enumerate(wanted):
                    start = time.perf_counter()
                    text = prompt(scene, random.Random(SEED + number))
                    videos.append(engine.generate(prompt=text, seed=SEED + number, **settings).frames)
                    seconds.append(time.perf_counter() - start)
                    found.append((scene, look, read(videos[-1])))
        first = first or videos
        cells = [percent(right(*row, what) for row in found) for what in WHAT]
        cells += [percent(all(right(*row, what) for what in WHAT[:-1]) for row in found),
                  f"{statistics.mean(reading.filling for _, _, reading in found):.2f}",
                  "–" if first is videos else f"{statistics.mean(map(decibels, videos, first)):.1f}",
                  f"{statistics.median(seconds):.2f}"]  # fmt: skip
        print(f"| {label} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=ROWS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in [options.only] if options.only else ROWS:
        measure(name, options.prompts)


if __name__ == "__main__":
    main()
