"""GGUF files by hand: any header, and checkpoints as ComfyUI-GGUF's converter writes them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

from reeltune.checkpoints.gguf_types import BLOCK_TYPES, TYPES

TYPE_NUMBERS = {block_type.name: number for number, block_type in TYPES.items()}
SCALE_PLACES = {
    "Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
U32, TEXT, ARRAY, I32, U64 = 4, 8, 9, 5, 10
SMALL = 1024  # values; tensors that have no more are fp32


@dataclass
class Entry:
    """A tensor of a file. `shape`: as the model has it; `type`: a name or a number; `data`: None for zeros."""

    type: str | int
    shape: tuple[int, ...]
    data: bytes | None = None

    @property
    def bytes(self) -> bytes:
        return bytes(self.length) if self.data is None else self.data

    @property
    def length(self) -> int:
        """What the data take, whether they are there or not."""
        block = TYPES.get(self.number)
        return math.prod(self.shape) // block.values * block.bytes if block else 0

    @property
    def number(self) -> int:
        return self.type if isinstance(self.type, int) else TYPE_NUMBERS[self.type]


@dataclass
class File:
    """A whole file. `keys`: (key, type, value) with the value as it is, or its bytes."""

    tensors: Mapping[str, Entry]
    keys: list[tuple[str, int, Any]] = field(default_factory=list)
    version: int = 3
    alignment: int = 32

    def head(self) -> bytes:
        """Everything before the data."""
        raw = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.keys))
        for key, kind, value in self.keys:
            raw += text(key) + struct.pack("<I", kind) + encoded(kind, value)
        offset = 0
        for name, entry in self.tensors.items():
            sides = tuple(reversed(entry.shape))
            raw += text(name) + struct.pack(f"<I{len(sides)}Q", len(sides), *sides)
            raw += struct.pack("<IQ", entry.number, offset)
            offset += padded(entry.length, self.alignment)
        return raw + bytes(padded(len(raw), self.alignment) - len(raw))

    def size(self) -> int:
        """Bytes of the whole file, whether its data are there or not."""
        return len(self.head()) + sum(padded(entry.length, self.alignment) for entry in self.tensors.values())

    def content(self) -> bytes:
        """The whole file."""
        raw = bytearray(self.head())
        for entry in self.tensors.values():
            data = entry.bytes
            raw += data + bytes(padded(len(data), self.alignment) - len(data))
        return bytes(raw)


def padded(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


def text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def encoded(kind: int, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if kind == TEXT:
        return text(value)
    if kind == ARRAY:
        return struct.pack(f"<IQ{len(value)}i", I32, len(value), *value)
    return struct.pack({U32: "<I", U64: "<Q", I32: "<i"}[kind], value)


def text_array(values: Iterable[str]) -> bytes:
    """The value of a key whose type is ARRAY."""
    values = list(values)
    return struct.pack("<IQ", TEXT, len(values)) + b"".join(text(value) for value in values)


def random_blocks(type_name: str, count: int, seed: int = 0, largest: float = 0.01) -> np.ndarray:
    """Blocks [count, bytes] whose scales are small numbers, and all else is random."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, BLOCK_TYPES[type_name].bytes), dtype=np.uint8)
    for place in SCALE_PLACES[type_name]:
        scales = rng.uniform(-largest, largest, (count, 1)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    return blocks


def decoded(type_name: str, blocks: np.ndarray) -> np.ndarray:
    """Blocks as the reference package decodes them: fp32 [count, values]."""
    with np.errstate(all="ignore"):
        numbers = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type_name])
    return numbers.reshape(len(blocks), -1)


def entry_of(tensor: torch.Tensor, type_name: str) -> Entry:
    """A tensor as the converter stores it: small ones in fp32, those without whole blocks in each row in fp16.

    Types that the reference package doesn't write are random blocks.
    """
    shape = tuple(tensor.shape)
    if len(shape) == 1 or math.prod(shape) <= SMALL:
        return Entry("F32", shape, tensor.float().numpy().tobytes())
    if type_name == "BF16":
        return Entry("BF16", shape, tensor.bfloat16().view(torch.int16).numpy().tobytes())
    if type_name not in BLOCK_TYPES or shape[-1] % BLOCK_TYPES[type_name].values:
        return Entry("F16", shape, tensor.half().numpy().tobytes())
    try:
        quantized = gguf.quants.quantize(tensor.float().numpy(), gguf.GGMLQuantizationType[type_name])
    except NotImplementedError:
        quantized = random_blocks(type_name, tensor.numel() // BLOCK_TYPES[type_name].values)
    return Entry(type_name, shape, quantized.tobytes())


def converted(
    state: Mapping[str, torch.Tensor], type_name: str, *, config: str = "", prefix: str = "", architecture: str = "wan"
) -> File:
    """A checkpoint's tensors in a GGUF file."""
    keys: list[tuple[str, int, Any]] = [("general.architecture", TEXT, architecture)]
    if config:
        keys.append(("config", TEXT, config))
    tensors = {prefix + name: entry_of(tensor, type_name) for name, tensor in state.items()}
    return File(tensors, keys)


def convert(source: Path, target: Path, type_name: str) -> Path:
    """Write a safetensors file's weights and its config to a GGUF file."""
    with safe_open(source, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = (file.metadata() or {}).get("config", "")
    target.write_bytes(converted(state, type_name, config=config).content())
    return target


def numbers_of(file: File) -> dict[str, torch.Tensor]:
    """All tensors of a file as the reference package decodes them, fp32."""
    state = {}
    for name, entry in file.tensors.items():
        type_name = TYPES[entry.number].name
        raw = np.frombuffer(entry.bytes, np.uint8)
        if type_name == "BF16":
            values = torch.from_numpy(raw.copy()).view(torch.bfloat16).float()
        elif type_name in ("F16", "F32"):
            values = torch.from_numpy(raw.view({"F16": np.float16, "F32": np.float32}[type_name]).astype(np.float32))
        else:
            values = torch.from_numpy(decoded(type_name, raw.reshape(-1, BLOCK_TYPES[type_name].bytes)))
        state[name] = values.reshape(entry.shape)
    return state
