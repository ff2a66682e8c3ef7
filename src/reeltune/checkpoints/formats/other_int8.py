"""int8 weights that are not in quanto's format: recognized, not loaded."""

from __future__ import annotations

import re

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization

_NAMED = re.compile(r"(?<![a-z0-9])int8(?![a-z0-9])")


class OtherInt8(WeightFormat):
    """8-bit integers, whatever they stand for."""

    quantization = Quantization.OTHER_INT8
    label = "int8 (not quanto)"
    reason_not_loadable = "its int8 is not the quanto format"

    def is_named_in(self, file_name: str) -> bool:
        """The word `int8`."""
        return _NAMED.search(file_name) is not None

    def is_in_header(self, header: Header) -> bool:
        """Most of the values are 8-bit integers."""
        values = sum(tensor.elements for tensor in header.tensors.values() if not self.is_part(tensor.name))
        integers = sum(tensor.elements for tensor in header.tensors.values() if tensor.dtype in ("I8", "U8"))
        return integers > values // 2
