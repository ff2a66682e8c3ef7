"""Tensors of a checkpoint as memory-mapped torch tensors: nothing is read before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from reeltune.checkpoints.header import Header, Tensor, read_header
from reeltune.errors import UnsupportedFormat

TORCH_DTYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
RUN_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TensorFile:
    """A safetensors file, mapped: `file["name"]` is a view on the mapping (private: the file can't change)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header = read_header(path)
        self._bytes = torch.from_file(str(path), shared=False, size=self.header.file_bytes, dtype=torch.uint8)

    def __getitem__(self, name: str) -> torch.Tensor:
        row: Tensor = self.header.tensors[name]
        if row.dtype not in TORCH_DTYPES:
            raise UnsupportedFormat(f"{self.path}: tensor {name!r} is stored as {row.dtype}, which can't be loaded.")
        dtype = TORCH_DTYPES[row.dtype]
        raw = self._bytes[row.begin : row.end]
        if row.begin % dtype.itemsize:  # a view needs aligned data; few writers leave any unaligned
            raw = raw.clone()
        return raw.view(dtype).view(row.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.tensors)
