"""The arithmetic of the weight formats in `checkpoints.formats`: a module for each that can be loaded."""

from __future__ import annotations

from reeltune.dtypes import Quantization
from reeltune.weights.formats.base import Decoder, Weight
from reeltune.weights.formats.fp8 import Fp8Decoder, Fp8ScaledDecoder
from reeltune.weights.formats.gguf import GgufDecoder
from reeltune.weights.formats.int8_scaled import ScaledInt8Decoder
from reeltune.weights.formats.nvfp4 import Nvfp4Decoder
from reeltune.weights.formats.quanto_int8 import QuantoInt8Decoder
from reeltune.weights.formats.sixteen_bits import SixteenBitsDecoder

DECODERS: tuple[Decoder, ...] = (
    SixteenBitsDecoder(),
    QuantoInt8Decoder(),
    ScaledInt8Decoder(),
    Fp8Decoder(),
    Fp8ScaledDecoder(),
    GgufDecoder(),
    Nvfp4Decoder(),
)


def decoder_of(quantization: Quantization) -> Decoder:
    """What reads the weights of a format that can be loaded."""
    return next(known for known in DECODERS if known.quantization == quantization)


__all__ = ["DECODERS", "Decoder", "Weight", "decoder_of"]
