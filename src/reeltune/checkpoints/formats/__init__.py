"""The formats in which weights are stored, one module each, and the registry that names them all.

The order matters: the first format that recognizes a name, a header or a file's first bytes has it.
"""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import SAFETENSORS, Faults, StoredWeight, WeightFormat
from reeltune.checkpoints.formats.four_bits import W4A8, Int4, Mxfp, Nf4, Nunchaku
from reeltune.checkpoints.formats.fp8 import Fp8, Fp8Scaled
from reeltune.checkpoints.formats.gguf import Gguf, OtherGguf
from reeltune.checkpoints.formats.int8_scaled import ScaledInt8
from reeltune.checkpoints.formats.nvfp4 import Nvfp4
from reeltune.checkpoints.formats.other_floats import OtherFloats
from reeltune.checkpoints.formats.other_int8 import OtherInt8
from reeltune.checkpoints.formats.other_quanto import OtherQuanto
from reeltune.checkpoints.formats.pickle import Pickle
from reeltune.checkpoints.formats.quanto_int8 import QuantoInt8
from reeltune.checkpoints.formats.sixteen_bits import SixteenBits
from reeltune.dtypes import Quantization

FORMATS: tuple[WeightFormat, ...] = (
    Gguf(),
    OtherGguf(),
    Pickle(),
    Nunchaku(),
    W4A8(),
    Mxfp(),
    Nvfp4(),
    QuantoInt8(),
    OtherQuanto(),
    Int4(),
    Nf4(),
    ScaledInt8(),
    Fp8Scaled(),
    Fp8(),
    OtherFloats(),
    OtherInt8(),
    SixteenBits(),
)


def format_of(quantization: Quantization) -> WeightFormat:
    """The format of a quantization."""
    return next(known for known in FORMATS if known.quantization == quantization)


def format_by_name(file_name: str) -> WeightFormat:
    """The format that a file's name indicates; `file_name` in lower case."""
    return next(known for known in FORMATS if known.is_named_in(file_name))


def format_by_header(header: Header) -> WeightFormat:
    """The format that a header shows."""
    return next(known for known in FORMATS if known.is_in_header(header))


def format_by_start(start: bytes) -> WeightFormat | None:
    """The format of a file that begins so and is no safetensors file; None where it is none of them."""
    return next((known for known in FORMATS if known.starts_file(start)), None)


def container_format(file_name: str) -> WeightFormat | None:
    """The format that has files of its own and whose ending a name has; None for safetensors and unknown files."""
    for known in FORMATS:
        if known.container != SAFETENSORS and file_name.endswith(known.endings):
            return known
    return None


def loadable_endings() -> tuple[str, ...]:
    """How the names of files end whose weights may be loadable."""
    endings = [ending for known in FORMATS if not known.reason_not_loadable for ending in known.endings]
    return tuple(dict.fromkeys(endings))


__all__ = [
    "FORMATS",
    "Faults",
    "StoredWeight",
    "WeightFormat",
    "container_format",
    "format_by_header",
    "format_by_name",
    "format_by_start",
    "format_of",
    "loadable_endings",
]
