"""The types of tensors in GGUF files: their numbers, and what a block of each takes.

A tensor is stored as blocks: a fixed number of consecutive values, with the scales that they share. Numbers and sizes
are those of ggml (github.com/ggml-org/ggml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class BlockType:
    """One type of tensors. `values`: how many a block holds; `bytes`: what it takes."""

    name: str
    values: int
    bytes: int


TYPES: Mapping[int, BlockType] = MappingProxyType(
    {
        0: BlockType("F32", 1, 4), 1: BlockType("F16", 1, 2), 30: BlockType("BF16", 1, 2), 28: BlockType("F64", 1, 8),
        24: BlockType("I8", 1, 1), 25: BlockType("I16", 1, 2), 26: BlockType("I32", 1, 4), 27: BlockType("I64", 1, 8),
        2: BlockType("Q4_0", 32, 18), 3: BlockType("Q4_1", 32, 20), 6: BlockType("Q5_0", 32, 22),
        7: BlockType("Q5_1", 32, 24), 8: BlockType("Q8_0", 32, 34), 20: BlockType("IQ4_NL", 32, 18),
        10: BlockType("Q2_K", 256, 84), 11: BlockType("Q3_K", 256, 110), 12: BlockType("Q4_K", 256, 144),
        13: BlockType("Q5_K", 256, 176), 14: BlockType("Q6_K", 256, 210), 23: BlockType("IQ4_XS", 256, 136),
        9: BlockType("Q8_1", 32, 40), 15: BlockType("Q8_K", 256, 292), 16: BlockType("IQ2_XXS", 256, 66),
        17: BlockType("IQ2_XS", 256, 74), 18: BlockType("IQ3_XXS", 256, 98), 19: BlockType("IQ1_S", 256, 50),
        21: BlockType("IQ3_S", 256, 110), 22: BlockType("IQ2_S", 256, 82), 29: BlockType("IQ1_M", 256, 56),
        34: BlockType("TQ1_0", 256, 54), 35: BlockType("TQ2_0", 256, 66), 39: BlockType("MXFP4", 32, 17),
        40: BlockType("NVFP4", 64, 36), 41: BlockType("Q1_0", 128, 18),
    }
)  # fmt: skip
DECODED = (
    "Q8_0", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q5_0", "Q4_1", "Q5_1", "Q3_K", "Q2_K", "IQ4_XS", "IQ4_NL",
)  # fmt: skip
BLOCK_TYPES: Mapping[str, BlockType] = MappingProxyType(
    {block_type.name: block_type for block_type in TYPES.values() if block_type.values > 1}
)
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # of IQ4_NL and IQ4_XS
