"""The arithmetic of the weight formats in `checkpoints.formats`: a module for each that can be loaded."""

from __future__ import annotations

from reeltune.dtypes import Quantization
from reeltune.weights.formats.base import Decoder, Weight
from reeltune.weights.formats.fp8 import Fp8, Fp8Scaled
from reeltune.weights.formats.quanto_int8 import QuantoInt8
from reeltune.weights.formats.sixteen_bits import SixteenBits

DECODERS: tuple[Decoder, ...] = (SixteenBits(), QuantoInt8(), Fp8(), Fp8Scaled())


def decoder_of(quantization: Quantization) -> Decoder:
    """What reads the weights of a format that can be loaded."""
    return next(known for known in DECODERS if known.quantization == quantization)


__all__ = ["DECODERS", "Decoder", "Weight", "decoder_of"]
