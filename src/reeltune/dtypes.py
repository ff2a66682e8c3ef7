"""Data types that models compute in, and the ways in which their weights are stored.

Both are texts as well, as they stand in preferences, in reports and in file names.
"""

from __future__ import annotations

from enum import StrEnum


class DType(StrEnum):
    """A data type that models compute in."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Quantization(StrEnum):
    """How the weights of a checkpoint are stored. The value is the name that reports show."""

    NONE = "none"  # 16 or 32 bits
    QUANTO_INT8 = "quanto_int8"
    FP8 = "fp8"
    FP8_SCALED = "fp8_scaled"
    GGUF = "gguf"
    INT8_SCALED = "int8_scaled"
    OTHER_GGUF = "gguf (IQ1 to IQ3 and others)"
    NVFP4 = "nvfp4"
    NUNCHAKU = "nunchaku"
    W4A8 = "w4a8"
    INT4 = "int4"
    NF4 = "nf4"
    MXFP = "mxfp"
    OTHER_INT8 = "other int8"
    OTHER_QUANTO = "quanto (not int8)"
    OTHER_FLOATS = "fp6 or another fp8"
    PICKLE = "pickle"
