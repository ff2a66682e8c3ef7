"""8-bit and 6-bit floats of data types that torch can't convert: recognized, not loaded."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization


class OtherFloats(WeightFormat):
    """Narrow floats but for the two usual kinds of fp8."""

    quantization = Quantization.OTHER_FLOATS
    label = "fp6 or another fp8"
    reason_not_loadable = "fp6 weights, and fp8 weights other than e4m3fn and e5m2, can't be loaded"

    def is_in_header(self, header: Header) -> bool:
        """Tensors of such data types; files of the usual fp8 are recognized before."""
        return any(tensor.dtype.startswith(("F8_", "F6_")) for tensor in header.tensors.values())
