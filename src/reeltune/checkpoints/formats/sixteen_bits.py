"""Weights as they are: bf16, fp16 or fp32 numbers."""

from __future__ import annotations

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import WeightFormat
from reeltune.dtypes import Quantization


class SixteenBits(WeightFormat):
    """Every file that shows no other format: it stands last in the registry."""

    quantization = Quantization.NONE
    label = "16 bits"

    def is_named_in(self, file_name: str) -> bool:
        """Every name that names no other format."""
        return True

    def is_in_header(self, header: Header) -> bool:
        """Every header that shows no other format."""
        return True
