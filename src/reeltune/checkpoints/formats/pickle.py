"""Pickle files (`.pt`, `.ckpt`): recognized, and never loaded, because they can run code."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header, Source
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization
from reeltune.errors import UnsupportedFormat

_STARTS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # a zip archive, or a pickle's version


class Pickle(WeightFormat):
    """What `torch.save` writes."""

    quantization = Quantization.PICKLE
    label = "pickle"
    reason_not_loadable = "pickle files can run code and are never loaded"
    container = "pickle"
    endings = (".pt", ".pth", ".ckpt", ".bin", ".pkl")

    def starts_file(self, start: bytes) -> bool:
        """A pickle, or the archive that newer ones are in."""
        return start.startswith(_STARTS)

    def read_header(self, source: Source) -> Header:
        """Raises UnsupportedFormat."""
        message = f"{source.name} is a pickle or zip archive, which can run code and is never loaded."
        raise UnsupportedFormat(message, hint="Ask its author for a safetensors file.")
