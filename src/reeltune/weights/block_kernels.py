"""GGUF's blocks decoded by numba: one pass over the bytes, no other memory, no lock held.

Each kernel fills `numbers` fp32 [blocks, values] from `blocks` uint8 [blocks, bytes], and returns whether all scales
were finite. The order of the operations is that of `formats.gguf_blocks`, so both give the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from reeltune.checkpoints.gguf_types import IQ4_LEVELS
from reeltune.weights.kernels import jitted

_POWERS = np.array([2.0**-24, *(2.0 ** (exponent - 25) for exponent in range(1, 31)), np.inf], dtype=np.float32)
_LEVELS = np.array(IQ4_LEVELS, dtype=np.float32)


@jitted
def _fp16(low: Any, high: Any) -> Any:
    """An fp16 number, given by its two bytes, as fp32."""
    bits = np.int32(low) | (np.int32(high) << 8)
    exponent, mantissa = (bits >> 10) & 31, bits & 1023
    if exponent:
        mantissa |= 1024
    number = np.float32(np.int32(mantissa)) * _POWERS[exponent]
    if exponent == 31 and mantissa != 1024:
        number = np.float32(np.nan)
    return -number if bits & 0x8000 else number


@jitted
def _q8_0(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[0], block[1])
        sound &= np.isfinite(scale)
        for column in range(32):
            row[column] = np.float32(np.int32(np.int8(block[2 + column]))) * scale
    return sound


@jitted
def _q4_0(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[0], block[1])
        sound &= np.isfinite(scale)
        for column in range(16):
            packed = np.int32(block[2 + column])
            row[column] = scale * np.float32(np.int32((packed & 15) - 8))
            row[16 + column] = scale * np.float32(np.int32((packed >> 4) - 8))
    return sound


@jitted
def _q4_1(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, least = _fp16(block[0], block[1]), _fp16(block[2], block[3])
        sound &= np.isfinite(scale) and np.isfinite(least)
        for column in range(16):
            packed = np.int32(block[4 + column])
            row[column] = scale * np.float32(np.int32(packed & 15)) + least
            row[16 + column] = scale * np.float32(np.int32(packed >> 4)) + least
    return sound


@jitted
def _fifth_bits(block: Any, first: int) -> Any:
    """The 32 highest bits of a block, the first value's lowest."""
    bits = np.uint32(0)
    for byte in range(4):
        bits |= np.uint32(block[first + byte]) << np.uint32(8 * byte)
    return bits


