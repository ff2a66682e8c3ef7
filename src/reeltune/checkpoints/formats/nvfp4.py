"""nvfp4 weights: two values in a byte, with fp8 scales. Recognized, not loaded."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES, WeightFormat
from reeltune.checkpoints.notes import NOTE, noted_formats
from reeltune.dtypes import Quantization

_SCALES = (".weight_scale", ".weight_scale_2")


class Nvfp4(WeightFormat):
    """NVIDIA's 4-bit floats."""

    quantization = Quantization.NVFP4
    label = "nvfp4"
    reason_not_loadable = "nvfp4 weights can't be loaded"

    def is_named_in(self, file_name: str) -> bool:
        """`nvfp4` or `fp4`."""
        return "fp4" in file_name

    def is_in_header(self, header: Header) -> bool:
        """A note, a second scale for each layer, or tensors of 4-bit floats."""
        if "nvfp4" in noted_formats(header):
            return True
        if any(name.endswith(".weight_scale_2") for name in header.tensors):
            return True
        return any(tensor.dtype == "F4" for tensor in header.tensors.values())

    def is_part(self, tensor_name: str) -> bool:
        """Scales go with the weights."""
        return tensor_name.endswith((*_SCALES, *ACTIVATION_SCALES, ".pre_quant_scale", NOTE))
