"""Write a synthetic Wan 2.1 T2V checkpoint: random bf16 weights at the true names and shapes (1.3B or 14B).

python bench/make_checkpoint.py /tmp/wan_1.3B_bf16.safetensors
python bench/make_checkpoint.py /tmp/tiny_bf16.safetensors --layers 2
"""

from __future__ import annotations

import argparse
import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

TEXT, FREQ = 4096, 256
_CHUNK = 8 * 1024 * 1024  # values


@dataclass(frozen=True)
class Size:
    """A model's width, its feed-forward layers' width, and its number of blocks; heads are 128 wide."""

    dim: int = 1536
    ffn: int = 8960
    layers: int = 30


SIZES = {"tiny": Size(256, 512, 2), "1.3B": Size(), "14B": Size(5120, 13824, 40)}


def shapes(size: Size) -> dict[str, list[int]]:
    """Names and shapes of a published checkpoint of that size."""
    dim, ffn = size.dim, size.ffn
    rows: dict[str, list[int]] = {"patch_embedding.weight": [dim, 16, 1, 2, 2], "patch_embedding.bias": [dim]}
    for name, out, into in (
        ("text_embedding.0", dim, TEXT), ("text_embedding.2", dim, dim), ("time_embedding.0", dim, FREQ),
        ("time_embedding.2", dim, dim), ("time_projection.1", 6 * dim, dim), ("head.head", 64, dim),
    ):  # fmt: skip
        rows |= {f"{name}.weight": [out, into], f"{name}.bias": [out]}
    rows["head.modulation"] = [1, 2, dim]
    for index in range(size.layers):
        block = f"blocks.{index}"
        rows |= {f"{block}.modulation": [1, 6, dim], f"{block}.norm3.weight": [dim], f"{block}.norm3.bias": [dim]}
        for attention in ("self_attn", "cross_attn"):
            for layer in "qkvo":
                rows |= {f"{block}.{attention}.{layer}.weight": [dim, dim], f"{block}.{attention}.{layer}.bias": [dim]}
            rows |= {f"{block}.{attention}.norm_{layer}.weight": [dim] for layer in "qk"}
        rows |= {f"{block}.ffn.0.weight": [ffn, dim], f"{block}.ffn.0.bias": [ffn]}
        rows |= {f"{block}.ffn.2.weight": [dim, ffn], f"{block}.ffn.2.bias": [dim]}
    return rows


def write(path: Path, size: Size = SIZES["1.3B"]) -> None:
    """Write the file in small chunks; seeded, so that two runs are equal."""
    header, offset = {}, 0
    for name, shape in shapes(size).items():
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
    parser.add_argument("--size", choices=SIZES, default="1.3B")
    parser.add_argument("--layers", type=int, help="another number of blocks")
    options = parser.parse_args()
    size = SIZES[options.size]
    write(options.path, replace(size, layers=options.layers or size.layers))
    print(f"{options.path}: {options.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
