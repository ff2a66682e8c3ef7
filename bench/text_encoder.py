"""Loading a text encoder of UMT5-XXL's shape (5.7B weights, random) in int8: peak RSS against the int8 size.

    python bench/text_encoder.py [--folder FOLDER] [--repeats 2] [--keep]

The encoder is written once in bf16 (11.4 GB), as the file of a repository in diffusers layout; the same file is read as
ComfyUI's. Each run is a process of its own. The int8 size is that of all weights as they are in memory: one byte for
each value of the linear layers with their scales, two for each other value.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WIDTH, INNER, VOCABULARY, BUCKETS, HEADS = 4096, 10_240, 256_384, 32, 64
LAYERS = 24
CHUNK = 1 << 24
FRAME = """
import json, logging, sys, time, warnings
logging.disable(logging.WARNING); warnings.simplefilter("ignore")
from pathlib import Path
import torch
from reeltune.families import ARCHITECTURES
from reeltune.engine.stages import load_component
component = next(part for part in ARCHITECTURES["t2v"].parts if part.name == "text_encoder")
import transformers; transformers.UMT5EncoderModel
def peak():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
imports = peak()
start = time.perf_counter()
model = load_component(component, Path(sys.argv[1]), torch.bfloat16, quantize={quantize})
seconds, loaded = time.perf_counter() - start, peak()
size = 0
for weight in model.parameters():
    parts = (weight.qdata, weight.scale) if hasattr(weight, "qdata") else (weight,)
    size += sum(part.numel() * part.element_size() for part in parts)
if {embed}:
    start = time.perf_counter()
    with torch.no_grad():
        model(torch.arange(8)[None])
print(json.dumps({{"seconds": seconds, "loaded": loaded, "used": peak(), "imports": imports, "size": size}}))
"""


def shapes(layers: int, vocabulary: int) -> dict[str, list[int]]:
    """Names and shapes of UMT5-XXL's encoder."""
    found = {"shared.weight": [vocabulary, WIDTH], "encoder.final_layer_norm.weight": [WIDTH]}
    for layer in range(layers):
        block = f"encoder.block.{layer}.layer"
        found |= {f"{block}.0.SelfAttention.{letter}.weight": [WIDTH, WIDTH] for letter in "qkvo"}
        found[f"{block}.0.SelfAttention.relative_attention_bias.weight"] = [BUCKETS, HEADS]
        found |= {f"{block}.{part}.layer_norm.weight": [WIDTH] for part in (0, 1)}
        found |= {f"{block}.1.DenseReluDense.{name}.weight": [INNER, WIDTH] for name in ("wi_0", "wi_1")}
        found[f"{block}.1.DenseReluDense.wo.weight"] = [WIDTH, INNER]
    return found


def write(path: Path, layers: int, vocabulary: int) -> None:
    """A file of random bf16 weights, none of which is larger than 2."""
    header, offset = {}, 0
    for name, shape in shapes(layers, vocabulary).items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        values = generator.standard_normal(CHUNK // 2, dtype=np.float32) * 0.02
        chunk = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # repeated: only the shapes are real
        while offset:
            offset -= file.write(chunk[: min(CHUNK, offset)])


def write_folder(folder: Path, layers: int, vocabulary: int) -> None:
    """The encoder as a repository in diffusers layout has it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.safetensors").exists():
        write(folder / "model.safetensors", layers, vocabulary)
    config = {
        "architectures": ["UMT5EncoderModel"], "model_type": "umt5", "d_model": WIDTH, "d_kv": WIDTH // HEADS,
        "d_ff": INNER, "num_layers": layers, "num_heads": HEADS, "vocab_size": vocabulary,
        "relative_attention_num_buckets": BUCKETS, "feed_forward_proj": "gated-gelu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def run(path: Path, *, quantize: bool, embed: bool) -> dict[str, float]:
    """One fresh process."""
    body = FRAME.format(quantize=quantize, embed=embed)
    answer = subprocess.run([sys.executable, "-c", body, str(path)], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "umt5_xxl_bench")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the file of 11.4 GB")
    parser.add_argument("--small", action="store_true", help="two layers and a small vocabulary, to try it out")
    options = parser.parse_args()
    layers, vocabulary = (2, 1000) if options.small else (LAYERS, VOCABULARY)
    write_folder(options.folder, layers, vocabulary)
    file = options.folder / "model.safetensors"
    rows = {
        "int8 while loading, from a folder": (options.folder, True, False),
        "int8 while loading, from a file": (file, True, False),
        "the same, and a prompt embedded": (file, True, True),
        "16 bits, and a prompt embedded": (file, False, True),
    }
    try:
        results: dict[str, list[dict[str, float]]] = {name: [] for name in rows}
        for _ in range(options.repeats):
            for name, (path, quantize, embed) in rows.items():
                results[name].append(run(path, quantize=quantize, embed=embed))
    finally:
        if not options.keep:
            shutil.rmtree(options.folder)
    int8 = results["int8 while loading, from a file"][0]["size"]
    print(f"The int8 size is {int8 / 1e9:.2f} GB.\n")
    print("| | seconds | peak RSS, GB | of it imports, GB | peak / int8 size |\n|---|---|---|---|---|")
    for name, found in results.items():
        seconds, peak, imports = (
            statistics.median(row[key] for row in found) for key in ("seconds", "used", "imports")
        )
        print(f"| {name} | {seconds:.1f} | {peak / 1e9:.2f} | {imports / 1e9:.2f} | {peak / int8:.2f} |")


if __name__ == "__main__":
    main()
