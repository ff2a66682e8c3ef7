"""Weights as they are: bf16, fp16, fp32 or fp64 numbers."""

from __future__ import annotations

from reeltune.dtypes import Quantization
from reeltune.weights.formats.base import Decoder


class SixteenBitsDecoder(Decoder):
    """Reads them as they are stored; nothing is copied before it is converted."""

    quantization = Quantization.NONE
