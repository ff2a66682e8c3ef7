"""GGUF's blocks decoded in plain torch: what `block_kernels` computes, for machines that numba has no build for.

Values of a block are packed in groups of bytes: first the lowest bits of all bytes of a group, then the next ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from reeltune.checkpoints.gguf_types import IQ4_LEVELS

_Decode = Callable[[torch.Tensor], torch.Tensor]  # blocks uint8 [blocks, bytes] -> fp32 [blocks, values]


def decode_blocks(type_name: str, blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    """Fill `numbers` fp32 [blocks, values] from `blocks` uint8 [blocks, bytes] of a type."""
    numbers.copy_(_DECODE[type_name](blocks).view(numbers.shape))


def scales_of(type_name: str, blocks: torch.Tensor) -> torch.Tensor:
    """The fp16 scales and offsets of blocks, fp32 [blocks, 1 or 2]."""
    return torch.cat([_fp16(blocks, place) for place in _SCALE_PLACES[type_name]], dim=1)


def _fp16(blocks: torch.Tensor, place: int) -> torch.Tensor:
    """The fp16 number at a byte of each block, as fp32 [blocks, 1]."""
    numbers: torch.Tensor = blocks[:, place : place + 2].contiguous().view(torch.float16).to(torch.float32)
    return numbers


def _unpacked(packed: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """Values of `bits` bits from bytes [blocks, bytes] in groups of `group`: int32 [blocks, values]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.int32).view(-1, 1)
    groups = packed.to(torch.int32).view(len(packed), -1, 1, group)  # [blocks, groups, 1, group]
    values: torch.Tensor = (groups >> shifts) & (2**bits - 1)
    return values.view(len(packed), -1)


def _scaled(levels: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Levels [blocks, values] times steps [blocks, groups], each of which counts for a group of values."""
    grouped = levels.to(torch.float32).view(*steps.shape, -1)  # [blocks, groups, values of a group]
    return grouped * steps.unsqueeze(2)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).to(torch.float32) * _fp16(blocks, 0)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(_unpacked(blocks[:, 2:], 4, 16) - 8, _fp16(blocks, 0))


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(_unpacked(blocks[:, 4:], 4, 16), _fp16(blocks, 0)) + _fp16(blocks, 2).unsqueeze(2)


def _five_bits(blocks: torch.Tensor, first: int) -> torch.Tensor:
    """The values of a block whose highest bits begin at a byte, and the others 4 bytes behind it."""
    return _unpacked(blocks[:, first + 4 :], 4, 16) | (_unpacked(blocks[:, first : first + 4], 1, 1) << 4)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(_five_bits(blocks, 2) - 16, _fp16(blocks, 0))


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(_five_bits(blocks, 4), _fp16(blocks, 0)) + _fp16(blocks, 2).unsqueeze(2)


def _uneven(packed: torch.Tensor) -> torch.Tensor:
    """Values of IQ4 from their 4 bits, in groups of 16 bytes."""
    return torch.tensor(IQ4_LEVELS, dtype=torch.float32)[_unpacked(packed, 4, 16)]


def _iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    return _scaled(_uneven(blocks[:, 2:]), _fp16(blocks, 0))


def _iq4_xs(blocks: torch.Tensor) -> torch.Tensor:
    scales = _unpacked(blocks[:, 4:8], 4, 1) | (_unpacked(blocks[:, 2:4], 2, 1) << 4)
    return _scaled(_uneven(blocks[:, 8:]), _fp16(blocks, 0) * (scales - 32))


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    scales = blocks[:, :16].to(torch.int32)
    offsets = _fp16(blocks, 82) * (scales >> 4)
    return _scaled(_unpacked(blocks[:, 16:80], 2, 32), _fp16(blocks, 80) * (scales & 15)) - offsets.unsqueeze(2)


def _q3_k(blocks: torch.Tensor) -> torch.Tensor:
    scales = _unpacked(blocks[:, 96:104], 4, 8) | (_unpacked(blocks[:, 104:108], 2, 4) << 4)
    lowered = _unpacked(blocks[:, :32], 1, 32) ^ 1
    levels = _unpacked(blocks[:, 32:96], 2, 32) - (lowered << 2)
    return _scaled(levels, _fp16(blocks, 108) * (scales - 32))


def _six_bits(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps and offsets of the 8 groups of Q4_K and Q5_K, fp32 [blocks, 8]."""
    packed = blocks[:, 4:16].to(torch.int32)
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = torch.cat([first & 63, (third & 15) | ((first >> 6) << 4)], dim=1)
    offsets = torch.cat([second & 63, (third >> 4) | ((second >> 6) << 4)], dim=1)
    return _fp16(blocks, 0) * scales, _fp16(blocks, 2) * offsets


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    steps, offsets = _six_bits(blocks)
    return _scaled(_unpacked(blocks[:, 16:], 4, 32), steps) - offsets.unsqueeze(2)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    steps, offsets = _six_bits(blocks)
    levels = _unpacked(blocks[:, 48:], 4, 32) | (_unpacked(blocks[:, 16:48], 1, 32) << 4)
    return _scaled(levels, steps) - offsets.unsqueeze(2)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    levels = _unpacked(blocks[:, :128], 4, 64) | (_unpacked(blocks[:, 128:192], 2, 32) << 4)
    scales = blocks[:, 192:208].contiguous().view(torch.int8)
    return _scaled(levels - 32, _fp16(blocks, 208) * scales)


_DECODE: Mapping[str, _Decode] = MappingProxyType(
    {
        "Q8_0": _q8_0, "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "IQ4_NL": _iq4_nl,
        "IQ4_XS": _iq4_xs, "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    }
)  # fmt: skip
_SCALE_PLACES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "IQ4_NL": (0,), "IQ4_XS": (0,),
        "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    }
)  # fmt: skip