@jitted
def _q5_0(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, fifth = _fp16(block[0], block[1]), _fifth_bits(block, 2)
        sound &= np.isfinite(scale)
        for column in range(16):
            packed = np.int32(block[6 + column])
            low = np.int32((fifth >> np.uint32(column)) & np.uint32(1)) << 4
            high = np.int32((fifth >> np.uint32(16 + column)) & np.uint32(1)) << 4
            row[column] = scale * np.float32(np.int32(((packed & 15) | low) - 16))
            row[16 + column] = scale * np.float32(np.int32(((packed >> 4) | high) - 16))
    return sound


@jitted
def _q5_1(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, least, fifth = _fp16(block[0], block[1]), _fp16(block[2], block[3]), _fifth_bits(block, 4)
        sound &= np.isfinite(scale) and np.isfinite(least)
        for column in range(16):
            packed = np.int32(block[8 + column])
            low = np.int32((fifth >> np.uint32(column)) & np.uint32(1)) << 4
            high = np.int32((fifth >> np.uint32(16 + column)) & np.uint32(1)) << 4
            row[column] = scale * np.float32(np.int32((packed & 15) | low)) + least
            row[16 + column] = scale * np.float32(np.int32((packed >> 4) | high)) + least
    return sound


@jitted
def _iq4_nl(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[0], block[1])
        sound &= np.isfinite(scale)
        for column in range(16):
            packed = np.int32(block[2 + column])
            row[column] = scale * _LEVELS[packed & 15]
            row[16 + column] = scale * _LEVELS[packed >> 4]
    return sound


@jitted
def _iq4_xs(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[0], block[1])
        sound &= np.isfinite(scale)
        for group in range(8):
            low = (np.int32(block[4 + group // 2]) >> (4 * (group % 2))) & 15
            high = (np.int32(block[2 + group // 4]) >> (2 * (group % 4))) & 3
            step = scale * np.float32(np.int32((low | (high << 4)) - 32))
            for column in range(16):
                packed = np.int32(block[8 + 16 * group + column])
                row[32 * group + column] = step * _LEVELS[packed & 15]
                row[32 * group + 16 + column] = step * _LEVELS[packed >> 4]
    return sound


@jitted
def _q2_k(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, least = _fp16(block[80], block[81]), _fp16(block[82], block[83])
        sound &= np.isfinite(scale) and np.isfinite(least)
        for group in range(16):
            packed_scale = np.int32(block[group])
            step = scale * np.float32(np.int32(packed_scale & 15))
            offset = least * np.float32(np.int32(packed_scale >> 4))
            first = 16 + 32 * (group // 8) + 16 * (group % 2)
            shift = np.int32(2 * (group // 2 % 4))
            for column in range(16):
                level = np.int32((np.int32(block[first + column]) >> shift) & 3)
                row[16 * group + column] = step * np.float32(level) - offset
    return sound


@jitted
def _q3_k(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[108], block[109])
        sound &= np.isfinite(scale)
        for group in range(16):
            low = (np.int32(block[96 + group % 8]) >> (4 * (group // 8))) & 15
            high = (np.int32(block[104 + group % 4]) >> (2 * (group // 4))) & 3
            step = scale * np.float32(np.int32((low | (high << 4)) - 32))
            first, half = 32 + 32 * (group // 8) + 16 * (group % 2), 16 * (group % 2)
            shift, bit = np.int32(2 * (group // 2 % 4)), np.int32(group // 2)
            for column in range(16):
                level = (np.int32(block[first + column]) >> shift) & 3
                lowered = ((np.int32(block[half + column]) >> bit) & 1) ^ 1
                row[16 * group + column] = step * np.float32(np.int32(level - (lowered << 2)))
    return sound


@jitted
def _six_bits(block: Any, first: int, group: int) -> Any:
    """The scale and the offset of one of 8 groups, 6 bits each, packed into 12 bytes."""
    if group < 4:
        return np.int32(block[first + group]) & 63, np.int32(block[first + 4 + group]) & 63
    packed = np.int32(block[first + 4 + group])
    scale = (packed & 15) | ((np.int32(block[first + group - 4]) >> 6) << 4)
    offset = (packed >> 4) | ((np.int32(block[first + group]) >> 6) << 4)
    return scale, offset


@jitted
def _q4_k(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, least = _fp16(block[0], block[1]), _fp16(block[2], block[3])
        sound &= np.isfinite(scale) and np.isfinite(least)
        for group in range(8):
            packed_scale, packed_offset = _six_bits(block, 4, group)
            step = scale * np.float32(np.int32(packed_scale))
            offset = least * np.float32(np.int32(packed_offset))
            first, shift = 16 + 32 * (group // 2), np.int32(4 * (group % 2))
            for column in range(32):
                level = np.int32((np.int32(block[first + column]) >> shift) & 15)
                row[32 * group + column] = step * np.float32(level) - offset
    return sound


@jitted
def _q5_k(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale, least = _fp16(block[0], block[1]), _fp16(block[2], block[3])
        sound &= np.isfinite(scale) and np.isfinite(least)
        for group in range(8):
            packed_scale, packed_offset = _six_bits(block, 4, group)
            step = scale * np.float32(np.int32(packed_scale))
            offset = least * np.float32(np.int32(packed_offset))
            first, shift, bit = 48 + 32 * (group // 2), np.int32(4 * (group % 2)), np.int32(group)
            for column in range(32):
                level = (np.int32(block[first + column]) >> shift) & 15
                fifth = (np.int32(block[16 + column]) >> bit) & 1
                row[32 * group + column] = step * np.float32(np.int32(level | (fifth << 4))) - offset
    return sound


@jitted
def _q6_k(blocks: Any, numbers: Any) -> bool:
    sound = True
    for index in range(blocks.shape[0]):
        block, row = blocks[index], numbers[index]
        scale = _fp16(block[208], block[209])
        sound &= np.isfinite(scale)
        for group in range(16):
            step = scale * np.float32(np.int32(np.int8(block[192 + group])))
            part, half = group // 2, 16 * (group % 2)  # parts of 32 values
            first = 64 * (part // 4) + 32 * (part % 2) + half
            shift = np.int32(4 * (part // 2 % 2))
            second = 128 + 32 * (part // 4) + half
            second_shift = np.int32(2 * (part % 4))
            for column in range(16):
                low = (np.int32(block[first + column]) >> shift) & 15
                high = (np.int32(block[second + column]) >> second_shift) & 3
                row[16 * group + column] = step * np.float32(np.int32((low | (high << 4)) - 32))
    return sound


KERNELS: Mapping[str, Any] = MappingProxyType(
    {
        "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "IQ4_NL": _iq4_nl,
        "IQ4_XS": _iq4_xs, "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    }
)  # fmt: skip
