"""Merging two 2.84 GB checkpoints to int8: beside `quantize` of one, and beside a plain torch script; peak memory.

    python bench/merge.py [--folder DIR] [--repeats 3] [--only ties]

Each run is a process of its own, and the programs take turns; medians are printed as a Markdown table. The files are
made by `make_checkpoint.py` (3 × 2.84 GB) and removed afterwards. They are read once before each run, so that all read
from the page cache, as far as it holds them. The plain script loads both models whole, merges them in fp32, quantizes
with optimum-quanto's formula and saves; it syncs, hashes and verifies nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from make_checkpoint import SIZES, Size, write
from quantize import median, run, warm

QUANTIZE = """
from reeltune.weights.quantize import quantize
import diffusers; diffusers.WanTransformer3DModel
start = ready()
seconds = dict(quantize(path, out).seconds)
"""
MERGE = """
from reeltune.weights.merging import Ingredient, merge
import diffusers; diffusers.WanTransformer3DModel
second, base = (Path(name) for name, _ in loras)
start = ready()
models = [Ingredient(path, 0.6), Ingredient(second, 0.4)]
made = merge(models, out, method="{method}", base=base if {needs_base} else None, to="{to}")
seconds = dict(made.seconds)
"""
PLAIN = """
import torch
from safetensors.torch import load_file, save_file
from reeltune.checkpoints.keys import matches
from reeltune.families.wan import WAN
second = Path(loras[0][0])
start = ready()
first, second = load_file(path), load_file(second)
merged = {}
for name, row in first.items():
    merged[name] = 0.6 * row.float() + 0.4 * second[name].float()
state = {}
for name, row in merged.items():
    module = name.removesuffix(".weight")
    if name.endswith(".weight") and any(matches(module, pattern) for pattern in WAN.quantizable):
        scale = (row.abs().amax(1, keepdim=True) / 127).bfloat16()
        state[f"{name}._scale"] = scale
        state[f"{name}._data"] = (row / scale.float()).round().clamp(-128, 127).to(torch.int8)
    else:
        state[name] = row.bfloat16()
save_file(state, out)
seconds = {}
"""
EXTRACT = """
from reeltune.weights.extracting import extract_lora
import diffusers; diffusers.WanTransformer3DModel
base = Path(loras[1][0])
start = ready()
extract_lora(path, base, out, rank=32)
seconds = {}
"""
NEEDS_BASE = ("add-difference", "ties")


def rows() -> dict[str, str]:
    """A label and a program for each row of the table."""
    table = {"reeltune quantize, one model to int8": QUANTIZE}
    for method in ("weighted", "add-difference", "slerp", "ties"):
        body = MERGE.format(method=method, needs_base=method in NEEDS_BASE, to="int8")
        table[f"reeltune merge, {method}, to int8"] = body
    table["reeltune merge, weighted, to bf16"] = MERGE.format(method="weighted", needs_base=False, to="bf16")
    table["plain torch, weighted, to int8"] = PLAIN
    table["reeltune extract-lora, rank 32"] = EXTRACT
    return table


def nudged(source: Path, target: Path, seed: int) -> None:
    """A finetune of a checkpoint: each bf16 value with up to 15 of its lowest bits' steps added, seeded."""
    with source.open("rb") as file, target.open("wb") as output:
        length = int.from_bytes(file.read(8), "little")
        output.write(length.to_bytes(8, "little") + file.read(length))
        rng = np.random.default_rng(seed)
        noise = rng.integers(0, 16, 1 << 22, dtype=np.uint16)
        while chunk := file.read(1 << 23):
            values = np.frombuffer(chunk, np.uint16)
            output.write((values + noise[: len(values)]).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="only rows whose label contains this")
    parser.add_argument("--tiny", action="store_true", help="files of a few megabytes, to try the script")
    options = parser.parse_args()
    table = {label: body for label, body in rows().items() if not options.only or any(o in label for o in options.only)}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        files = [folder / f"{label}_bf16.safetensors" for label in ("base", "first", "second")]
        write(files[0], Size(256, 512, 2) if options.tiny else SIZES["1.3B"])
        for seed, file in enumerate(files[1:]):
            nudged(files[0], file, seed)
        base, first, second = files
        results: dict[str, list[dict]] = {label: [] for label in table}
        for _ in range(options.repeats):
            for label, body in table.items():
                for file in files:
                    warm(file)
                out = folder / "out.safetensors"
                results[label].append(run(body, first, out, second, base))
                out.unlink()
                seconds = results[label][-1]["seconds"]
                print(f"{label}: {seconds:.1f} s", file=sys.stderr, flush=True)
    print("| | seconds | times quantize | peak RSS, GB |\n|---|---|---|---|")
    quantized = next(
        (median(found, "seconds") for label, found in results.items() if "quantize" in label), float("nan")
    )
    for label, found in results.items():
        seconds = median(found, "seconds")
        if "quantize" in label:
            quantized = seconds
        print(f"| {label} | {seconds:.2f} | {seconds / quantized:.1f} | {median(found, 'peak') / 1e9:.2f} |")


if __name__ == "__main__":
    main()
