"""Tensors of a checkpoint as memory-mapped torch tensors: nothing is read before it is used."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import torch

from reeltune.checkpoints.contents import Header, Tensor
from reeltune.checkpoints.header import read_header
from reeltune.dtypes import DType
from reeltune.errors import UnsupportedFormat

TORCH_DTYPES = {
    "BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64,
    "I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
RUN_DTYPES = {DType.BF16: torch.bfloat16, DType.FP16: torch.float16, DType.FP32: torch.float32}


class TensorFile:
    """A safetensors or GGUF file, mapped: `file["name"]` is a view on the mapping (private: the file can't change)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: Header = read_header(path)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bytes = torch.frombuffer(self._map, dtype=torch.uint8)

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor: Tensor = self.header.tensors[name]
        if tensor.dtype not in TORCH_DTYPES:
            raise UnsupportedFormat(f"{self.path}: tensor {name!r} is stored as {tensor.dtype}, which can't be loaded.")
        dtype = TORCH_DTYPES[tensor.dtype]
        raw = self.raw(name)
        if tensor.begin % dtype.itemsize:  # a view needs aligned data; few writers leave any unaligned
            raw = raw.clone()
            self.release(name)
        return raw.view(dtype).view(tensor.shape)

    def raw(self, name: str) -> torch.Tensor:
        """The bytes of a tensor as they are stored: uint8 [bytes]."""
        tensor = self.header.tensors[name]
        return self._bytes[tensor.begin : tensor.end]

    def release(self, name: str) -> None:
        """Have the system take back the memory behind a tensor that has been converted; reading it again is fine.

        Only for tensors no view of which was changed. Does nothing where the system has no such call (Windows).
        """
        tensor = self.header.tensors[name]
        first = -(-tensor.begin // mmap.PAGESIZE) * mmap.PAGESIZE
        last = tensor.end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def __iter__(self) -> Iterator[str]:
        return iter(self.header.tensors)
