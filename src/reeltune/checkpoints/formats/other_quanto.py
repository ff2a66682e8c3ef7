"""Weights that quanto stored in less than 8 bits, or as 8-bit floats: recognized, not loaded."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES, WeightFormat
from reeltune.checkpoints.formats.quanto_int8 import DATA, SCALE
from reeltune.dtypes import Quantization


class OtherQuanto(WeightFormat):
    """Quanto's formats but for int8."""

    quantization = Quantization.OTHER_QUANTO
    label = "quanto (not int8)"
    reason_not_loadable = "quanto weights other than int8 can't be loaded"

    def is_named_in(self, file_name: str) -> bool:
        """A name with `quanto` that says nothing of int8."""
        return "quanto" in file_name

    def is_in_header(self, header: Header) -> bool:
        """Names of quanto's data."""
        return any(name.endswith(DATA) for name in header.tensors)

    def is_part(self, tensor_name: str) -> bool:
        """Scales go with the data."""
        return tensor_name.endswith((SCALE, *ACTIVATION_SCALES))
