"""int8 weights in neither of the formats that are known: recognized, not loaded."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization


class OtherInt8(WeightFormat):
    """8-bit integers, whatever they stand for."""

    quantization = Quantization.OTHER_INT8
    label = "other int8"
    reason_not_loadable = "its int8 weights are neither in the quanto format nor stored with scales (weight_scale)"

    def is_in_header(self, header: Header) -> bool:
        """Most of the values are 8-bit integers."""
        values = sum(tensor.elements for tensor in header.tensors.values() if not self.is_part(tensor.name))
        integers = sum(tensor.elements for tensor in header.tensors.values() if tensor.dtype in ("I8", "U8"))
        return integers > values // 2
