"""What merging does to nano: models halfway between nano and its neon finetune, and that finetune as an extracted LoRA.

    python bench/nano_merge.py [--prompts 96] [--threads 2]

Prints a Markdown table, read out of the frames as nano_adherence.py does, with its prompts and seeds. "look" is the
share of videos that are read as neon; "filling" is how strongly the silhouettes are painted, 1 for solid shapes; the
PSNR is that of the frames to those of nano_neon. The files are written to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from nano_adherence import SEED, WHAT, percent, right, scenes
from nano_lora import decibels
from nano_reading import read
from reeltune import Engine, Preferences, load_catalog
from reeltune.weights.extracting import extract_lora
from reeltune.weights.merging import Ingredient, merge
from world import prompt

_PACKAGE = Path(str(resources.files("reeltune"))) / "nano"
_NANO, _NEON = _PACKAGE / "nano_t2v_bf16.safetensors", _PACKAGE / "nano_neon_bf16.safetensors"
_SETTINGS = {"resolution": "64x64", "video_length": 17, "num_inference_steps": 20, "guidance_scale": 3.0,
             "flow_shift": 3.0}  # fmt: skip


def define(root: Path, urls: list[str] | str, loras: list[str] | None = None) -> str:
    """The id of a new definition."""
    (root / "finetunes").mkdir(exist_ok=True)
    model = {"name": "Made", "architecture": "t2v_1.3B", "URLs": urls, "components": "reeltune/nano",
             "loras": loras or []}  # fmt: skip
    (root / "finetunes" / "made.json").write_text(json.dumps({"model": model, **_SETTINGS}))
    return "made"


def merged(method: str, to: str = "bf16", density: float = 0.2) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        base = _NANO if method == "ties" else None
        models = [Ingredient(_NEON, 1.0)] if method == "ties" else [Ingredient(_NANO, 0.5), Ingredient(_NEON, 0.5)]
        merge(models, root / "ckpts" / "made.safetensors", method=method, base=base, to=to, density=density)
        return define(root, ["ckpts/made.safetensors"])

    return make


def extracted(rank: int) -> Callable[[Path], str]:
    def make(root: Path) -> str:
        made = extract_lora(_NEON, _NANO, root / "loras" / "made.safetensors", rank=rank)
        print(f"Rank {rank}: {100 * made.energy.kept:.1f} % of the energy in {made.bytes / 1e6:.2f} MB.", flush=True)
        return define(root, [str(_NANO)], ["loras/made.safetensors"])

    return make


ROWS: dict[str, Callable[[Path], str]] = {
    "nano_neon": lambda root: "nano_neon",
    "nano_t2v": lambda root: "nano_t2v",
    "halfway, weighted": merged("weighted"),
    "halfway, weighted, int8": merged("weighted", "int8"),
    "halfway, slerp": merged("slerp"),
    "ties, the largest 20 % of neon": merged("ties"),
    "ties, the largest 50 % of neon": merged("ties", density=0.5),
    "neon as a LoRA of rank 16": extracted(16),
    "neon as a LoRA of rank 64": extracted(64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    wanted = scenes(options.prompts)
    lines = ["| | " + " | ".join(WHAT) + " | all but look | filling | PSNR to nano_neon |"]
    lines.append("|---|" + "---|" * (len(WHAT) + 3))
    neon: list = []
    for label, make in ROWS.items():
        found, videos = [], []
        with TemporaryDirectory() as folder:
            id = make(Path(folder))
            quantization = "int8" if "int8" in label else "bf16"
            with Engine(load_catalog(folder)[id], preferences=Preferences(quantization=quantization)) as engine:
                for number, scene in enumerate(wanted):
                    text = prompt(scene, random.Random(SEED + number))
                    videos.append(engine.generate(prompt=text, seed=SEED + number).frames)
                    found.append((scene, "neon", read(videos[-1])))
        neon = neon or videos
        cells = [percent(right(*row, what) for row in found) for what in WHAT]
        cells += [percent(all(right(*row, what) for what in WHAT[:-1]) for row in found),
                  f"{statistics.mean(reading.filling for _, _, reading in found):.2f}",
                  "–" if neon is videos else f"{statistics.mean(map(decibels, videos, neon)):.1f}"]  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
