"""GGUF files, llama.cpp's container: recognized, not loaded."""

from __future__ import annotations

import re

from reeltune.checkpoints.contents import Header, Source
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization
from reeltune.errors import UnsupportedFormat

_NAMED = re.compile(r"gguf|(?<![a-z0-9])q\d_[k01]")  # such as Q4_K_M


class Gguf(WeightFormat):
    """Weights in blocks of a few bits each, in a container of its own."""

    quantization = Quantization.GGUF
    label = "gguf"
    reason_not_loadable = "GGUF files can't be loaded"
    container = "gguf"
    endings = (".gguf",)

    def is_named_in(self, file_name: str) -> bool:
        """`gguf`, or one of its block formats."""
        return _NAMED.search(file_name) is not None

    def starts_file(self, start: bytes) -> bool:
        """The container's first four bytes."""
        return start.startswith(b"GGUF")

    def read_header(self, source: Source) -> Header:
        """Raises UnsupportedFormat."""
        message = f"{source.name} is a GGUF file, which can't be loaded here."
        raise UnsupportedFormat(message, hint="Use a safetensors version.")
