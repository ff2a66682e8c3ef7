"""Weights in 4 bits, or in blocks of narrow floats, that other programs compute with: recognized, not loaded."""

from __future__ import annotations

import re

from reeltune.checkpoints.contents import Header
from reeltune.checkpoints.formats.base import ACTIVATION_SCALES, WeightFormat
from reeltune.checkpoints.notes import NOTE, noted_formats
from reeltune.dtypes import Quantization


class _Refused(WeightFormat):
    """A format that is recognized by its name, by the notes of ComfyUI's files, or by the endings of its tensors.

    `named`: a regular expression; `noted`: ComfyUI's names of it; `marks`: endings of tensors that only it has;
    `parts`: endings of its scales.
    """

    named: str
    noted: frozenset[str] = frozenset()
    marks: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def is_named_in(self, file_name: str) -> bool:
        """A word in the name."""
        return re.search(self.named, file_name) is not None

    def is_in_header(self, header: Header) -> bool:
        """A note, or a tensor that no other format has."""
        if not self.noted.isdisjoint(noted_formats(header)):
            return True
        return any(name.endswith(self.marks) for name in header.tensors) if self.marks else False

    def is_part(self, tensor_name: str) -> bool:
        """Scales and notes go with the weights."""
        return tensor_name.endswith((*self.marks, *self.parts, *ACTIVATION_SCALES, NOTE))


class Nunchaku(_Refused):
    """Nunchaku's SVDQuant: 4 bits beside a matrix of low rank."""

    quantization = Quantization.NUNCHAKU
    label = "nunchaku"
    reason_not_loadable = "nunchaku (SVDQuant) weights can't be loaded"
    named = r"nunchaku|svdq"
    noted = frozenset({"svdquant_w4a4"})
    marks = (".wscales", ".smooth_factor", ".smooth_factor_orig")
    parts = (".wcscales", ".wtscale", ".lora_down", ".lora_up", ".proj_down", ".proj_up", ".wzeros")


class W4A8(_Refused):
    """4-bit weights for products with 8-bit activations."""

    quantization = Quantization.W4A8
    label = "w4a8"
    reason_not_loadable = "w4a8 weights (4 bits) can't be loaded"
    named = r"w4a8"
    noted = frozenset({"asym_w4a8_int8"})
    marks = (".weight_s_rel", ".weight_s_channel")
    parts = (".weight_codebook",)


class Int4(_Refused):
    """Other 4-bit integers: AWQ, GPTQ, and ComfyUI's rotated int4."""

    quantization = Quantization.INT4
    label = "int4"
    reason_not_loadable = "int4 weights can't be loaded"
    named = r"(?<![a-z0-9])(?:u?int4|w4a4|w4a16|awq|gptq)(?![a-z0-9])"
    noted = frozenset({"convrot_w4a4", "awq_w4a16"})
    marks = (".weight_zeros", ".qzeros")
    parts = (".weight_scale", ".scales", ".g_idx")


class Nf4(_Refused):
    """The 4-bit formats of bitsandbytes."""

    quantization = Quantization.NF4
    label = "nf4"
    reason_not_loadable = "nf4 weights (bitsandbytes) can't be loaded"
    named = r"(?<![a-z0-9])(?:b?nf4|bnb)(?![a-z0-9])"
    marks = (".weight.quant_state.bitsandbytes__nf4", ".weight.quant_state.bitsandbytes__fp4", ".weight.absmax")
    parts = (".weight.quant_map", ".weight.nested_absmax", ".weight.nested_quant_map")


class Mxfp(_Refused):
    """Narrow floats with a scale, a power of two, for each 32 of them."""

    quantization = Quantization.MXFP
    label = "mxfp"
    reason_not_loadable = "mxfp8, mxfp6 and mxfp4 weights can't be loaded"
    named = r"mxfp\d"
    noted = frozenset({"mxfp8", "mxfp6", "mxfp4"})
    parts = (".weight_scale",)

    def is_in_header(self, header: Header) -> bool:
        """Scales that are powers of two, of a data type of their own or as bytes."""
        if super().is_in_header(header):
            return True
        if any(name.endswith(".weight_scale_2") for name in header.tensors):  # nvfp4's
            return False
        for name, tensor in header.tensors.items():
            if tensor.dtype == "F8_E8M0" or (name.endswith(".weight_scale") and tensor.dtype == "U8"):
                return True
        return False
