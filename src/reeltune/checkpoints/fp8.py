"""fp8 weights in a safetensors file, as names alone: cast plainly, or scaled as ComfyUI's files are.

A scaled layer `m` is stored as `m.weight` (F8_E4M3 or F8_E5M2) with `m.scale_weight` or `m.weight_scale`: one number,
or one for each row; weight ≈ stored * scale. `m.scale_input` / `m.input_scale` are for arithmetic in fp8, which isn't
done here. A tensor `scaled_fp8` marks the older files, a note `m.comfy_quant` every layer of the newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable

from reeltune.checkpoints.names import FP8

WEIGHT_SCALES = (".scale_weight", ".weight_scale")
INPUT_SCALES = (".scale_input", ".input_scale")
NOTE = ".comfy_quant"  # JSON: {"format": "float8_e4m3fn"}
PLAIN = ("float8_e4m3fn", "float8_e5m2")
MARKS = ("scaled_fp8", NOTE)
EXTRAS = (*WEIGHT_SCALES, *INPUT_SCALES, *MARKS)
DTYPES = ("F8_E4M3", "F8_E5M2")


def is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a weight that scaled files give a scale: biases, norms and tables have none."""
    return name.endswith(".weight") and len(shape) >= 2


def is_fp8(quantization: str) -> bool:
    """Whether an identity's or a name's quantization is one of fp8."""
    return quantization in FP8


def scale_names(names: Iterable[str]) -> dict[str, str]:
    """The scale of each scaled weight: weight's name -> scale's name."""
    return {
        f"{name.removesuffix(suffix)}.weight": name
        for name in names
        for suffix in WEIGHT_SCALES
        if name.endswith(suffix)
    }
