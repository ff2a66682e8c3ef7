"""GGUF files, llama.cpp's container: weights in blocks of a few bits each, by a type for each tensor.

A file without any blocks, in bf16, fp16 or fp32, counts as one of 16 bits: its weights are stored as in a safetensors
file.
"""

from __future__ import annotations

import math
import re

from reeltune.checkpoints.contents import Header, Source, Tensor
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.checkpoints.gguf_header import CONTAINER, MAGIC, read_gguf_header
from reeltune.checkpoints.gguf_types import BLOCK_TYPES, DECODED
from reeltune.dtypes import Quantization

_BLOCKS = re.compile(r"(?<![a-z0-9])i?q\d_(?:k|[01]|nl|xs)")  # such as Q4_K_M
_OTHER_BLOCKS = re.compile(r"(?<![a-z0-9])(?:iq[123]_|tq[12]_|q1_0|q8_1|q8_k(?!_)|mxfp4|nvfp4)")
_PLAIN = re.compile(r"(?<![a-z0-9])(?:b?f16|f32|fp16|fp32)(?![a-z0-9])")
_ENDING = ".gguf"


class Gguf(WeightFormat):
    """Blocks of the types that can be decoded."""

    quantization = Quantization.GGUF
    label = "GGUF"
    converted_on_load = True
    container = CONTAINER
    endings = (_ENDING,)
    name_pattern = r"(?:ud-)?(?:q\d_(?:k(?:_(?:xs|s|m|l|xl))?|[01])|iq4_(?:nl|xs)|f16|f32)"

    def is_named_in(self, file_name: str) -> bool:
        """`gguf`, or one of the types, unless the name tells of weights that aren't in blocks."""
        if _OTHER_BLOCKS.search(file_name):
            return False
        if _BLOCKS.search(file_name):
            return True
        return "gguf" in file_name and not _PLAIN.search(file_name)

    def starts_file(self, start: bytes) -> bool:
        """The container's first four bytes."""
        return start.startswith(MAGIC)

    def is_in_header(self, header: Header) -> bool:
        """Blocks, all of them of types that can be decoded."""
        types = {tensor.dtype for tensor in header.tensors.values()}
        return header.container == CONTAINER and not types.isdisjoint(DECODED) and types.isdisjoint(_not_decoded())

    def read_header(self, source: Source) -> Header:
        """The container's table of tensors, with the names of types as data types."""
        return read_gguf_header(source)

    def tells_dtype(self, tensor_name: str) -> bool:
        """No tensor does: writers store what isn't in blocks as fp32, whatever the model computes in."""
        return False

    def has_rows_apart(self, tensor: Tensor) -> bool:
        """Whether no block holds values of two rows: those of a tensor that its writer has reshaped may."""
        block = BLOCK_TYPES.get(tensor.dtype)
        return block is None or (bool(tensor.shape) and math.prod(tensor.shape[1:]) % block.values == 0)


class OtherGguf(WeightFormat):
    """Blocks of types that aren't decoded here."""

    quantization = Quantization.OTHER_GGUF
    label = "GGUF IQ1 to IQ3"
    reason_not_loadable = "GGUF weights of the types IQ1 to IQ3, TQ, MXFP4 and other rare ones can't be loaded"
    hint = "Use a version of a larger type, such as Q4_K_M or Q8_0."
    container = CONTAINER
    endings = (_ENDING,)

    def is_named_in(self, file_name: str) -> bool:
        """A GGUF file with the name of such a type, or one of llama.cpp's types that nothing else is called."""
        found = _OTHER_BLOCKS.search(file_name)
        return found is not None and (file_name.endswith(_ENDING) or found[0].startswith(("iq", "tq")))

    def is_in_header(self, header: Header) -> bool:
        """At least one tensor of such a type."""
        types = {tensor.dtype for tensor in header.tensors.values()}
        return header.container == CONTAINER and not types.isdisjoint(_not_decoded())


def _not_decoded() -> set[str]:
    return BLOCK_TYPES.keys() - set(DECODED)
