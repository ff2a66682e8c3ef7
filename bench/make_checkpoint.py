"""Write a synthetic Wan 2.1 T2V 1.3B checkpoint: random bf16 weights at the true names and shapes, 2.84 GB.

python bench/make_checkpoint.py /tmp/wan_1.3B_bf16.safetensors
python bench/make_checkpoint.py /tmp/tiny_bf16.safetensors --layers 2
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np

DIM, FFN, TEXT, FREQ, LAYERS = 1536, 8960, 4096, 256, 30
_CHUNK = 8 * 1024 * 1024  # values


def shapes(layers: int) -> dict[str, list[int]]:
    """Names and shapes of the published 1.3B checkpoint, with `layers` blocks."""
    rows: dict[str, list[int]] = {"patch_embedding.weight": [DIM, 16, 1, 2, 2], "patch_embedding.bias": [DIM]}
    for name, out, into in (
        ("text_embedding.0", DIM, TEXT), ("text_embedding.2", DIM, DIM), ("time_embedding.0", DIM, FREQ),
        ("time_embedding.2", DIM, DIM), ("time_projection.1", 6 * DIM, DIM), ("head.head", 64, DIM),
    ):  # fmt: skip
        rows |= {f"{name}.weight": [out, into], f"{name}.bias": [out]}
    rows["head.modulation"] = [1, 2, DIM]
    for index in range(layers):
        block = f"blocks.{index}"
        rows |= {f"{block}.modulation": [1, 6, DIM], f"{block}.norm3.weight": [DIM], f"{block}.norm3.bias": [DIM]}
        for attention in ("self_attn", "cross_attn"):
            for layer in "qkvo":
                rows |= {f"{block}.{attention}.{layer}.weight": [DIM, DIM], f"{block}.{attention}.{layer}.bias": [DIM]}
            rows |= {f"{block}.{attention}.norm_{layer}.weight": [DIM] for layer in "qk"}
        rows |= {f"{block}.ffn.0.weight": [FFN, DIM], f"{block}.ffn.0.bias": [FFN]}
        rows |= {f"{block}.ffn.2.weight": [DIM, FFN], f"{block}.ffn.2.bias": [DIM]}
    return rows


def write(path: Path, layers: int = LAYERS) -> None:
    """Write the file in small chunks; seeded, so that two runs are equal."""
    header, offset = {}, 0
    for name, shape in shapes(layers).items():
        length = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    rng = np.random.default_rng(0)
    block = (rng.standard_normal(_CHUNK, dtype=np.float32) * 0.02).view(np.uint32) >> 16
    data = block.astype(np.uint16).tobytes()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for start in range(0, offset, len(data)):
            file.write(data[: min(len(data), offset - start)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--layers", type=int, default=LAYERS)
    options = parser.parse_args()
    write(options.path, options.layers)
    print(f"{options.path}: {options.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
